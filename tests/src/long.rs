//! Tests that run only a sample of their cases, unless `--long` is given.

/// Whether `cargo dev test --long` runs, so that tests run all cases: every system call, every
/// byte.
pub fn long() -> bool {
    std::env::var_os("XTASK_TEST_LONG").is_some()
}

/// The number of cases: a sample, or all with `--long`.
pub fn depth<T>(sample: T, all: T) -> T {
    if long() { all } else { sample }
}

/// All numbers below `count` with `--long`; else `sample` of them, spread evenly, with the first
/// and the last. A single one is the last.
pub fn spread(count: usize, sample: usize) -> Vec<usize> {
    if long() || count <= sample {
        return (0..count).collect();
    }
    (1..=sample)
        .map(|i| (count - 1) * (i - usize::from(sample > 1)) / (sample - 1).max(1))
        .collect()
}
