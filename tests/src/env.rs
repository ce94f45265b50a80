//! A developer's machine and a production, both in a temporary directory.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use tempfile::TempDir;

use crate::app::App;
use crate::output::{self, Output};
use crate::process::{Running, command, find_by_environment, kill_by_environment};
use crate::server::{Environment, Sshd, login_user};
use crate::shells::{self, link};
use crate::world::{Machine, Mount, WORLD_VARIABLE, World};
use crate::{binaries, databases, pty};

/// The app of a `TestEnv`, unless a test changes its world.
pub const APP: &str = "upflow";

pub struct TestEnv {
    root: TempDir,
}

impl TestEnv {
    /// An environment with an empty repository, an empty production and no server.
    pub fn new() -> TestEnv {
        let root = tempfile::Builder::new().prefix("xtask-test-").tempdir().expect("a temp dir");
        let env = TestEnv { root };
        for directory in ["home", "repo/xtask", "production", "tmp", "local-tmp", "bin"] {
            fs::create_dir_all(env.path(directory)).expect("make a directory");
        }
        for name in ["fly", "flyctl"] {
            link(&binaries::fly(), &env.path("bin").join(name));
        }
        env.write("repo/.gitignore", "/data\n/target\n");
        env.write("repo/fly.toml", &fly_toml(&env.production()));
        env.write("repo/xtask/db.toml", "");
        let world = World {
            log: env.path("fly.log"),
            ssh_user: login_user(),
            apps: [(APP.to_owned(), Vec::new())].into(),
            ..World::default()
        };
        world.save(&env.world_path()).expect("write the world");
        env.git(&["init", "--quiet", "--initial-branch=main"]);
        let config = env.path("repo/.git/config");
        let config = fs::File::options().append(true).open(config).expect("git made it");
        let user = b"[user]\n\tname = Test\n\temail = test@example.com\n";
        (&config).write_all(user).expect("write");
        env
    }

    /// An environment with one database in production, and no server.
    pub fn with_database(sql: &str) -> TestEnv {
        let env = TestEnv::new();
        databases::execute(&env.production().join("data.db"), sql);
        env
    }

    /// An environment with one machine, whose server has the programs of this machine.
    pub fn with_server() -> (TestEnv, Sshd) {
        let env = TestEnv::new();
        let sshd = env.start_server(&env.server_environment());
        (env, sshd)
    }

    /// The environment of a session on the machine; add a PATH from `shells`.
    pub fn server_environment(&self) -> Environment {
        let machine = Machine::default();
        let path = std::env::join_paths(shells::path()).expect("it was a PATH");
        Environment::fly(APP, &machine.id, &machine.region)
            .set("TMPDIR", self.path("tmp"))
            .set("PATH", path)
    }

    /// Starts a server and makes it the only machine of the app.
    pub fn start_server(&self, environment: &Environment) -> Sshd {
        let sshd = Sshd::start(environment);
        let mount = Mount {
            volume: "vol_1234567890".to_owned(),
            path: self.production().display().to_string(),
        };
        let machine = Machine { port: sshd.port(), mounts: vec![mount], ..Machine::default() };
        self.edit_world(|world| {
            world.ssh_key = sshd.key();
            world.apps.insert(APP.to_owned(), vec![machine]);
        });
        sshd
    }

    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(relative)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// The server's data directory.
    pub fn production(&self) -> PathBuf {
        self.path("production")
    }

    /// The developer's data directory, which does not exist initially.
    pub fn data(&self) -> PathBuf {
        self.path("repo/data")
    }

    /// Creates the data directory, for a test that starts with a live set.
    pub fn make_data(&self) -> PathBuf {
        fs::create_dir_all(self.data()).expect("make the data directory");
        self.data()
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a file has a parent")).expect("make a directory");
        fs::write(path, text).expect("write a file");
    }

    pub fn db_toml(&self, text: &str) {
        self.write("repo/xtask/db.toml", text);
    }

    pub fn world_path(&self) -> PathBuf {
        self.path("world.json")
    }

    pub fn edit_world(&self, change: impl FnOnce(&mut World)) {
        World::edit(&self.world_path(), change).expect("edit the world");
    }

    /// The arguments of each `fly` so far.
    pub fn fly_invocations(&self) -> Vec<Vec<String>> {
        World::load(&self.world_path()).expect("read the world").invocations()
    }

    /// Lines on the standard error of servers that our script did not write: each is an error of a
    /// program that the script did not handle.
    pub fn unexpected(&self) -> Vec<String> {
        let said = World::load(&self.world_path()).expect("read the world").said();
        let said = fs::read(said).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let ours = |line: &str| line.is_empty() || line.starts_with("prepare-pull: ");
        said.lines().filter(|line| !ours(line)).map(str::to_owned).collect()
    }

    /// Removes a program of the developer, such as `fly` or `flyctl`.
    pub fn uninstall(&self, name: &str) {
        fs::remove_file(self.path("bin").join(name)).expect("it was installed");
    }

    /// Replaces `fly` by a script, which may call the stand-in as `standin-fly`.
    pub fn replace_fly(&self, body: &str) {
        let bin = self.path("bin");
        link(&binaries::fly(), &bin.join("standin-fly"));
        // The name is a link, through which a write would overwrite the program itself.
        self.uninstall("fly");
        shells::script(&bin, "fly", body);
    }

    /// Replaces git by a script.
    pub fn replace_git(&self, body: &str) {
        shells::script(&self.path("bin"), "git", body);
    }

