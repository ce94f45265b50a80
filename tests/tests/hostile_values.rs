//! Whatever is typed, set or written into the settings stays data: it is never
//! run, here or on the server, and never reaches the terminal raw.

use std::cell::Cell;
use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::long::{depth, long};
use tests::output::Output;
use tests::process::Running;
use tests::pull::{assert_tidy, live, pull};
use tests::server::Sshd;
use tests::{binaries, pty, shells, store};

/// What a shell, SQL, sqlite3, a URI, a glob, JSON, a terminal, a program's flags
/// or git could take for something else. `canary` is a program on both sides. No
/// test may write to a fixed place, so none of these is an absolute path, or leads
/// out of the test's own directory.
const VALUES: [&str; 39] = [
    "$(canary)",
    "`canary`",
    ";canary;",
    "|canary",
    "&canary&",
    "a\ncanary\nb",
    "a\rcanary",
    "'; canary; '",
    "\"; canary; \"",
    "'\"'\"'",
    "x) canary;;",
    "$HOME",
    "-x",
    "--",
    "--help",
    "-oProxyCommand=canary",
    "--command=canary",
    "..",
    "../owned",
    "~",
    "~/x",
    "a b",
    "a\tb",
    "*?[a]",
    "[",
    "%s%n%00%2e",
    "\\",
    "x?mode=rwc#y",
    "file:x?mode=rw",
    ":(exclude)*",
    "x' OR 1=1 --",
    "x\"; DROP TABLE items; --",
    ".shell canary",
    "x;\n.shell canary\n",
    "\u{202e}gpj\u{200b}",
    "\x1b]0;owned\x07",
    "\u{9b}2J",
    "nrt\n",
    "",
];

fn values() -> Vec<String> {
    let long = "x".repeat(100_000);
    VALUES.into_iter().map(str::to_owned).chain([long, "a\0b".to_owned()]).collect()
}

/// Of so many values a place gets one, and the next place another; where there is time, all.
const SHARE: usize = 13;

