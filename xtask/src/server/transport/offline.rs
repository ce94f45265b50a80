//! The messages of `fly`, `ssh` and `docker` if the server is unreachable.

use super::Via;
use super::fly::messages::error_of;
use crate::error::{Failure, Reason};
use crate::ui::quoted;

/// Descriptions of an unreachable address on all systems. A refused connection is not one: then a
/// host has answered.
const NO_WAY: [&str; 8] = [
    "network is unreachable",
    "network is down",
    "no route to host",
    "host is down",
    "connection timed out",
    "operation timed out",
    "i/o timeout",
    "tls handshake timeout",
];

const RETRY: &str = "try again with a network";

/// The failure, if `said` means that no connection to `peer` could be made.
pub fn diagnose(via: &Via, peer: &str, said: &str) -> Option<Failure> {
    let words = said.to_lowercase();
    let any = |of: fn(&str) -> bool| words.lines().any(of);
    let (why, hint) = match via {
        Via::Fly => {
            let error = error_of(said)?.to_lowercase();
            let line = error.lines().next()?;
            let waits = ["timed out", "deadline exceeded"];
            let blocked = || waits.iter().chain(&NO_WAY).any(|why| line.contains(why));
            if line.starts_with("error: tunnel unavailable") {
                blocked().then_some((
                    "this network does not let WireGuard through",
                    "fly wireguard websockets enable",
                ))?
            } else if of_go(line)
                || line.contains("can't build tunnel") && line.contains(": no such host")
            {
                ("no network", RETRY)
            } else {
                return None;
            }
        }
        Via::Ssh { .. } if any(of_ssh) => ("no network", RETRY),
        // Some networks accept every connection, and forward none.
        Via::Ssh { .. } if any(is_silent) => ("no sign of it", RETRY),
        Via::Docker(_) | Via::Exec(_) if any(of_ssh) || any(of_go) => ("no network", RETRY),
        _ => return None,
    };
    Some(failure(peer, &format!("{why}{}", quoted(said)), hint))
}

/// The failure if `peer` was silent for `seconds`.
pub fn silent(peer: &str, seconds: u64) -> Failure {
    failure(peer, &format!("no sign of it for {seconds} s"), RETRY)
}

fn failure(peer: &str, why: &str, hint: &str) -> Failure {
    Failure::new(format!("{peer} cannot be reached: {why}")).because(Reason::Offline).hint(format!(
        "{hint}; cargo xtask restore-db --latest restores the newest pull without one"
    ))
}

/// Matches ssh's messages, also within those of `docker` with a daemon behind ssh.
fn of_ssh(line: &str) -> bool {
    line.contains("ssh: could not resolve hostname ")
        || line.contains("ssh: connect to host ") && NO_WAY.iter().any(|why| line.contains(why))
}

fn is_silent(line: &str) -> bool {
    line.starts_with("connection timed out during banner exchange")
}

