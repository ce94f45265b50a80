//! A Django project, with `db.sqlite3` where `startproject` puts it, and the rules of
//! `docs/passwords.md`. All pages come from Django's own server.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::types::Value;
use tests::env::TestEnv;
use tests::output::Output;
use tests::process::Running;
use tests::store::left_behind;
use tests::{databases, docs, python, tree};

const VERSIONS: &str = include_str!("../django/requirements.txt");

const SETTINGS: &str = "local-dir = '.'\ninclude = ['*.sqlite3']\n";

/// The user of the production's app.
const UID: u32 = 1000;

/// A developer's project, and a production of the same code, both in one environment.
struct Project {
    env: TestEnv,
    /// The cookies of a user and of a guest of production.
    member: String,
    guest: String,
}

impl Project {
    fn new() -> Project {
        let env = TestEnv::new();
        tree::copy(&sources().join("project"), &env.repo());
        // The lines that a pull proposes.
        env.write("repo/.gitignore", "/*.sqlite3*\n/backup_*/\n/.xtask/\n");
        let mut project = Project { env, member: String::new(), guest: String::new() };
        project.on_production(&["manage.py", "migrate"]);
        let seed = sources().join("seed.py").display().to_string();
        let cookies = project.on_production(&[&seed]).stdout();
        let cookies: Vec<&str> = cookies.lines().collect();
        [project.member, project.guest] =
            cookies.try_into().map(|pair: [&str; 2]| pair.map(str::to_owned)).expect("two cookies");
        let live = project.production();
        assert_eq!(databases::query(&live, "PRAGMA journal_mode"), Value::Text("delete".into()));
        fs::set_permissions(&live, PermissionsExt::from_mode(0o600)).expect("chmod");
        if rustix::process::geteuid().is_root() {
            for path in [&live, &project.env.production()] {
                chown(path, Some(UID), Some(UID)).expect("chown");
            }
        }
        project
    }

    fn production(&self) -> PathBuf {
        self.env.production().join("db.sqlite3")
    }

    fn python(&self, args: &[&str]) -> Command {
        let mut command = self.env.command(python::programs("django", VERSIONS).join("python"));
        command.args(args).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
        command
    }

    #[track_caller]
    fn on_production(&self, args: &[&str]) -> Output {
        Running::start(self.python(args).env("DATABASE", self.production())).wait().ok()
    }

    #[track_caller]
    fn manage(&self, args: &[&str]) -> Output {
        Running::start(&mut self.python(&[&["manage.py"], args].concat())).wait().ok()
    }

    /// Pulls with these rules. Production's directory stays as it is.
    #[track_caller]
    fn pull(&self, rules: &str) -> Output {
        self.env.db_toml(&format!("{SETTINGS}{rules}"));
        let before = self.state();
        let output = self.env.local_pull(&["--yes"]).ok().stderr_lacks("git does not ignore");
        assert_eq!(self.state(), before);
        output
    }

    /// The files of production, and owner, mode and time of the database.
    fn state(&self) -> (Vec<String>, [i64; 4]) {
        let live = fs::metadata(self.production()).expect("it is there");
        let owner = [live.uid().into(), live.mode().into(), live.mtime(), live.mtime_nsec()];
        (databases::files(&self.env.production()), owner)
    }

    /// Starts `runserver`, which keeps the database open from its first page on.
    #[track_caller]
    fn serve(&self) -> Site<'_> {
        let args = ["manage.py", "runserver", "--noreload", "--nothreading", "127.0.0.1:0"];
        let mut running = Running::start(&mut self.python(&args));
        running.wait_for("Django to listen", |running| announced(running).is_some());
        let url = announced(&running).expect("it was there");
        Site { project: self, running, url }
    }
}

struct Site<'a> {
    project: &'a Project,
    running: Running,
    url: String,
}

impl Site<'_> {
    /// The first line of the page after this visit.
    #[track_caller]
    fn visit(&self, words: &[&str]) -> String {
        let browser = sources().join("browser.py").display().to_string();
        let args = [&[browser.as_str(), &self.url], words].concat();
        let page = Running::start(&mut self.project.python(&args)).wait();
        assert_eq!(page.code, Some(0), "{page}\n{}", self.running.stderr_so_far());
        page.stdout().trim_end().to_owned()
    }

    #[track_caller]
    fn login(&self, user: &str, password: &str) -> String {
        self.visit(&["login", user, password])
    }

    #[track_caller]
    fn with_cookie(&self, session: &str) -> String {
        self.visit(&["cookie", session])
    }

    /// The pages of a login with the development password, with that of production, and with both
    /// cookies of production.
    #[track_caller]
    fn pages(&self) -> [String; 4] {
        // The cookies first: a login would add a session.
        let cookies = [&self.project.member, &self.project.guest].map(|id| self.with_cookie(id));
        let [member, guest] = cookies;
        let [development, production] =
            ["development", "production-ada"].map(|password| self.login("ada", password));
        [development, production, member, guest]
    }
}

fn announced(running: &Running) -> Option<String> {
    let stdout = String::from_utf8_lossy(&running.stdout_so_far()).into_owned();
    let (_, rest) = stdout.split_once("Starting development server at ")?;
    Some(rest.split_once('\n')?.0.to_owned())
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("django")
}

