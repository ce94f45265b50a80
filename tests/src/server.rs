//! A production machine: a real sshd on the loopback.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::process::{command, kill_by_environment, kill_tree, wait_for};

/// The paths of sshd in distributions: it must be started by its full path.
const SSHD: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];

pub struct Sshd {
    directory: TempDir,
    port: u16,
    child: Child,
}

/// The environment of the sessions of a server.
#[derive(Clone, Default)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// The variables that Fly.io sets on a machine.
    pub fn fly(app: &str, machine: &str, region: &str) -> Environment {
        Environment::default()
            .set("FLY_APP_NAME", app)
            .set("FLY_MACHINE_ID", machine)
            .set("FLY_REGION", region)
    }

    #[must_use]
    pub fn set(mut self, name: &str, value: impl AsRef<Path>) -> Environment {
        self.0.retain(|(present, _)| present != name);
        self.0.push((name.to_owned(), value.as_ref().display().to_string()));
        self
    }

    /// One line, because sshd reads only the first `SetEnv`.
    fn directive(&self) -> String {
        let quoted = self.0.iter().map(|(name, value)| format!(" \"{name}={value}\""));
        format!("SetEnv{}", quoted.collect::<String>())
    }
}

impl Sshd {
    pub fn start(environment: &Environment) -> Sshd {
        make_privilege_separation_directory();
        let directory = tempfile::Builder::new().prefix("sshd-").tempdir().expect("a temp dir");
        for (name, key) in keys() {
            write_private(&directory.path().join(name), key);
        }
        fs::create_dir(directory.path().join("home")).expect("a home");
        // Another process may take the port before sshd does: then sshd exits, and the next port is
        // tried.
        for _ in 0..10 {
            let port = free_port();
            let child = spawn(directory.path(), port, environment);
            if let Some(child) = listening(child, &directory.path().join("log")) {
                return Sshd { directory, port, child };
            }
        }
        let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("sshd does not start:\n{log}");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The listening process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The private key for the server.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("client_key")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The number of connections that started a session.
    pub fn connections(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// The configuration with which a plain `ssh` can connect.
    pub fn ssh_config(&self) -> String {
        let key = format!("IdentityFile={}", self.key().display());
        QUIET_OPTIONS
            .into_iter()
            .chain([key.as_str()])
            .fold(String::new(), |config, option| config + &option.replacen('=', " ", 1) + "\n")
    }

    /// The arguments with which a plain `ssh` can connect.
    pub fn ssh_options(&self) -> Vec<String> {
        let key = self.key().display().to_string();
        ["-F", "/dev/null", "-i", &key, "-p", &self.port.to_string()]
            .into_iter()
            .chain(QUIET_OPTIONS.into_iter().flat_map(|option| ["-o", option]))
            .map(str::to_owned)
            .collect()
    }
}

/// For hosts whose key is new in each test.
pub const QUIET_OPTIONS: [&str; 5] = [
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "IdentitiesOnly=yes",
    "BatchMode=yes",
];

impl Drop for Sshd {
    fn drop(&mut self) {
        kill_tree(self.child.id());
        kill_by_environment(&format!("HOME={}/home", self.directory.path().display()));
        drop(self.child.wait());
    }
}

/// The account that runs the tests: if sshd does not run as root, it can serve no other.
pub fn login_user() -> String {
    static USER: OnceLock<String> = OnceLock::new();
    let ask = || {
        let output = command("id").arg("-un").output().expect("id runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    USER.get_or_init(ask).clone()
}

fn spawn(directory: &Path, port: u16, environment: &Environment) -> Child {
    let config = directory.join("sshd_config");
    fs::write(&config, configuration(directory, port, environment)).expect("write sshd_config");
    let sshd = SSHD.iter().find(|path| Path::new(path).exists()).expect("sshd is installed");
    command(sshd)
        .arg("-D")
        .arg("-f")
        .arg(config)
        .arg("-E")
        .arg(directory.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sshd starts")
}

fn configuration(directory: &Path, port: u16, environment: &Environment) -> String {
    let directory = directory.display();
    // The account's own .bashrc must not print in a session. The default key exchange of OpenSSH
    // costs each connection more CPU time than the pull.
    let set_env = environment.clone().set("HOME", format!("{directory}/home")).directive();
    format!(
        "ListenAddress 127.0.0.1:{port}\n\
         HostKey {directory}/host_key\n\
         AuthorizedKeysFile {directory}/client_key.pub\n\
         PidFile {directory}/pid\n\
         UsePAM no\n\
         PasswordAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         StrictModes no\n\
         UseDNS no\n\
         PrintMotd no\n\
         PrintLastLog no\n\
         MaxStartups 100\n\
         KexAlgorithms curve25519-sha256\n\
         LogLevel VERBOSE\n\
         Subsystem sftp internal-sftp\n\
         {set_env}\n"
    )
}

/// Waits for sshd's log: a connection proves nothing, because another server may have the port.
fn listening(mut child: Child, log: &Path) -> Option<Child> {
    let alive = wait_for("sshd to listen", || {
        if child.try_wait().expect("the child is ours").is_some() {
            return Some(false);
        }
        fs::read_to_string(log).is_ok_and(|log| log.contains("Server listening")).then_some(true)
    });
    alive.then_some(child)
}

fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    probe.local_addr().expect("it is bound").port()
}

/// The keys by file name: made once, and used by all servers of a test process.
fn keys() -> &'static [(String, Vec<u8>)] {
    static KEYS: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temp dir");
        for key in ["host_key", "client_key"] {
            generate_key(&directory.path().join(key));
        }
        let names = ["host_key", "host_key.pub", "client_key", "client_key.pub"];
        let read = |name| fs::read(directory.path().join(name)).expect("ssh-keygen made it");
        names.map(|name| (name.to_owned(), read(name))).into()
    })
}

/// OpenSSH refuses a key that others may read.
fn write_private(path: &Path, bytes: &[u8]) {
    let mut options = fs::File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("create");
    file.write_all(bytes).expect("write");
}

fn generate_key(path: &Path) {
    let status = command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "ssh-keygen fails");
}

/// As root, sshd does not start without this directory, which only a boot script creates.
fn make_privilege_separation_directory() {
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all("/run/sshd").expect("make /run/sshd");
    }
}