    /// Adds a machine to the app: a copy of the first one, modified by `change`.
    pub fn add_machine(&self, change: impl FnOnce(&mut Machine)) {
        self.edit_world(|world| {
            let machines = world.apps.get_mut(APP).expect("the app exists");
            let mut machine = machines[0].clone();
            change(&mut machine);
            machines.push(machine);
        });
    }

    /// A command in the repository. Its environment has only the variables that Cargo and rustup
    /// need.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = command(program);
        command
            .current_dir(self.repo())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", self.search_path())
            .env("TMPDIR", self.path("local-tmp"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("NO_COLOR", "1")
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .env(WORLD_VARIABLE, self.world_path());
        // Without this variable, a test that runs Cargo makes rustup replace the toolchain of the
        // whole machine.
        command.env("RUSTUP_AUTO_INSTALL", "0");
        if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
            command.env("RUSTUP_TOOLCHAIN", toolchain);
        }
        let home = std::env::home_dir().unwrap_or_default();
        for (variable, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let value = std::env::var_os(variable).map(PathBuf::from);
            command.env(variable, value.unwrap_or_else(|| home.join(default)));
        }
        command
    }

    /// The test's programs, then those of the machine, without a real flyctl.
    fn search_path(&self) -> std::ffi::OsString {
        let harmless = shells::path()
            .into_iter()
            .filter(|path| !["fly", "flyctl"].iter().any(|name| path.join(name).exists()));
        let path = std::iter::once(self.path("bin")).chain(harmless);
        std::env::join_paths(path).expect("no directory has a colon")
    }

    pub fn xtask_command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(binaries::xtask());
        // Set by Cargo when it runs the crate.
        command.args(args).env("CARGO_MANIFEST_DIR", self.path("repo/xtask"));
        command
    }

    /// Gives the databases of production the present time. Without it, the speed of the machine
    /// decides which of them the script finds unchanged.
    pub fn touch_production(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let now = Timestamps { last_access: now, last_modification: now };
        let names = databases::files(&self.production()).into_iter();
        for name in names.filter(|name| name.ends_with(".db")) {
            // Not by opening the file: closing it would drop SQLite's locks of this process.
            let path = self.production().join(name);
            let _ = utimensat(CWD, path, &now, AtFlags::empty());
        }
    }

    /// `pull-db` from the production, without a server.
    pub fn local_pull_command(&self, args: &[&str]) -> Command {
        self.touch_production();
        let via = format!("local:{}", self.production().display());
        self.xtask_command([&["pull-db", "--via", &via], args].concat())
    }

    /// Runs `pull-db` without a server to its end.
    #[track_caller]
    pub fn local_pull(&self, args: &[&str]) -> Output {
        Running::start(&mut self.local_pull_command(args)).wait()
    }

    /// Runs xtask to its end, without a terminal and without input.
    #[track_caller]
    pub fn xtask<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.start_xtask(args).wait()
    }

    /// Like [`Self::xtask`]. Root obeys permissions too, once it may not override them.
    #[track_caller]
    pub fn xtask_obeying_permissions<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Output {
        let mut xtask = self.xtask_command(args);
        if rustix::process::geteuid().is_root() {
            let mut obedient = self.command("setpriv");
            obedient.args(["--bounding-set", "-dac_override,-dac_read_search"]);
            obedient.arg(xtask.get_program()).args(xtask.get_args());
            xtask = obedient;
        }
        Running::start(&mut xtask).wait()
    }

    /// Starts xtask, to be interrupted or killed.
    #[track_caller]
    pub fn start_xtask<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Running {
        Running::start(&mut self.xtask_command(args))
    }

    /// Starts xtask on a terminal.
    #[track_caller]
    pub fn xtask_on_pty<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> pty::Session {
        pty::Session::spawn(&self.xtask_command(args))
    }

    /// The processes on the developer's machine, with the names of their programs.
    pub fn processes(&self) -> Vec<(u32, String)> {
        find_by_environment(&self.mark())
    }

    /// A variable that only processes of this test have in their environment.
    fn mark(&self) -> String {
        format!("{WORLD_VARIABLE}={}", self.world_path().display())
    }

    #[track_caller]
    pub fn fly(&self, args: &[&str]) -> Output {
        Running::start(self.command("fly").args(args)).wait()
    }

    #[track_caller]
    pub fn app<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        Running::start(self.command(binaries::app()).args(args)).wait()
    }

    #[track_caller]
    pub fn serve(&self, data: &Path) -> App {
        App::serve_with(self.command(binaries::app()).arg("serve").arg("--data-dir").arg(data))
    }

    #[track_caller]
    pub fn git(&self, args: &[&str]) -> Output {
        Running::start(self.command("git").args(args)).wait().ok()
    }

    /// Replaces the temporary directory, and everything that changes from run to run, by names.
    pub fn normalize(&self, text: &str) -> String {
        output::normalize(text, &[(self.root.path().display().to_string(), "<ROOT>")])
    }
}

impl Drop for TestEnv {
    /// Kills processes that a failed test has left in other process groups.
    fn drop(&mut self) {
        kill_by_environment(&self.mark());
    }
}

impl Default for TestEnv {
    fn default() -> TestEnv {
        TestEnv::new()
    }
}

fn fly_toml(production: &Path) -> String {
    format!(
        "app = \"{APP}\"\nprimary_region = \"nrt\"\n\n[[mounts]]\nsource = \"data\"\n\
         destination = \"{}\"\n",
        production.display()
    )
}