/// The rules of the document: for the passwords, and for the sessions.
fn rules() -> [String; 2] {
    let block = docs::settings("passwords.md", "Django\n");
    let rules = block.split("[[sanitize]]").skip(1).map(|rule| format!("[[sanitize]]{rule}"));
    rules.collect::<Vec<_>>().try_into().expect("there are two rules")
}

/// With each rule alone, what the other one is for is still as in production.
#[test]
fn every_user_logs_in_with_the_development_password_and_no_cookie_of_production_is_valid() {
    let project = Project::new();
    let [passwords, sessions] = rules();
    project.pull("");
    let site = project.serve();
    let (ada, guest) = ("ada, no cart, 2 notes", "nobody, no cart, 2 notes");
    let (ada_before, guest_before) = ("ada, a cart, 2 notes", "nobody, a cart, 2 notes");
    assert_eq!(site.pages(), ["refused", ada, ada_before, guest_before], "without a rule");
    for (rules, pages) in [
        (passwords.clone(), [ada, "refused", guest, guest_before]),
        (sessions.clone(), ["refused", ada, guest, guest]),
        (passwords + &sessions, [ada, "refused", guest, guest]),
    ] {
        project.pull(&rules).stderr_has("sees the new data at its next query");
        assert_eq!(site.pages(), pages, "{rules}");
    }
    assert_eq!(site.login("bob", "development"), "bob, no cart, 2 notes");
    project.manage(&["check"]);
    project.manage(&["migrate", "--check"]);
}

#[test]
fn a_running_server_answers_with_the_restored_data() {
    let project = Project::new();
    let rules = rules().concat();
    project.pull(&rules);
    let site = project.serve();
    let login = || site.login("ada", "development");
    assert_eq!(login(), "ada, no cart, 2 notes");
    let note = "INSERT INTO notes_note (author_id, text) VALUES (1, 'a third one')";
    databases::execute(&project.production(), note);
    project.pull(&rules);
    assert_eq!(login(), "ada, no cart, 3 notes");
    databases::execute(&project.env.repo().join("db.sqlite3"), "DELETE FROM notes_note");
    assert_eq!(login(), "ada, no cart, 0 notes");
    for (args, page) in [
        (["--latest", "--yes"], "ada, no cart, 3 notes"),
        (["--undo", "--yes"], "ada, no cart, 0 notes"),
        (["--undo", "--yes"], "ada, no cart, 3 notes"),
    ] {
        let restored = project.env.xtask([&["restore-db"], args.as_slice()].concat()).ok();
        restored.stderr_has("sees the new data at its next query");
        assert_eq!(login(), page, "{args:?}");
    }
    drop(site);
    assert_eq!(left_behind(&project.env.repo()), [""; 0]);
    project.manage(&["check"]);
    project.manage(&["migrate", "--check"]);
}

/// Migrations that production does not have yet are applied to what was pulled, and only to that.
#[test]
fn prepare_brings_a_pull_to_the_schema_of_the_working_tree() {
    let project = Project::new();
    let env = &project.env;
    project.pull("");
    project.manage(&["makemigrations", "notes", "--empty", "--name", "later"]);
    let pending =
        || Running::start(&mut project.python(&["manage.py", "migrate", "--check"])).wait();
    pending().fails(1);
    let python = python::programs("django", VERSIONS).join("python");
    let hooks = format!(
        "[hooks]\nprepare = 'DATABASE={{dir}}/db.sqlite3 {} manage.py migrate --no-input'\n",
        python.display()
    );
    project.pull(&hooks).stderr_has("Applying notes.").stderr_has("_later... OK");
    pending().ok();
    env.xtask(["snapshots", "create", "before"]).ok();
    databases::execute(&env.repo().join("db.sqlite3"), "DELETE FROM notes_note");
    env.xtask(["restore-db", "--yes", "before"]).ok().stderr_lacks("Applying");
    pending().ok();
}

/// What Django's own `migrate` makes of it has nothing to do once more.
#[test]
fn a_fixture_is_one_that_migrate_accepts() {
    let project = Project::new();
    let env = &project.env;
    project.pull("");
    let python = python::programs("django", VERSIONS).join("python");
    let fixture = format!(
        "[[fixture]]\npath = 'tests/fixtures/app.sqlite3'\nfrom = 'db.sqlite3'\nrows = {{ auth_user = 1, '*' = 0 }}\n\
         migrate = {{ run = '{} manage.py migrate', env = {{ DATABASE = '{{db}}' }} }}\ninputs = ['**/migrations/**']\n",
        python.display()
    );
    env.db_toml(&format!("{SETTINGS}audit.level = 'off'\n{fixture}"));
    env.xtask(["refresh-fixtures"]).ok().stderr_has("with all rows of django_migrations, ");
    let path = env.repo().join("tests/fixtures/app.sqlite3");
    let bytes = fs::read(&path).expect("read");
    assert_eq!(databases::count(&path, "auth_user"), 1);
    assert!(databases::count(&path, "django_content_type") > 3);
    fs::remove_file(&path).expect("remove");
    env.xtask(["refresh-fixtures"]).ok();
    assert_eq!(fs::read(&path).expect("read"), bytes);

    let copy = env.path("copy.sqlite3");
    fs::copy(&path, &copy).expect("copy");
    Running::start(project.python(&["manage.py", "migrate"]).env("DATABASE", &copy))
        .wait()
        .ok()
        .stdout_has("No migrations to apply.");
    databases::assert_same(&path, &copy);
}
