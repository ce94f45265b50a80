//! Users who write at full speed, and the writes that the app acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::json;

use crate::http::Client;
use crate::process::wait_for;

/// A thread per organization, until it is stopped or dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<Writer>,
}

struct Writer {
    org: String,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Trouble>,
}

/// Writes that were not acknowledged, but may have been committed.
#[derive(Debug, Default)]
pub struct Trouble {
    pub refused: u64,
    pub first: Option<String>,
}

pub struct Report {
    pub acknowledged: BTreeMap<String, u64>,
    pub trouble: BTreeMap<String, Trouble>,
}

impl Load {
    pub fn start(address: SocketAddr, orgs: &[&str]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = orgs.iter().map(|org| Writer::start(address, org, &stop)).collect();
        Load { stop, writers }
    }

    /// The acknowledged writes of each organization so far.
    pub fn acknowledged(&self) -> BTreeMap<String, u64> {
        let count = |writer: &Writer| writer.acknowledged.load(Ordering::SeqCst);
        self.writers.iter().map(|writer| (writer.org.clone(), count(writer))).collect()
    }

    /// Waits until each organization has this many more writes, so that there is a real load.
    #[track_caller]
    pub fn wait_for_writes(&self, more: u64) {
        let before = self.acknowledged();
        wait_for("the load to write", || {
            let now = self.acknowledged();
            before.iter().all(|(org, count)| now[org] >= count + more).then_some(())
        });
    }

    #[track_caller]
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::SeqCst);
        let mut report = Report { acknowledged: self.acknowledged(), trouble: BTreeMap::new() };
        for writer in self.writers.drain(..) {
            let trouble = writer.thread.join().expect("no writer panics");
            report
                .acknowledged
                .insert(writer.org.clone(), writer.acknowledged.load(Ordering::SeqCst));
            report.trouble.insert(writer.org, trouble);
        }
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Writer {
    fn start(address: SocketAddr, org: &str, stop: &Arc<AtomicBool>) -> Writer {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (path, name) = (format!("/orgs/{org}/pull-requests"), org.to_owned());
        let (count, stop) = (Arc::clone(&acknowledged), Arc::clone(stop));
        let thread = thread::spawn(move || write(address, &path, &name, &count, &stop));
        Writer { org: org.to_owned(), acknowledged, thread }
    }
}

fn write(
    address: SocketAddr,
    path: &str,
    org: &str,
    acknowledged: &AtomicU64,
    stop: &AtomicBool,
) -> Trouble {
    let mut trouble = Trouble::default();
    let mut client = Client::connect(address);
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let body = json!({
            "repository": format!("{org}/repository"),
            "title": format!("load {number}"),
            "body": "written while something else goes on",
            "author": "load",
        });
        let answer = client.as_mut().map(|client| client.post(path, &body));
        match answer {
            Ok(Ok((200..300, _))) => {
                acknowledged.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            Ok(Ok((status, body))) => trouble.add(format!("{status}: {body}")),
            Ok(Err(error)) => trouble.add(error.to_string()),
            Err(error) => trouble.add(error.to_string()),
        }
        client = Client::connect(address);
        thread::yield_now();
    }
    trouble
}

impl Trouble {
    fn add(&mut self, what: String) {
        self.refused += 1;
        self.first.get_or_insert(what);
    }
}
