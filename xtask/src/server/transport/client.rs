//! The program on this machine that connects to the server.

use anyhow::Result;
use xshell::{Shell, cmd};

use super::{Via, fly};
use crate::error::Failure;
use crate::interrupt;
use crate::server::programs::find;

pub struct Client {
    pub name: String,
    pub version: Option<String>,
    /// Who is logged in.
    pub account: Option<String>,
    /// Whether its version has a known fault.
    pub is_old: bool,
}

/// Before this version, `fly` could lose the last bytes of a stream.
const FLY_IS_WHOLE: [u32; 3] = [0, 4, 80];

/// The program that `via` needs, if it needs any.
///
/// # Errors
///
/// It is not installed.
pub fn of(sh: &Shell, via: &Via) -> Result<Option<Client>> {
    let (name, version) = match via {
        Via::Local(_) => return Ok(None),
        Via::Fly => {
            let (version, account) = fly::version(sh)?;
            let is_old = version.as_deref().and_then(numbers).is_some_and(|it| it < FLY_IS_WHOLE);
            return Ok(Some(Client {
                name: fly::program(sh)?.to_owned(),
                version,
                account,
                is_old,
            }));
        }
        Via::Ssh { .. } => ("ssh", Some(cmd!(sh, "ssh -V"))),
        Via::Docker(_) => ("docker", Some(cmd!(sh, "docker --version"))),
        Via::Exec(words) => (words.first().map_or("", String::as_str), None),
        Via::Litestream(_) => ("litestream", Some(cmd!(sh, "litestream version"))),
    };
    let is_path = name.contains('/') && sh.current_dir().join(name).is_file();
    if !is_path && find(sh, name).is_none() {
        return Err(Failure::new(format!("`{name}` is not on the PATH"))
            .hint(format!("install {name}"))
            .into());
    }
    let output = version.and_then(|command| interrupt::output(command).ok());
    let said = output.map(|output| [output.stdout, output.stderr].concat());
    let said = said.map(|said| String::from_utf8_lossy(&said).into_owned());
    let version = said.as_deref().and_then(version_in).map(str::to_owned);
    Ok(Some(Client { name: name.to_owned(), version, account: None, is_old: false }))
}

/// As in `OpenSSH_9.2p1 Debian-2, …` and in `Docker version 24.0.5, build …`.
fn version_in(said: &str) -> Option<&str> {
    let words = said.lines().next()?.split([' ', ',', '_']);
    words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    Some([parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_and_compared() {
        assert_eq!(version_in("OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.15"), Some("9.2p1"));
        assert_eq!(version_in("Docker version 24.0.5, build ced0996\n"), Some("24.0.5"));
        assert_eq!(version_in("podman"), None);
        assert!(numbers("0.4.79").unwrap() < FLY_IS_WHOLE);
        assert!(numbers("0.4.80-pre-1").unwrap() >= FLY_IS_WHOLE);
        assert!(numbers("2026.1.5").unwrap() >= FLY_IS_WHOLE);
        assert_eq!(numbers("dev"), None);
    }
}
