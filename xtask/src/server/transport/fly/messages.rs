//! The error messages of `fly`, with hints.

use std::env::var_os;

use anstream::adapter::strip_str;

use crate::error::Failure;
use crate::server::transport::{AGAIN, Ended};
use crate::ui::quoted;

/// An error of flyctl: texts that identify it, in lower case. `{app}` and `{login}` are replaced.
struct Known {
    words: &'static [&'static str],
    message: &'static str,
    hint: &'static str,
}

/// The first match counts: messages that wrap others come before those.
const KNOWN: [Known; 18] = [
    Known {
        words: &["can't build tunnel for"],
        message: "fly cannot reach the organization of {app}",
        hint: "fly orgs list",
    },
    Known {
        words: &[
            "tunnel unavailable",
            "can't establish agent",
            "agent: failed to start",
            "already starting the agent",
        ],
        message: "fly's agent cannot reach the network of {app}",
        hint: "fly agent restart, and run the same command again",
    },
    Known {
        words: &["no containers found", "not present"],
        message: "{app} has no such container",
        hint: "name a container of the machine with --container",
    },
    Known {
        words: &[
            "connecting to ssh server",
            "ssh: handshake failed",
            "ssh: setenv failed",
            "host unavailable at",
        ],
        message: "the machine of {app} is up, but its SSH server does not answer",
        hint: "run the same command again in a moment; fly logs --app {app} shows what the machine does",
    },
    Known {
        words: &[
            "no access token",
            "auth login",
            "must be authenticated",
            "status code: 401",
            "unauthorized",
        ],
        message: "fly is not logged in",
        hint: "{login}",
    },
    Known {
        words: &["not authorized"],
        message: "this account has no access to {app} or its organization",
        hint: "ask its owner for access; fly auth whoami shows which account this is",
    },
    Known {
        words: &["could not find app", "app not found"],
        message: "there is no app {app}, or this account may not see it",
        hint: "fly apps list",
    },
    Known {
        words: &["no started vms"],
        message: "the app {app} has no started machine",
        hint: "cargo xtask pull-db --start",
    },
    Known {
        words: &["not found/started", "has no vms in"],
        message: "the app {app} has no such started machine",
        hint: "fly machine list --app {app}",
    },
    Known {
        words: &["could not start machine", "failed to obtain lease", "lease currently held"],
        message: "the machine cannot be started: a deploy holds it, or there is no room for it",
        hint: "wait for the deploy: fly status --app {app}",
    },
    Known {
        words: &["failed loading app config"],
        message: "fly cannot read fly.toml",
        hint: "fix the line that it names in fly.toml",
    },
    Known {
        words: &["x509:", "invalid character '<'"],
        message: "a proxy, or the login page of this network, answers instead of Fly.io",
        hint: "log in to the network in a browser, or let this machine trust the proxy's certificate",
    },
    Known {
        words: &["status code: 5", "\": eof", "connection reset by peer", "internal server error"],
        message: "Fly.io's API is failing",
        hint: "run the same command again; its status: https://status.flyio.net",
    },
    Known { words: KILLED, message: "the script was killed on the server", hint: OUT_OF_MEMORY },
    Known {
        words: &["process exited with status 127", "process exited with status 126"],
        message: "the machine of {app} cannot run `sh`",
        hint: "fly ssh console --app {app} --command 'sh --version'",
    },
    Known {
        words: &["no such host"],
        message: "cannot resolve a host name of Fly.io",
        hint: AGAIN,
    },
    Known {
        words: &[
            "connection lost",
            "broken pipe",
            "unexpected eof",
            "use of closed network connection",
        ],
        message: "the connection was cut; nothing was changed",
        hint: AGAIN,
    },
    Known {
        words: &["connection refused", "timed out", "i/o timeout"],
        message: "the connection failed",
        hint: "run the same command again; the status of Fly.io: https://status.flyio.net",
    },
];

const KILLED: &[&str] = &["exited with status 137", "signal kill"];
const OUT_OF_MEMORY: &str = "most likely it ran out of memory: fly logs --app {app}; give the machine more, or set \
                             staging-dir in xtask/db.toml to a directory that is not in memory";

/// The text from the last line that starts with `Error:`, without colours: the lines before are
/// warnings and progress.
pub fn error_of(said: &str) -> Option<String> {
    let plain = strip_str(said).to_string();
    let at = plain.rfind("\nError: ").map(|at| at + 1);
    let at = at.or_else(|| plain.starts_with("Error: ").then_some(0))?;
    Some(plain[at..].to_owned())
}

fn known(error: &str) -> Option<&'static Known> {
    let words = error.to_lowercase();
    KNOWN.iter().find(|known| known.words.iter().any(|word| words.contains(word)))
}

fn fill(text: &str, app: &str) -> String {
    let token =
        ["FLY_API_TOKEN", "FLY_ACCESS_TOKEN"].into_iter().find(|name| var_os(name).is_some());
    let login = token.map_or("fly auth login".to_owned(), |name| {
        format!(
            "Fly.io rejects the token in {name}: set a new one, or unset it and run fly auth login"
        )
    });
    text.replace("{app}", app).replace("{login}", &login)
}

