//! `cargo xtask doctor`, and the lines that it prints.

use std::path::PathBuf;

use crate::databases;
use crate::env::TestEnv;
use crate::output::Output;
use crate::server::Sshd;

#[track_caller]
pub fn doctor(env: &TestEnv, args: &[&str]) -> Output {
    env.xtask([&["doctor"], args].concat()).is_harmless()
}

/// From the production directory itself, without a server.
#[track_caller]
pub fn local(env: &TestEnv, args: &[&str]) -> Output {
    let via = format!("local:{}", env.production().display());
    doctor(env, &[&["--via", &via], args].concat())
}

/// The line of a check, by a part of it.
#[track_caller]
pub fn line(output: &Output, part: &str) -> String {
    let lines = output.stdout();
    let line = lines.lines().find(|line| line.contains(part));
    line.unwrap_or_else(|| panic!("no line with {part:?}\n{output}")).to_owned()
}

/// A machine with the programs in `bin`.
pub fn with_programs(bin: impl FnOnce(&TestEnv) -> PathBuf) -> (TestEnv, Sshd) {
    let env = TestEnv::new();
    let bin = bin(&env);
    let sshd = env.start_server(&env.server_environment().set("PATH", bin));
    databases::create(&env.production().join("data.db"), 400, 1);
    (env, sshd)
}
