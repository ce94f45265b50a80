//! xtask with the store of a team.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask_db::main()
}
