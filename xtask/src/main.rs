//! The program; all of it is in the library, for the sake of `fuzz/`.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::main()
}
