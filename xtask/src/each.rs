//! Work on many things at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::interrupt;

/// The results of `work` on each item, in order, of which `at_once` are worked on at a time. The first
/// error ends it.
///
/// # Errors
///
/// That of `work`, or this process was asked to end.
pub fn each<T: Sync, R: Send>(
    at_once: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let run = || -> Result<()> {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            interrupt::check()?;
            let result = work(item)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once.min(items.len()))
            .map(|_| scope.spawn(|| run().inspect_err(|_| failed.store(true, Ordering::Relaxed))))
            .collect();
        let panicked = |_| Err(anyhow::anyhow!("a thread panicked"));
        let results: Vec<_> =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
        results.into_iter().collect::<Result<()>>()
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
