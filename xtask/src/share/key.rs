//! The key of a store, which names and encrypts everything in it. It is in the store itself,
//! encrypted with age for the recipients that are committed.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use age::x25519::Recipient;
use age::{Decryptor, Encryptor, Identity, IdentityFile};
use anyhow::{Context as _, Result, anyhow};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{error::Unspecified, hmac};

use crate::error::Failure;
use crate::fs;
use crate::objects::Remote;

const PATH: &str = "key.age";
/// The maximum size of the encrypted key: thousands of recipients.
const LIMIT: u64 = 1 << 20;
const SIZE: usize = 32;
/// The only nonce: each content has a key of its own.
const NONCE: [u8; 12] = [0; 12];
/// The file with the private key of this user, or the key itself.
const VARIABLES: [&str; 2] = ["XTASK_SHARE_IDENTITY", "AGE_IDENTITY"];
const PRIVATE: &str = "AGE-SECRET-KEY-";

pub struct Key {
    secret: [u8; SIZE],
    names: [u8; SIZE],
    salts: [u8; SIZE],
    contents: [u8; SIZE],
}

impl Key {
    /// The key that is in the store. Without one, a new one if `creates`, else `None`.
    ///
    /// # Errors
    ///
    /// The key cannot be decrypted with the private key of this user, or would lock everybody out of what
    /// was published without one.
    pub fn load(remote: &Remote, recipients: &Path, creates: bool) -> Result<Option<Self>> {
        // The private key is needed later; a user without one should not publish first.
        let identities = identities()?;
        if let Some(sealed) = remote.get(PATH, LIMIT)? {
            return decrypt(&sealed, &identities).map(Some);
        }
        if !creates {
            return Ok(None);
        }
        if !remote.list("index")?.is_empty() {
            let what = "the store has snapshots that were published without encryption";
            return Err(Failure::new(format!("{what}, and {} encrypts", recipients.display()))
                .hint("set another url in [share], and publish there")
                .into());
        }
        let mut secret = [0; SIZE];
        SystemRandom::new().fill(&mut secret).map_err(|_| anyhow!("no random numbers"))?;
        let new = Self::new(secret);
        if remote.create(PATH, new.encrypted(recipients)?)? {
            return Ok(Some(new));
        }
        // Another one published at the same moment.
        let sealed = remote.get(PATH, LIMIT)?.context("the key of the store has gone")?;
        decrypt(&sealed, &identities).map(Some)
    }

    fn new(secret: [u8; SIZE]) -> Self {
        let [names, salts, contents] =
            ["names", "salts", "contents"].map(|purpose| mac(&secret, &[purpose.as_bytes()]));
        Self { secret, names, salts, contents }
    }

    /// Encrypts the key for those who are committed as recipients now.
    ///
    /// # Errors
    ///
    /// A recipient is none, or the store cannot be written.
    pub fn encrypt_again(&self, remote: &Remote, recipients: &Path) -> Result<()> {
        remote.put(PATH, self.encrypted(recipients)?)
    }

    fn encrypted(&self, recipients: &Path) -> Result<Vec<u8>> {
        let recipients = read_recipients(recipients)?;
        let all = recipients.iter().map(|one| one as &dyn age::Recipient);
        let mut sealed = Vec::new();
        let mut writer = Encryptor::with_recipients(all)?.wrap_output(&mut sealed)?;
        writer.write_all(&self.secret)?;
        writer.finish()?;
        Ok(sealed)
    }

    /// The name of an object with this content: without the key it tells nothing of it.
    pub fn name(&self, content: &[u8]) -> String {
        fs::hex(&mac(&self.names, &[content]))
    }

    /// Encrypts what is at `path` of the store. The same there is the same again.
    ///
    /// # Errors
    ///
    /// It is too large.
    pub fn seal(&self, path: &str, mut content: Vec<u8>) -> Result<Vec<u8>> {
        // It depends on all of the content, so that no key encrypts two.
        let salt = mac(&self.salts, &[path.as_bytes(), &[0], &content]);
        let sealed = self.cipher(&salt).and_then(|cipher| {
            let nonce = Nonce::assume_unique_for_key(NONCE);
            cipher.seal_in_place_append_tag(nonce, Aad::from(path), &mut content)
        });
        sealed.map_err(|_| Failure::new(format!("{path} is too large to be encrypted")))?;
        content.extend(salt);
        Ok(content)
    }

