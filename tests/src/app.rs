//! The service whose databases are pulled and restored, as a running process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::http::Client;
use crate::load::Load;
use crate::process::{Running, command};

const ANNOUNCEMENT: &str = "listening on http://";

pub struct App {
    running: Running,
    address: SocketAddr,
}

impl App {
    /// Serves a data directory on a free port until it is dropped.
    #[track_caller]
    pub fn serve(program: &Path, data: &Path) -> App {
        App::serve_with(command(program).arg("serve").arg("--data-dir").arg(data))
    }

    #[track_caller]
    pub fn serve_with(command: &mut Command) -> App {
        let mut running = Running::start(command.args(["--listen", "127.0.0.1:0"]));
        running.wait_for("the app to listen", |running| announced(running).is_some());
        let address = announced(&running).expect("it was there");
        App { running, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("the app accepts a connection")
    }

    #[track_caller]
    pub fn load(&self, orgs: &[&str]) -> Load {
        Load::start(self.address, orgs)
    }

    /// Like a crash of production: no shutdown, no checkpoint.
    pub fn kill(mut self) {
        self.running.kill();
    }
}

fn announced(running: &Running) -> Option<SocketAddr> {
    let stdout = String::from_utf8_lossy(&running.stdout_so_far()).into_owned();
    let (_, rest) = stdout.split_once(ANNOUNCEMENT)?;
    rest.split_once('\n')?.0.trim().parse().ok()
}