/// Matches messages of Go's `net` and `net/http`, with which `fly` and `docker` are built. Failures
/// in Fly.io's tunnel are excluded: there is a network, but the machine does not answer.
fn of_go(line: &str) -> bool {
    let dials = ["dial tcp", "dial udp"].iter().any(|dial| line.contains(dial));
    let asks = line.contains("\"https://");
    !line.contains("connecting to ssh server")
        && (dials && line.contains(": lookup ")
            || (dials || asks) && NO_WAY.iter().any(|why| line.contains(why))
            || asks && line.contains("context deadline exceeded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFLINE: [&str; 20] = [
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp: lookup api.fly.io: no such host",
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp: lookup api.fly.io on 127.0.0.53:53: server misbehaving",
        "Error: Post \"https://api.fly.io/graphql\": dial tcp: lookup api.fly.io on [::1]:53: read udp [::1]:56633->[::1]:53: read: connection refused",
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp: lookup api.fly.io: Temporary failure in name resolution",
        "Error: failed to list VMs: Get \"https://api.machines.dev/v1/apps/x/machines\": dial tcp: lookup api.machines.dev on 1.1.1.1:53: dial udp 1.1.1.1:53: connect: network is unreachable",
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp 77.83.143.240:443: connect: network is unreachable",
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp [2a09:8280:1::1]:443: connect: no route to host",
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp 77.83.143.240:443: i/o timeout",
        "Error: get app: Post \"https://api.fly.io/graphql\": net/http: TLS handshake timeout",
        "Error: get app: Post \"https://api.fly.io/graphql\": context deadline exceeded",
        "Error: tunnel unavailable: Error contacting Fly.io API when probing \"personal\": timed out (context deadline exceeded)",
        "Error: tunnel unavailable: failed probing \"personal\": context deadline exceeded",
        "Warning: Metrics token unavailable\n\u{1b}[31mError:\u{1b}[0m can't build tunnel for personal: Post \"https://api.fly.io/graphql\": lookup api.fly.io: no such host",
        "ssh: Could not resolve hostname example.org: Temporary failure in name resolution",
        "ssh: connect to host example.org port 22: Network is unreachable",
        "ssh: connect to host 192.0.2.1 port 22: No route to host",
        "ssh: connect to host 192.0.2.1 port 2222: Operation timed out\r",
        "Connection timed out during banner exchange\r\nConnection to 192.0.2.1 port 22 timed out\r",
        "error during connect: Get \"http://host:2375/v1.47/containers/web/json\": dial tcp: lookup host: no such host",
        "error during connect: Get \"http://docker.example.com/v1.24/exec\": command [ssh -l me -- host docker system dial-stdio] has exited with exit status 255, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr=ssh: connect to host host port 22: Connection timed out",
    ];

    const NOT_OFFLINE: [&str; 16] = [
        "",
        "Error: app x has no started VMs.\nIt may be unhealthy or not have been deployed yet.",
        "Error: get app: Could not find App \"x\"",
        "Error: no access token available. Please login with 'flyctl auth login'",
        "Error: error connecting to SSH server: dial: lookup 1.vm.x.internal: no such host",
        "Error: error connecting to SSH server: dial: connect tcp [fdaa::2]:22: operation timed out",
        "Error: error connecting to SSH server: dial tcp [fdaa::2]:22: i/o timeout",
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp 77.83.143.240:443: connect: connection refused",
        "Error: ssh shell: Process exited with status 1",
        "Error: tunnel unavailable: EOF",
        "Error: tunnel unavailable: dial unix fly-agent.sock: connect: connection was refused",
        "Error: tunnel unavailable: lookup _api.internal: no such host",
        "ssh: connect to host example.org port 22: Connection refused",
        "me@example.org: Permission denied (publickey).",
        "Timeout, server example.org not responding.",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    ];

    #[test]
    fn only_where_no_connection_could_be_made_is_it_offline() {
        let [fly, ssh, docker] =
            ["fly", "ssh:me@host", "docker:x"].map(|via| via.parse::<Via>().unwrap());
        let who = |said: &str| match said {
            said if said.starts_with("ssh: ") || said.starts_with("Connection") => &ssh,
            said if said.starts_with("error during") => &docker,
            _ => &fly,
        };
        for said in OFFLINE {
            let failure = diagnose(who(said), "x", said).unwrap_or_else(|| panic!("{said}"));
            assert!(failure.to_string().starts_with("x cannot be reached: "), "{failure}");
        }
        for said in NOT_OFFLINE {
            for via in [&fly, &ssh, &docker] {
                assert!(diagnose(via, "x", said).is_none(), "{said}");
            }
        }
    }

    #[test]
    fn what_fly_complains_of_besides_does_not_count() {
        let aside = "WARN metrics: dial tcp: lookup flyctl-metrics.fly.dev: no such host\n";
        for end in ["", "Error: get app: Could not find App \"x\"\n", "Connecting to fdaa::2...\n"]
        {
            assert!(diagnose(&Via::Fly, "x", &format!("{aside}{end}")).is_none(), "{end}");
        }
    }

    #[test]
    fn a_network_that_only_blocks_wireguard_is_told_apart() {
        let error = diagnose(&Via::Fly, "x", OFFLINE[10]).unwrap().into();
        assert!(crate::error::hint(&error).unwrap().starts_with("fly wireguard websockets enable"));
    }
}
