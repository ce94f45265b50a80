//! Private and public keys of a team, in unusual forms.

use age::secrecy::ExposeSecret as _;
use tests::process::Running;
use tests::sets::developer;
use tests::share::{SharedStore, add_identity, recipients};

const LIST: [&str; 3] = ["snapshots", "list", "--share"];

#[test]
fn a_private_key_is_found_in_a_variable_and_never_shown() {
    let store = SharedStore::directory();
    let env = developer();
    store.settings(&env, "");
    let identity = age::x25519::Identity::generate();
    let secret = identity.to_string().expose_secret().to_owned();
    env.write("home/.config/age/keys.txt", &secret);
    recipients(&env, &["\u{feff}# team\r", "\r", &format!("{}\r", identity.to_public())]);
    store.publish(&env);

    let other = store.member();
    recipients(&other, &[&identity.to_public().to_string()]);
    let list = |name: &str, value: &str| {
        let mut command = store.command(&other, &LIST);
        Running::start(command.env(name, value)).wait()
    };
    let file =
        format!("# created: today\r\n# public key: {}\r\n{secret}\r\n", identity.to_public());
    for value in [&secret, &format!("  {secret}\n"), &file] {
        list("XTASK_SHARE_IDENTITY", value).ok().stdout_has("backup_");
    }
    for wrong in [&secret[..secret.len() - 2], &format!("x{file}")] {
        let output = list("AGE_IDENTITY", wrong);
        let shown = output.stderr.to_uppercase();
        assert!(!shown.contains(&secret[..secret.len() - 2]), "{output}");
        output.fails(2).stderr_has("AGE_IDENTITY has no valid private key");
    }
    // An empty variable is as good as none.
    env.write("home/.config/age/keys.txt", &secret);
    let mut command = store.command(&env, &LIST);
    Running::start(command.env("XTASK_SHARE_IDENTITY", "")).wait().ok();
}

#[test]
fn a_private_key_among_the_public_ones_is_not_shown() {
    let store = SharedStore::directory();
    let env = developer();
    store.settings(&env, "");
    let public = add_identity(&env);
    let secret = age::x25519::Identity::generate();
    let secret = secret.to_string().expose_secret().to_owned();
    recipients(&env, &[&public, &secret]);
    let refused = store.xtask(&env, &["snapshots", "publish"]).fails(2);
    refused.stderr_has("recipients.txt has a private key").stderr_lacks(&secret);
}

/// A key in such a store would lock out all others.
#[test]
fn a_store_without_encryption_gets_no_key() {
    let store = SharedStore::directory();
    let env = developer();
    store.settings(&env, "");
    store.publish(&env);
    let before = store.files();
    let key = add_identity(&env);
    recipients(&env, &[&key]);
    let refused = store.xtask(&env, &["snapshots", "publish"]).fails(1);
    refused.stderr_has("were published without encryption").stderr_has("hint: set another url");
    assert!(store.files() == before, "the store was changed");
    store.pull(&store.member());
}
