//! The three ways to take the tool into another repository, as README has them, with the real
//! Cargo: as a dependency, beside the commands of another xtask, and as a copy.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use tests::databases;
use tests::env::TestEnv;
use tests::long;
use tests::output::Output;
use tests::process::{Running, command};
use tests::sets::{assert_same, change, content};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root")
}

/// The files that git knows below these paths.
fn tracked(paths: &[&str]) -> Vec<String> {
    let mut git = command("git");
    git.current_dir(workspace()).args(["ls-files", "-z"]).args(paths);
    let listing = git.output().expect("git runs").stdout;
    let listing = String::from_utf8(listing).expect("tracked paths are UTF-8");
    let files: Vec<String> = listing.split_terminator('\0').map(str::to_owned).collect();
    assert!(!files.is_empty(), "no tracked files: is this a git repository?");
    files
}

/// With the time of the original, so that Cargo sees what it has built before.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file has a parent")).expect("make a directory");
    if let Ok(target) = from.read_link() {
        return std::os::unix::fs::symlink(target, to).expect("make a link");
    }
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    let time = from.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    let copy = File::options().write(true).open(to).expect("open the copy");
    copy.set_modified(time).expect("set the time");
}

fn write(root: &Path, file: &str, content: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().expect("a file has a parent")).expect("make a directory");
    fs::write(path, content).expect("write");
}

/// A directory that is not there, always the same one for this workspace.
fn place(name: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    hasher.write(workspace().as_os_str().as_bytes());
    let place = std::env::temp_dir().join(format!("xtask-{name}-{:016x}", hasher.finish()));
    drop(fs::remove_dir_all(&place));
    place
}

/// A repository that takes the tool, and a production for it.
struct Adopter {
    env: TestEnv,
    root: PathBuf,
    /// Where it is built: what it depends on was built there for this workspace, in the same
    /// versions, with the same features and settings.
    build: PathBuf,
    target: PathBuf,
    /// Nobody else uses `root` and `target`.
    _lock: File,
}

impl Adopter {
    /// Always at the same place, because Cargo takes a package at another one for another
    /// package; and outside of this workspace, which would claim it.
    fn new(name: &str) -> Self {
        let executable = std::env::current_exe().expect("this process has a program");
        let build = executable.ancestors().nth(3).expect("it is in target/<profile>/deps");
        let target = build.join("adoption").join(name);
        fs::create_dir_all(&target).expect("make a directory");
        let lock = File::create(target.join("lock")).expect("create a lock");
        lock.lock().expect("no other run of this test is going on");
        let root = place(name);
        fs::create_dir(&root).expect("make a directory");
        let env = TestEnv::new();
        databases::create(&env.production().join("data.db"), 30, 1);
        databases::create(&env.production().join("tenant_iris.db"), 300, 2);
        Self { env, root, build: build.to_owned(), target, _lock: lock }
    }

    fn write(&self, file: &str, content: &str) {
        write(&self.root, file, content);
    }

    /// The compiler that belongs to this Cargo, without rustup in between: the test must neither
    /// choose nor install a toolchain.
    fn prepare(&self, mut program: Command) -> Command {
        let toolchain = Path::new(env!("CARGO")).parent().expect("Cargo is in a directory");
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(toolchain.to_owned()).chain(std::env::split_paths(&inherited));
        program.current_dir(&self.root).env("PATH", std::env::join_paths(path).expect("no colon"));
        program.env("CARGO_TARGET_DIR", &self.target).env("CARGO_BUILD_BUILD_DIR", &self.build);
        // Of the tool alone: that takes half the time, and is nothing that is tested here.
        program.env("CARGO_PROFILE_XTASK_OPT_LEVEL", "0");
        program
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut cargo = self.prepare(self.env.command(env!("CARGO")));
        cargo.args(args);
        cargo
    }