/// Where a value is put in: the `{}` of a command line, of a variable, or of a
/// file, there as a TOML string behind what it begins with.
#[derive(Clone, Copy, Debug)]
enum Place {
    Flag(&'static str),
    FlyApp,
    DbToml { command: &'static str, text: &'static str, prefix: &'static str },
    FlyToml(&'static str),
}
use Place::{DbToml, Flag, FlyApp, FlyToml};

const fn db(command: &'static str, text: &'static str) -> Place {
    DbToml { command, text, prefix: "" }
}

struct Scene {
    env: TestEnv,
    _sshd: Sshd,
    /// What every `db.toml` begins with.
    base: String,
    /// How many places have had their values.
    places: Cell<usize>,
}

impl Scene {
    /// Two databases, pulled once over `fly`.
    fn new() -> Scene {
        let env = TestEnv::new();
        shells::script(&env.path("bin"), "canary", &format!(": >{}", canary(&env).display()));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", env.path("bin").display());
        let sshd = env.start_server(&env.server_environment().set("PATH", path));
        for (seed, name) in (1..).zip(["data.db", "tenant_iris.db"]) {
            databases::create(&env.production().join(name), 20, seed);
        }
        pull(&env, &[]);
        Scene { env, _sshd: sshd, base: String::new(), places: Cell::new(0) }
    }

    /// The same where pulls come from this machine, which takes less time.
    fn local() -> Scene {
        let scene = Scene::new();
        let base = format!("via = 'local:{}'\n", scene.env.production().display());
        scene.env.db_toml(&base);
        Scene { base, ..scene }
    }

    /// None where such a place cannot hold the value.
    #[track_caller]
    fn run(&self, place: Place, value: &str) -> Option<Output> {
        let env = &self.env;
        let toml = |text: &str, prefix: &str| {
            // TOML escapes like JSON.
            let quoted = serde_json::json!(format!("{prefix}{value}")).to_string();
            text.replace("{}", &quoted)
        };
        let (line, variable) = match place {
            Flag(line) => (line, None),
            FlyApp => ("pull-db", Some(value)),
            DbToml { command, text, prefix } => {
                env.db_toml(&format!("{}{}", self.base, toml(text, prefix)));
                (command, None)
            }
            FlyToml(text) => {
                env.db_toml(&self.base);
                env.write("repo/fly.toml", &toml(text, ""));
                ("pull-db", None)
            }
        };
        if value.contains('\0') && matches!(place, Flag(_) | FlyApp) {
            return None;
        }
        let before = env.fly_invocations().len();
        let mut xtask = env.command(binaries::xtask());
        xtask.args(line.split(' ').map(|word| word.replace("{}", value)));
        if !line.contains("--config") {
            xtask.env("CARGO_MANIFEST_DIR", env.path("repo/xtask"));
        }
        xtask.envs(variable.map(|value| ("FLY_APP", value)));
        let output = Running::start(&mut xtask).wait().is_harmless().stderr_lacks("panicked");
        assert!(!canary(env).exists(), "{place:?} ran {value:?}\n{output}");
        assert!(matches!(output.code, Some(0..=2)), "{place:?} with {value:?}\n{output}");
        assert_eq!(output.code == Some(0), !output.stderr.contains("error: "), "{output}");
        for args in &env.fly_invocations()[before..] {
            let known = |arg: &&String| {
                ["ssh", "console", "--app", "upflow", "--command"].contains(&arg.as_str())
                    || arg.starts_with("sh -c 'read -r n")
            };
            assert!(args.len() == 6 && args.iter().all(|arg| known(&arg)), "{value:?}: {args:?}");
        }
        Some(output)
    }

    /// The values for one more place.
    fn share(&self) -> Vec<String> {
        let step = depth(SHARE, 1);
        let first = self.places.replace(self.places.get() + 1) % step;
        values().into_iter().skip(first).step_by(step).collect()
    }

    /// Puts in the values of this place.
    #[track_caller]
    fn try_share(&self, place: Place, check: impl Fn(&str, &Output)) {
        for value in self.share() {
            if let Some(output) = self.run(place, &value) {
                check(&value, &output);
            }
        }
    }

    /// Every value is refused before anything is asked of anyone, and that is said.
    #[track_caller]
    fn refuses(&self, places: &[Place]) {
        for &place in places {
            self.try_share(place, |value, output| {
                // An empty variable is none, and the help is no value.
                let none = value.is_empty() && matches!(place, FlyApp);
                assert!(none || output.code == Some(2), "{place:?} took {value:?}\n{output}");
                assert!(none || output.stderr.starts_with("error: "), "{output}");
            });
        }
    }
}

fn canary(env: &TestEnv) -> std::path::PathBuf {
    env.path("canary-was-run")
}

#[test]
fn what_goes_into_a_command_line_is_a_word_or_is_refused() {
    let scene = Scene::new();
    scene.refuses(&[
        Flag("pull-db --app={}"),
        Flag("pull-db --machine={}"),
        Flag("pull-db --region={}"),
        Flag("pull-db --process-group={}"),
        Flag("pull-db --container={}"),
        Flag("pull-db --via={}"),
        Flag("pull-db --via=ssh:{}"),
        Flag("pull-db --via=ssh:me@host:{}"),
        Flag("pull-db --via=docker:{}"),
        Flag("pull-db --if-older={}"),
        Flag("snapshots prune --keep={}"),
        FlyApp,
        db("pull-db", "app = {}"),
        db("pull-db", "via = {}"),
        DbToml { command: "pull-db", text: "via = {}", prefix: "ssh:" },
        DbToml { command: "pull-db", text: "via = {}", prefix: "docker:" },
        db("pull-db", "keep = {}"),
        FlyToml("app = {}"),
    ]);
}

#[test]
fn an_app_that_cannot_be_read_does_not_give_way_to_another() {
    use std::os::unix::ffi::OsStrExt as _;
    let scene = Scene::new();
    let mut xtask = scene.env.xtask_command(["pull-db"]);
    xtask.env("FLY_APP", std::ffi::OsStr::from_bytes(b"other\xff"));
    Running::start(&mut xtask).wait().fails(2).stderr_has("FLY_APP = \"other\\xFF\" is not UTF-8");
}

#[test]
fn a_directory_on_the_server_is_data_or_is_refused() {
    let scene = Scene::new();
    let env = &scene.env;
    for (i, value) in (0..).zip(values()).step_by(depth(7, 1)) {
        let control = value.chars().any(char::is_control);
        let directory = env.path(format!("{i}")).join(&value);
        let is_made = !control && fs::create_dir_all(&directory).is_ok();
        let shown = directory.display().to_string();
        if is_made {
            databases::create(&directory.join("data.db"), i, 9);
        }
        let places = [
            Flag("pull-db --remote-dir={}"),
            db("pull-db", "remote-dir = {}"),
            FlyToml("app = 'upflow'\n[[mounts]]\ndestination = {}"),
        ];
        let tried = if long() { &places[..] } else { &places[i as usize % 3..][..1] };
        for &place in tried {
            let Some(output) = scene.run(place, &shown) else { continue };
            let code = if is_made { 0 } else { 1 + i32::from(control) };
            assert_eq!(output.code, Some(code), "{place:?} with {value:?}\n{output}");
            assert_tidy(env);
            if is_made {
                assert_eq!(databases::count(&env.data().join("data.db"), "items"), i64::from(i));
            }
        }
    }
    env.db_toml("");
    let asked = env.fly_invocations().len();
    env.xtask(["pull-db", "--start", "--remote-dir", "/data\nend"]).fails(2);
    assert_eq!(env.fly_invocations().len(), asked, "no machine is started for it");
    scene.refuses(&[Flag("pull-db --remote-dir={}"), db("pull-db", "remote-dir = {}")]);
}

#[test]
fn a_name_and_a_pattern_are_data_or_are_refused() {
    let scene = Scene::local();
    for line in [
        "pull-db --only={}",
        "pull-db --via=local:{}",
        "restore-db --yes --name={}",
        "restore-db --yes --at={}",
        "restore-db --yes -- {}",
        "snapshots pin -- {}",
        "restore-db --yes --latest --only={}",
        "restore-db --list --config={}",
        "snapshots list --local-dir={}",
        "snapshots rm --yes -- {}",
        "refresh-fixtures --from={}",
        "textconv -- {}",
    ] {
        scene.try_share(Flag(line), |_, _| {});
    }
    assert_eq!(store::kinds(&scene.env.data()), ["pull"]);
    assert_eq!(live(&scene.env), ["data.db", "tenant_iris.db"]);
}

#[test]
fn settings_of_places_and_patterns_are_data_or_are_refused() {
    let scene = Scene::local();
    let production = store::fingerprint(&scene.env.production());
    for text in ["staging-dir = {}", "include = [{}, 'data.db']", "exclude = [{}]"] {
        scene.try_share(db("pull-db", text), |value, output| {
            let control = value.chars().any(char::is_control);
            assert!(!control || output.code == Some(2), "{text} with {value:?}\n{output}");
        });
    }
    scene.try_share(db("pull-db", "local-dir = {}"), |value, output| {
        let refused =
            value.is_empty() || value.starts_with('~') || value.chars().any(char::is_control);
        assert_eq!(output.code == Some(2), refused, "{value:?}\n{output}");
    });
    assert!(store::fingerprint(&scene.env.production()) == production);
    scene.try_share(db("setup-db", "setup = {}"), |_, output| {
        assert_ne!(output.code, Some(0), "{output}");
    });
}

#[test]
fn what_rules_say_is_sql_and_nothing_else() {
    let scene = Scene::local();
    let production = store::fingerprint(&scene.env.production());
    for text in [
        "[[sanitize]]\ndatabase = {}\ntable = 'items'\ndelete = true",
        "[[sanitize]]\ntable = {}\ndelete = true",
        "[[sanitize]]\ntable = 'items'\ndelete = true\nwhere = {}",
        "[[sanitize]]\ntable = 'items'\nset = { data = {} }",
        "[[sanitize]]\ntable = 'items'\nset = { {} = 'NULL' }",
        "[[sanitize]]\nsql = {}",
    ] {
        scene.try_share(db("pull-db", text), |value, output| {
            let control = value.chars().any(|c| c.is_control() && !"\n\r\t".contains(c));
            assert!(!control || output.code == Some(2), "{text} with {value:?}\n{output}");
        });
    }
    assert!(store::fingerprint(&scene.env.production()) == production);
    assert_tidy(&scene.env);
}

/// An open comment reaches to the end of what is sent, and SQLite does not mind.
#[test]
fn a_rule_cannot_take_the_next_ones_in() {
    let scene = Scene::local();
    let next = "[[sanitize]]\ntable = 'items'\nset = { data = \"'removed'\" }\n";
    let rule = |end: &str| {
        let first = format!("[[sanitize]]\nsql = \"DELETE FROM items WHERE id = 1 {end}\"\n");
        scene.env.db_toml(&format!("{}{first}{next}", scene.base));
        scene.env.xtask(["pull-db"])
    };
    for end in ["/* and so on", "AND data = 'x", "AND [data = 1"] {
        rule(end).fails(2).stderr_has("a quote or a comment is not closed");
    }
    for end in ["/* and so on */", "-- /* it's"] {
        rule(end).ok();
        let left = "SELECT count(*) FROM items WHERE data <> 'removed'";
        assert_eq!(databases::query(&scene.env.data().join("data.db"), left), 0.into());
    }
}

#[test]
fn what_a_fixture_says_is_data_or_is_refused() {
    let scene = Scene::local();
    let (env, root) = (&scene.env, scene.env.repo());
    let fixture = |keys: &'static str| format!("[[fixture]]\n{keys}\n").leak() as &'static str;
    for keys in [
        "path = {}\nfrom = 'data.db'",
        "path = 'x.db'\nfrom = {}",
        "path = 'x.db'\nfrom = 'data.db'\nrows = { {} = 1 }",
        "path = 'x.db'\nfrom = 'data.db'\nrows = { items = {} }",
        "path = 'x.db'\nfrom = 'data.db'\ninputs = [{}]",
    ] {
        let text = fixture(keys);
        scene.try_share(db("refresh-fixtures", text), |value, output| {
            let made = output.code == Some(0);
            let path = if keys.starts_with("path = {}") { value } else { "x.db" };
            assert!(!made || root.join(path).is_file(), "{keys} with {value:?}\n{output}");
            env.git(&["add", "--all"]);
            for command in
                ["refresh-fixtures --staged", "refresh-fixtures --check", "install-hooks"]
            {
                let other = scene.run(db(command, text), value).expect("it was possible before");
                let idle = other.stderr.contains("no file matches its input");
                assert!(!made || idle || other.code == Some(0), "{command}, {value:?}\n{other}");
            }
            if made {
                let attribute = env.git(&["check-attr", "diff", "--", path]).stdout();
                assert!(attribute.ends_with("diff: xtask-sqlite\n"), "{value:?}: {attribute}");
            }
            // What was made for one value is no fixture of the next.
            env.git(&["read-tree", "--empty"]);
            env.git(&["clean", "--quiet", "--force", "-d", "--exclude=xtask"]);
        });
    }
    let migrate = fixture("path = 'x.db'\nfrom = 'data.db'\nmigrate = {}");
    for value in scene.share() {
        scene.run(db("refresh-fixtures", migrate), &format!("{value} {{db}}"));
    }
    assert!(!env.path("owned").exists(), "outside of the repository");
}

/// Directories beside the snapshots, whose names only begin like one.
#[test]
fn a_directory_that_is_called_almost_like_a_snapshot_is_none() {
    let scene = Scene::local();
    let (env, time) = (&scene.env, "backup_2026-01-02T03-04-05");
    for value in values().iter().filter(|value| !value.contains(['/', '\0']) && value.len() < 99) {
        for name in
            [format!("{time}{value}Z"), format!("{time}-678Z{value}"), format!("backup_{value}")]
        {
            if !value.is_empty() {
                fs::create_dir_all(env.data().join(name)).expect("make a directory");
            }
        }
    }
    for name in ["backup_2026-01-02T03-04-05-6\u{661}Z", "backup_+002026-01-02T03-04-05Z"] {
        fs::create_dir(env.data().join(name)).expect("make a directory");
    }
    let listed = env.xtask(["snapshots", "list"]).ok().is_harmless().stdout();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    env.xtask(["pull-db"]).ok().is_harmless();
    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok().is_harmless();
}

/// What a person copied into a snapshot, or into the data directory.
#[test]
fn names_of_files_reach_neither_the_terminal_nor_json_raw() {
    let scene = Scene::local();
    let env = &scene.env;
    let by_hand = env.data().join("backup_2026-01-02T03-04-05Z");
    fs::create_dir(&by_hand).expect("make a directory");
    let name = "\u{9b}2J\u{202e}\x1b]0;owned\x07.db";
    databases::create(&by_hand.join(name), 3, 3);
    let output = env.xtask(["snapshots", "list", "--json"]).ok().is_harmless();
    assert_eq!(output.json()["snapshots"][1]["databases"][0], name);
    env.xtask(["restore-db", "--yes", "--name", "2026-01-02"]).ok().is_harmless();
    assert!(env.data().join(name).is_file());
    for args in
        [&["restore-db", "--yes", "--latest"][..], &["restore-db", "--yes", "--undo", "--json"]]
    {
        env.xtask(args).ok().is_harmless();
    }
    fs::write(env.data().join(name), "no database, though it is longer than a header")
        .expect("write");
    env.xtask(["restore-db", "--yes", "--latest"]).ok().is_harmless();
}

/// A terminal gets colours, and so would get these codes.
#[test]
fn a_value_that_is_refused_does_not_clear_the_screen() {
    let scene = Scene::local();
    for (arg, shown) in [
        ("--app=\x1b[2J\x1b[Happ", "invalid value 'app'"),
        ("--local-dir=\x1b[2Jdir", "\"\\u{1b}[2Jdir\" cannot be the --local-dir"),
    ] {
        let mut xtask = scene.env.xtask_command(["pull-db", arg]);
        xtask.env_remove("NO_COLOR");
        let session = pty::Session::spawn_sized(&xtask, 30, 200);
        assert_eq!(session.wait_exit(), 2);
        let screen = session.wait_for_text(shown);
        assert!(screen.starts_with("error: "), "{screen}");
    }
}