    /// Decrypts what is at `path` of the store; `None` if it was not sealed for there.
    pub fn open(&self, path: &str, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let salt = sealed.split_off(sealed.len().checked_sub(SIZE)?);
        let cipher = self.cipher(&salt).ok()?;
        let nonce = Nonce::assume_unique_for_key(NONCE);
        let length = cipher.open_in_place(nonce, Aad::from(path), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }

    fn cipher(&self, salt: &[u8]) -> Result<LessSafeKey, Unspecified> {
        UnboundKey::new(&CHACHA20_POLY1305, &mac(&self.contents, &[salt])).map(LessSafeKey::new)
    }

    /// Tells this key from others.
    pub fn fingerprint(&self) -> String {
        fs::hex(&mac(&self.secret, &[b"fingerprint"]))
    }
}

fn mac(key: &[u8; SIZE], texts: &[&[u8]]) -> [u8; SIZE] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    texts.iter().for_each(|text| context.update(text));
    let mut mac = [0; SIZE];
    mac.copy_from_slice(context.sign().as_ref());
    mac
}

fn decrypt(sealed: &[u8], identities: &[Box<dyn Identity + Send + Sync>]) -> Result<Key> {
    let all = identities.iter().map(|one| &**one as &dyn Identity);
    let mut secret = Vec::new();
    let decrypted = || -> Result<()> {
        Ok(Decryptor::new(sealed)?
            .decrypt(all)?
            .take(LIMIT)
            .read_to_end(&mut secret)
            .map(|_| ())?)
    };
    decrypted().with_context(|| {
        Failure::new("the key of the store cannot be decrypted with your private key")
            .hint("a member of the team adds your public key (age-keygen -y FILE) to xtask/recipients.txt, and publishes")
    })?;
    let secret = secret.try_into().ok().context("the key of the store is malformed")?;
    Ok(Key::new(secret))
}

fn read_recipients(file: &Path) -> Result<Vec<Recipient>> {
    let text = fs_err::read_to_string(file)?;
    let text = text.trim_start_matches('\u{feff}');
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parsed = lines.map(|line| line.parse().map_err(|why: &str| no_recipient(file, line, why)));
    let recipients = parsed.collect::<Result<Vec<_>, _>>()?;
    if recipients.is_empty() {
        return Err(Failure::usage(format!("{} has no public key", file.display()))
            .hint("add yours: age-keygen -y FILE")
            .into());
    }
    Ok(recipients)
}

fn no_recipient(file: &Path, line: &str, why: &str) -> Failure {
    // Whoever reads a log must not find a key in it.
    if is_private(line) {
        return Failure::usage(format!("{} has a private key", file.display()))
            .hint("remove it, and add its public key: age-keygen -y FILE; if it was committed, make another one");
    }
    Failure::usage(format!("{line} in {} is no public key: {why}", file.display()))
        .hint("each line is a key that begins with age1, from age-keygen")
}

fn is_private(text: &str) -> bool {
    text.to_ascii_uppercase().contains(PRIVATE)
}

/// The private keys of this user.
fn identities() -> Result<Vec<Box<dyn Identity + Send + Sync>>> {
    let given = VARIABLES.iter().find_map(|name| {
        let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty())?;
        Some((*name, value))
    });
    // The value of a variable may be all of the file, and is never shown.
    if let Some((name, text)) = given.as_ref().filter(|(_, given)| is_private(given)) {
        return parse(text.as_bytes()).map_err(|_| {
            Failure::usage(format!("{name} has no valid private key of age"))
                .hint("it is a key of age-keygen, or the name of a file with one")
                .into()
        });
    }
    let file = given
        .map(|(_, given)| PathBuf::from(given))
        .or_else(|| Some(std::env::home_dir()?.join(".config/age/keys.txt")));
    let file = file.context("there is no home directory with .config/age/keys.txt")?;
    let unreadable = || {
        Failure::usage(format!("cannot read your private key in {}", file.display())).hint(
            "make one with age-keygen -o ~/.config/age/keys.txt, or name its file in AGE_IDENTITY",
        )
    };
    let text = fs_err::read(&file).with_context(unreadable)?;
    parse(&text).with_context(unreadable)
}

/// Reads a file of `age-keygen`.
fn parse(text: &[u8]) -> Result<Vec<Box<dyn Identity + Send + Sync>>> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    Ok(IdentityFile::from_buffer(lines.as_bytes())?.into_identities()?)
}