    /// Compiling has no deadline.
    fn build(&self, alias: &str) {
        let built = self.command(&[alias, "--version"]).output().expect("Cargo runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }

    #[track_caller]
    fn cargo(&self, args: &[&str]) -> Output {
        Running::start(&mut self.command(args)).wait().ok()
    }

    #[track_caller]
    fn git(&self, args: &[&str]) -> Output {
        Running::start(self.prepare(self.env.command("git")).args(args)).wait().ok()
    }

    fn via(&self) -> String {
        format!("local:{}", self.env.production().display())
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.join("data").join(name)
    }

    /// Pulls, spoils a database that a program has open, and restores.
    fn round_trip(&self, alias: &str) {
        self.cargo(&[alias, "pull-db", "--via", &self.via()]).stderr_has("Pulled 2 databases");
        let pulled = content(&self.env.production());
        assert_same(&content(&self.root.join("data")), &pulled);
        change(&self.data("data.db"));
        let app = Connection::open(self.data("data.db")).expect("open");
        app.execute_batch("SELECT * FROM items").expect("read");
        // This takes what the alias builds into SQLite.
        self.cargo(&[alias, "restore-db", "--latest", "--yes"])
            .stderr_has(": sees the new data at its next query")
            .stderr_has(&format!("hint: cargo {alias} restore-db --undo brings back"));
        drop(app);
        assert_same(&content(&self.root.join("data")), &pulled);
    }
}

impl Drop for Adopter {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
    }
}

/// A repository that has what this one has now.
fn release() -> String {
    let root = place("release");
    for file in tracked(&["xtask", "ops-remote"]) {
        copy(&workspace().join(&file), &root.join(&file));
    }
    let git = |args: &[&str]| {
        let mut git = command("git");
        git.arg("-C").arg(&root).args(["-c", "user.name=x", "-c", "user.email=x@x"]).args(args);
        // The same content is the same commit, which Cargo then does not build again.
        git.env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z");
        git.env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z");
        assert!(git.status().is_ok_and(|status| status.success()), "git {args:?}");
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=release"]);
    format!("file://{}", root.display())
}

/// The versions that this workspace is tested with.
fn copy_versions(to: &Path) {
    copy(&workspace().join("Cargo.lock"), to);
}

/// As README has it, from where the release is here.
fn with_release(manifest: &str, release: &str) -> String {
    assert!(manifest.contains("https://git.example/xtask-db"));
    manifest.replace("https://git.example/xtask-db", release)
}

const APP: &str = "[workspace]\nmembers = ['app']\nresolver = '3'\n";
/// Another crate that links SQLite, of which a workspace may have one.
const OTHER_SQLITE: &str =
    "[package]\nname = 'other-sqlite'\nedition = '2024'\nlinks = 'sqlite3'\n";

/// Both in one test, because both need the release, which is compiled once.
#[test]
fn as_a_dependency_alone_and_beside_other_commands() {
    let release = release();
    alone(&release);
    beside_others(&release);
}

/// Beside an app that has another version of SQLite, and is built for the web.
fn alone(release: &str) {
    let repository = Adopter::new("dependency");
    for file in tracked(&["docs/adopt"]) {
        let to = file.strip_prefix("docs/adopt/").expect("it is in there");
        copy(&workspace().join(&file), &repository.root.join(to));
    }
    let file = |name: &str| fs::read_to_string(repository.root.join(name)).expect("read");
    let manifest = file("xtask/Cargo.toml");
    repository.write("xtask/Cargo.toml", &with_release(&manifest, release));
    copy_versions(&repository.root.join("xtask/Cargo.lock"));
    repository.write("Cargo.toml", APP);
    repository.write(
        "app/Cargo.toml",
        "[package]\nname = 'app'\nedition = '2024'\n[dependencies]\nother-sqlite = { path = '../other-sqlite' }\n",
    );
    repository.write("app/src/lib.rs", "");
    repository.write("other-sqlite/Cargo.toml", OTHER_SQLITE);
    repository.write("other-sqlite/build.rs", "fn main() {}");
    repository.write("other-sqlite/src/lib.rs", "");
    let alias = file(".cargo/config.toml");
    let for_web = "[build]\ntarget = 'wasm32-unknown-unknown'\n";
    if long::long() {
        repository.write(".cargo/config.toml", &format!("{for_web}{alias}"));
    } else {
        // What it depends on was not built with a target.
        let alias = alias.replace("\"--target\", \"host-tuple\",", "");
        repository.write(".cargo/config.toml", &alias);
    }
    repository.write(".gitignore", "/data\n/xtask/target\nCargo.lock\n");
    repository.git(&["init", "--quiet"]);
    repository.git(&["add", "--all"]);
    repository.build("xtask");
    repository.cargo(&["xtask", "init", "--yes", "--via", &repository.via()]);
    assert!(file("xtask/db.toml").contains("include = [\"*.db\"]"));
    repository.round_trip("xtask");
    repository.git(&["diff", "--exit-code"]);
    repository.command(&["metadata", "--offline", "--format-version", "1"]);
}

const DEV: &str = r#"
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "dev", version)]
struct Cli {
    #[command(flatten)]
    global: xtask_db::GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Build what is shipped
    Dist,
    #[command(flatten)]
    Db(xtask_db::Command),
}

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    match command {
        Command::Dist => {
            println!("built");
            ExitCode::SUCCESS
        }
        Command::Db(command) => command.run(global),
    }
}
"#;

