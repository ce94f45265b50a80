//! Tests that run a bounded part of what they can do, unless there is time.

/// Whether `cargo dev test --long` runs, and a test does all of it: every
/// system call, every byte.
pub fn long() -> bool {
    std::env::var_os("XTASK_TEST_LONG").is_some()
}

/// How much of something a test does: a sample of it, or all where there is time.
pub fn depth<T>(sample: T, all: T) -> T {
    if long() { all } else { sample }
}

/// All numbers below `count` where there is time; else so many, spread over them, the
/// first and the last among them. A single one is the last.
pub fn spread(count: usize, sample: usize) -> Vec<usize> {
    if long() || count <= sample {
        return (0..count).collect();
    }
    (1..=sample)
        .map(|i| (count - 1) * (i - usize::from(sample > 1)) / (sample - 1).max(1))
        .collect()
}
