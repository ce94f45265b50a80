//! A container with the production databases, run by runc, with which Docker runs its own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use serde_json::{Value, json};

use crate::env::TestEnv;
use crate::process::{Running, command, wait_for};
use crate::shells;

/// The container's name for `docker`.
pub const NAME: &str = "web";
/// Where it has the databases.
pub const DATA: &str = "/data";
/// A user of the container who is not root.
pub const APP: u32 = 4711;

/// Another one, who may become the app's with sudo once [`Container::allow_sudo`] says so.
pub const OTHER: u32 = 4712;

pub struct Container<'e> {
    env: &'e TestEnv,
    id: String,
}

impl<'e> Container<'e> {
    /// Starts it, and adds a `docker` to the developer's programs that knows `docker exec`. `None`
    /// for others than root, who cannot, and below another root: runc would enter that one.
    #[track_caller]
    pub fn start(env: &'e TestEnv) -> Option<Container<'e>> {
        let inode = |path: &str| fs::metadata(path).ok().map(|root| (root.dev(), root.ino()));
        if !rustix::process::geteuid().is_root() || inode("/") != inode("/proc/1/root") {
            return None;
        }
        let id = env.path(".").canonicalize().expect("it is there");
        let id = id.file_name().expect("it has a name").to_string_lossy().into_owned();
        let container = Container { env, id };
        make_root(env);
        let bundle = env.path("container");
        Running::start(container.runc(&["spec"]).current_dir(&bundle)).wait().ok();
        let path = bundle.join("config.json");
        let spec = serde_json::from_slice(&fs::read(&path).expect("runc made it")).expect("JSON");
        fs::write(&path, fit(spec, env).to_string()).expect("write");
        // Whoever runs a container in the background leaves it its output.
        let log = fs::File::create(env.path("container/log")).expect("create");
        let mut run = container.runc(&["run", "--detach", &container.id]);
        let run = run.current_dir(&bundle).stdin(std::process::Stdio::null());
        let status = run.stdout(log.try_clone().expect("a file")).stderr(log).status();
        let log = fs::read_to_string(env.path("container/log")).unwrap_or_default();
        assert!(status.expect("runc runs").success(), "{log}");
        let state = env.path("container/state");
        shells::script(
            &env.path("bin"),
            "docker",
            &format!(
                "[ \"$1 $2\" = 'exec --interactive' ] || exit 64
                 [ \"$3\" = {NAME} ] || {{ echo \"Error response from daemon: No such container: $3\" >&2; exit 1; }}
                 shift 3; exec runc --root '{}' exec '{}' \"$@\"",
                state.display(),
                container.id
            ),
        );
        Some(container)
    }

    fn runc(&self, args: &[&str]) -> std::process::Command {
        let mut runc = command("runc");
        runc.arg("--root").arg(self.env.path("container/state")).args(args);
        runc
    }

    /// The words of a command that runs another one in it, as a user.
    pub fn exec(&self, user: u32) -> String {
        let state = self.env.path("container/state");
        format!("runc --root {} exec --user {user}:{user} {}", state.display(), self.id)
    }

    /// Lets [`OTHER`] run a shell as the app's user.
    pub fn allow_sudo(&self) {
        let file = self.env.path("container/rootfs/etc/sudoers");
        fs::write(&file, "other ALL=(app) NOPASSWD: /bin/sh\n").expect("write");
    }

    /// Waits until nothing that the script made is left in it, and no process but its own.
    #[track_caller]
    pub fn assert_tidy(&self) {
        let root = self.env.path("container/rootfs");
        wait_for("the container to be tidy", || {
            let temporary =
                ["tmp", "var/tmp"].map(|dir| root.join(dir).read_dir().map(Iterator::count));
            let listed =
                self.runc(&["ps", "--format", "json", &self.id]).output().expect("runc runs");
            let processes: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
            let alone = processes.as_array().is_some_and(|pids| pids.len() == 1);
            (alone && temporary.iter().all(|count| matches!(count, Ok(0)))).then_some(())
        });
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        drop(self.runc(&["delete", "--force", &self.id]).output());
    }
}

/// The programs are those of this machine.
fn make_root(env: &TestEnv) {
    let root = env.path("container/rootfs");
    for dir in ["usr", "proc", "dev", "sys", "etc", "tmp", "var/tmp", "data"] {
        fs::create_dir_all(root.join(dir)).expect("make a directory");
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link)).expect("link");
    }
    let (app, other) = (APP, OTHER);
    let users = format!("app:x:{app}:{app}::/:/bin/sh\nother:x:{other}:{other}::/:/bin/sh\n");
    for (file, text) in [
        ("passwd", format!("root:x:0:0::/:/bin/sh\n{users}")),
        ("group", format!("root:x:0:\napp:x:{app}:\nother:x:{other}:\n")),
        ("shadow", "root:*:1::::::\napp:*:1::::::\nother:*:1::::::\n".to_owned()),
        ("pam.d/sudo", "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n".to_owned()),
        ("sudoers", String::new()),
    ] {
        fs::create_dir_all(root.join("etc/pam.d")).expect("make a directory");
        fs::write(root.join("etc").join(file), text).expect("write");
    }
    for dir in ["tmp", "var/tmp"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        fs::set_permissions(root.join(dir), mode).expect("set the mode");
    }
}

/// Makes a container of the specification that `runc spec` writes: it sleeps, and its network,
/// control groups and limits are those of this machine.
fn fit(mut spec: Value, env: &TestEnv) -> Value {
    spec["process"]["args"] = json!(["sleep", "100000"]);
    spec["process"]["terminal"] = json!(false);
    spec["process"]["noNewPrivileges"] = json!(false);
    spec["process"]["rlimits"] = json!([]);
    // What Docker lets a container do, and runc by itself does not.
    let may = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"];
    let may: Vec<_> = may.iter().map(|name| format!("CAP_{name}")).collect();
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(may);
    }
    spec["root"] = json!({ "path": "rootfs", "readonly": false });
    let bind = |source: &str, to: &str, mode: &str| json!({ "type": "bind", "source": source, "destination": to, "options": ["rbind", mode] });
    let production = env.production().display().to_string();
    let mounts = spec["mounts"].as_array_mut().expect("runc lists mounts");
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    mounts.extend([bind("/usr", "/usr", "ro"), bind(&production, DATA, "rw")]);
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("runc lists namespaces");
    namespaces.retain(|one| one["type"] != "network" && one["type"] != "cgroup");
    spec
}