/// In another directory, with another alias; settings, hook and diff driver find themselves.
fn beside_others(release: &str) {
    let repository = Adopter::new("beside");
    let manifest = fs::read_to_string(workspace().join("docs/adopt/xtask/Cargo.toml"));
    let manifest = with_release(&manifest.expect("read"), release)
        .replace("name = \"xtask\"", "name = \"dev\"")
        .replace(
            "[dependencies]",
            "[dependencies]\nclap = { version = \"4.6\", features = [\"derive\"] }",
        );
    repository.write("tools/dev/Cargo.toml", &manifest);
    repository.write("tools/dev/src/main.rs", DEV);
    copy_versions(&repository.root.join("tools/dev/Cargo.lock"));
    repository.write(
        ".cargo/config.toml",
        "[alias]\ntool = [\"run\", \"--quiet\", \"--profile\", \"xtask\", \"--manifest-path\", \"tools/dev/Cargo.toml\",
         \"--config\", \"env.LIBSQLITE3_FLAGS='-DSQLITE_ENABLE_DBPAGE_VTAB'\", \"--\"]\n",
    );
    repository.write(
        "tools/dev/db.toml",
        "[[fixture]]\npath = \"tests/data.db\"\nfrom = \"data.db\"\nrows = { items = 3 }\n",
    );
    repository.write(".gitignore", "/data\nCargo.lock\n");
    repository.build("tool");
    assert_eq!(repository.cargo(&["tool", "dist"]).stdout(), "built\n");
    repository.round_trip("tool");

    repository.git(&["init", "--quiet"]);
    repository.cargo(&["tool", "install-hooks"]).stderr_has("Installed the pre-commit hook");
    repository.git(&["add", "--all"]);
    let commit = ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "--message=first"];
    repository.git(&commit).stderr_has("Refreshed tests/data.db");
    assert_eq!(databases::count(&repository.root.join("tests/data.db"), "items"), 3);
    databases::execute(&repository.root.join("tests/data.db"), "DELETE FROM items");
    let diff = repository.git(&["diff"]).stdout();
    assert!(diff.contains("\n-items: id=1, "), "as text: {diff}");
}

/// In a repository that has nothing to do with Rust: what was copied there is all that it needs.
#[test]
fn as_a_copy_where_there_is_no_other_rust() {
    let repository = Adopter::new("copy");
    for file in tracked(&["xtask", "ops-remote", ".cargo/config.toml"]) {
        copy(&workspace().join(&file), &repository.root.join(&file));
    }
    copy_versions(&repository.root.join("xtask/Cargo.lock"));
    repository.write("package.json", "{ \"name\": \"elsewhere\" }\n");
    repository.write(".gitignore", "/data\n/xtask/target\n");
    repository.write("xtask/db.toml", "local-dir = \"data\"\nexclude = [\"no*.db\"]\n");
    databases::create(&repository.env.production().join("no.db"), 3, 3);
    fs::create_dir(repository.root.join("data")).expect("make a directory");
    databases::create(&repository.data("own.db"), 5, 5);
    repository.build("xtask");
    repository.git(&["init", "--quiet"]);
    repository.git(&["add", "--all"]);
    let pulled = repository.cargo(&["xtask", "pull-db", "--via", &repository.via()]);
    pulled.stderr_has("Pulled 2 databases").stderr_lacks("warning");
    fs::remove_file(repository.env.production().join("no.db")).expect("remove");
    // Whose own it was, it stays.
    fs::remove_file(repository.data("own.db")).expect("it is there");
    repository.round_trip("xtask");
    // Nothing was written beside: git sees the files that were copied, unchanged.
    let status = repository.git(&["status", "--porcelain"]).stdout();
    let other = |line: &&str| !line.starts_with("A  ") && *line != "AM xtask/Cargo.lock";
    assert_eq!(status.lines().find(other), None);
}

/// What `cargo vendor` and a registry take of it has the server's scripts.
#[test]
fn a_package_of_it_is_whole() {
    let mut cargo = command(env!("CARGO"));
    cargo.current_dir(workspace().join("xtask"));
    let output = cargo.args(["package", "--list", "--allow-dirty", "--offline"]).output();
    let listing = String::from_utf8(output.expect("Cargo runs").stdout).expect("paths");
    for script in tracked(&["ops-remote/*.sh"]) {
        assert!(listing.lines().any(|line| line == script), "{script} is missing:\n{listing}");
    }
}