pub fn explain(app: &str, ended: &Ended) -> Failure {
    let Some(error) = error_of(&ended.said) else {
        // `fly` exits with success if the connection breaks.
        let how =
            if ended.code == Some(127) { "fly was interrupted" } else { "the connection was cut" };
        return Failure::new(format!(
            "{how} before any database arrived; nothing was changed{}",
            quoted(&ended.said)
        ))
        .hint(AGAIN);
    };
    match known(&error) {
        Some(Known { message, hint, .. }) => {
            Failure::new(fill(message, app) + &quoted(&error)).hint(fill(hint, app))
        }
        None => Failure::new(format!("the connection failed{}", quoted(&error))).hint(format!(
            "try by hand: fly ssh console --app {app} --command 'sqlite3 --version'"
        )),
    }
}

/// The hint if the script was killed, for lack of memory.
pub fn killed(app: &str, said: &str) -> Option<String> {
    says(said, KILLED).then(|| fill(OUT_OF_MEMORY, app))
}

/// Whether the requested machine exists, but is not started.
pub fn is_not_started(said: &str) -> bool {
    says(said, &["no started vms", "not found/started", "has no vms in"])
}

fn says(said: &str, words: &[&str]) -> bool {
    let error = error_of(said).map(|error| error.to_lowercase());
    error.is_some_and(|error| words.iter().any(|word| error.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hint;

    fn explained(said: &str) -> (String, String) {
        let failure = explain("x", &Ended { said: said.to_owned(), code: Some(1) });
        let message = failure.to_string();
        let hint = hint(&failure.into()).unwrap_or_default().to_owned();
        (message.lines().next().unwrap_or_default().to_owned(), hint)
    }

    #[test]
    fn each_failure_of_fly_has_its_own_next_step() {
        let api = "run the same command again; its status: https://status.flyio.net";
        let agent = "fly agent restart, and run the same command again";
        let ssh =
            "run the same command again in a moment; fly logs --app x shows what the machine does";
        let proxy =
            "log in to the network in a browser, or let this machine trust the proxy's certificate";
        for (said, wanted) in [
            ("no access token available. Please login with 'flyctl auth login'", "fly auth login"),
            ("You must be authenticated to view this.", "fly auth login"),
            ("get app: server returned a non-200 status code: 401", "fly auth login"),
            (
                "Not authorized to access this app",
                "ask its owner for access; fly auth whoami shows which account this is",
            ),
            ("get app: Could not find App \"x\"", "fly apps list"),
            ("failed to get app: app not found", "fly apps list"),
            ("get app: server returned a non-200 status code: 503", api),
            ("get app: Post \"https://api.fly.io/graphql\": EOF", api),
            (
                "Get \"https://api.machines.dev\": read tcp 10.0.0.1:1->2.2.2.2:443: read: connection reset by peer",
                api,
            ),
            (
                "Post \"https://api.fly.io/graphql\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
                proxy,
            ),
            ("get app: invalid character '<' looking for beginning of value", proxy),
            ("tunnel unavailable: EOF", agent),
            ("tunnel unavailable: write unix: broken pipe", agent),
            (
                "tunnel unavailable: dial unix fly-agent.sock: connect: connection was refused",
                agent,
            ),
            ("can't establish agent: agent: failed to start", agent),
            ("another process is already starting the agent", agent),
            ("can't build tunnel for acme: no such organization", "fly orgs list"),
            ("error connecting to SSH server: connect tcp [fdaa::2]:22: operation timed out", ssh),
            ("ssh: handshake failed: EOF", ssh),
            ("ssh: setenv failed", ssh),
            (
                "no containers found on machine 1",
                "name a container of the machine with --container",
            ),
            ("container db not present", "name a container of the machine with --container"),
            ("could not start machine 1: no capacity", "wait for the deploy: fly status --app x"),
            (
                "failed to obtain lease: lease currently held",
                "wait for the deploy: fly status --app x",
            ),
            ("--machine=\"1\" not found/started", "fly machine list --app x"),
            ("app x has no started VMs.\nIt may be", "cargo xtask pull-db --start"),
            (
                "failed loading app config from fly.toml: toml: line 3",
                "fix the line that it names in fly.toml",
            ),
        ] {
            assert_eq!(explained(&format!("Error: {said}")).1, wanted, "{said}");
        }
        let (message, hint) =
            explained("Error: ssh shell: Process exited with status 137 from signal KILL");
        assert_eq!(message, "the script was killed on the server");
        assert!(hint.contains("fly logs --app x"), "{hint}");
    }

    #[test]
    fn warnings_before_the_error_and_colours_in_it_do_not_count() {
        let said = "Warning: Metrics token unavailable: x509: unknown authority\n\
                    Error: not this one\n\
                    \u{1b}[31mError:\u{1b}[0m get app: Could not find App \"x\"\n";
        assert_eq!(explained(said).1, "fly apps list");
        assert_eq!(error_of(said).as_deref(), Some("Error: get app: Could not find App \"x\"\n"));
    }

    #[test]
    fn without_an_error_it_is_a_cut_or_an_interrupt() {
        let said = |code| explain("x", &Ended { said: String::new(), code }).to_string();
        assert!(said(Some(0)).starts_with("the connection was cut before any database arrived"));
        assert!(said(Some(127)).starts_with("fly was interrupted before any database arrived"));
    }
}
