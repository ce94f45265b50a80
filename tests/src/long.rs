//! Tests that run a bounded part of what they can do, unless there is time.

/// Whether `cargo xtask test --long` runs, and a test does all of it: every
/// system call, every byte.
pub fn long() -> bool {
    std::env::var_os("XTASK_TEST_LONG").is_some()
}
