//! A relay on the loopback that simulates a slow network, with a delay and a bit rate, but without
//! loss, jitter and the slow start of TCP.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Bytes that are read at a time: so few that it does not matter that they arrive at once.
const CHUNK: usize = 8 << 10;

/// The maximum length of the send queue, in time. When it is full, the relay stops reading, and the
/// sender waits. It compensates for late wake-ups of the relay.
const QUEUE: Duration = Duration::from_millis(20);

/// The properties of a link, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The round-trip time.
    pub rtt: Duration,
    pub bits_per_second: u64,
}

impl Shape {
    /// As fast as possible.
    pub const FAST: Shape = Shape { rtt: Duration::ZERO, bits_per_second: 100_000_000_000 };

    fn parse(rtt: &str, mbit: &str) -> Result<Shape> {
        let mbit: u64 = mbit.parse()?;
        let bits_per_second = mbit.checked_mul(1_000_000).filter(|rate| *rate > 0);
        Ok(Shape {
            rtt: Duration::from_millis(rtt.parse()?),
            bits_per_second: bits_per_second.context("no such rate")?,
        })
    }

    fn delay(self) -> Duration {
        self.rtt / 2
    }

    /// The maximum number of pieces in transit, even if the receiver does not read them; few are
    /// smaller than a kibibyte if there are many.
    fn pieces(self) -> usize {
        let bytes = (self.delay() + QUEUE).as_secs_f64() * self.bits_per_second as f64 / 8.0;
        64 + (bytes as usize / 1024).min(4096)
    }
}

/// Computes when sent bytes arrive; times are relative to any fixed moment.
#[derive(Clone, Debug)]
pub struct Schedule {
    shape: Shape,
    /// The time at which the last byte is sent.
    free_at: Duration,
}

impl Schedule {
    pub fn new(shape: Shape) -> Schedule {
        Schedule { shape, free_at: Duration::ZERO }
    }

    /// The time at which all of `bytes`, queued at `now`, have arrived.
    pub fn arrival(&mut self, now: Duration, bytes: usize) -> Duration {
        let nanoseconds =
            (bytes as u128 * 8 * 1_000_000_000).div_ceil(self.shape.bits_per_second.into());
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(now) + takes;
        self.free_at + self.shape.delay()
    }

    /// The time from which on more bytes can be queued.
    pub fn ready(&self) -> Duration {
        self.free_at.saturating_sub(QUEUE)
    }
}

/// One direction of the link, shared by all connections.
struct Direction {
    schedule: Mutex<Schedule>,
    passed: AtomicU64,
}

/// Both directions: to the server, and from it.
struct Directions([Direction; 2]);

/// A relay to a server.
pub struct Link {
    port: u16,
    epoch: Instant,
    current: Arc<Mutex<(Shape, Arc<Directions>)>>,
}

impl Link {
    /// Listens on a port of the loopback, and relays to `server` there, until the process ends.
    ///
    /// # Errors
    ///
    /// No port is available.
    pub fn start(server: u16, shape: Shape) -> std::io::Result<Link> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let link = Link {
            port: listener.local_addr()?.port(),
            epoch: Instant::now(),
            current: Arc::new(Mutex::new((shape, directions(shape)))),
        };
        let (epoch, current) = (link.epoch, Arc::clone(&link.current));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shape, directions) = current.lock().expect("nobody panics").clone();
                thread::spawn(move || connect(&client, server, shape, &directions, epoch));
            }
        });
        Ok(link)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the shape of new connections, and resets the byte counts.
    pub fn reshape(&self, shape: Shape) {
        *self.current.lock().expect("nobody panics") = (shape, directions(shape));
    }

    /// Does what a line says: `shape MS MBIT` reshapes, `passed` does nothing. Returns the number of
    /// bytes up and down.
    ///
    /// # Errors
    ///
    /// It is neither.
    pub fn answer(&self, line: &str) -> Result<String> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["shape", rtt, mbit] => self.reshape(Shape::parse(rtt, mbit)?),
            ["passed"] => {}
            ref words => bail!("{words:?} is neither `shape MS MBIT` nor `passed`"),
        }
        let [up, down] = self.passed();
        Ok(format!("{up} {down}"))
    }

    /// The bytes to the server and from it since the last [`Link::reshape`].
    pub fn passed(&self) -> [u64; 2] {
        let directions = Arc::clone(&self.current.lock().expect("nobody panics").1);
        [0, 1].map(|i| directions.0[i].passed.load(Ordering::SeqCst))
    }
}

fn directions(shape: Shape) -> Arc<Directions> {
    let direction =
        || Direction { schedule: Mutex::new(Schedule::new(shape)), passed: AtomicU64::new(0) };
    Arc::new(Directions([direction(), direction()]))
}

/// Simulates the TCP handshake: the client may send after one round trip, and the server receives
/// it half a round trip later. A failed connection is closed.
fn connect(
    client: &TcpStream,
    server: u16,
    shape: Shape,
    directions: &Arc<Directions>,
    epoch: Instant,
) {
    thread::sleep(shape.rtt + shape.delay());
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { return };
    for (i, [from, to]) in [[client, &server], [&server, client]].into_iter().enumerate() {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        // Requests are small, and wait for an answer.
        if to.set_nodelay(true).is_err() {
            return;
        }
        // The client sent its first bytes half a round trip ago.
        let early = if i == 0 { shape.delay() } else { Duration::ZERO };
        let directions = Arc::clone(directions);
        let (queue, queued) = sync_channel(shape.pieces());
        thread::spawn(move || deliver(to, &queued, epoch));
        thread::spawn(move || take(from, &queue, &directions.0[i], epoch, early));
    }
}

/// Bytes with their time of arrival, or the end.
type Queued = (Duration, Vec<u8>);

/// Reads as fast as the link can send. The first bytes were sent `early`.
fn take(
    mut from: TcpStream,
    queue: &SyncSender<Queued>,
    direction: &Direction,
    epoch: Instant,
    mut early: Duration,
) {
    let mut buffer = vec![0; CHUNK];
    loop {
        // An error counts as end of file: the other side notices by itself.
        let n = from.read(&mut buffer).unwrap_or(0);
        let now = epoch.elapsed().saturating_sub(std::mem::take(&mut early));
        let (arrival, ready) = {
            let mut schedule = direction.schedule.lock().expect("nobody panics");
            (schedule.arrival(now, n), schedule.ready())
        };
        direction.passed.fetch_add(n as u64, Ordering::SeqCst);
        if queue.send((arrival, buffer[..n].to_vec())).is_err() || n == 0 {
            return;
        }
        sleep_until(epoch + ready);
    }
}

fn deliver(mut to: TcpStream, queued: &Receiver<Queued>, epoch: Instant) {
    while let Ok((arrival, bytes)) = queued.recv() {
        sleep_until(epoch + arrival);
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The connection may be closed already.
    let _ = to.shutdown(Shutdown::Write);
}

fn sleep_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [(u64, u64); 4] = [(80, 100), (20, 1000), (150, 20), (0, 1)];

    /// The time of a read.
    const READ: Duration = Duration::from_micros(4);

    fn shape((rtt, mbit): (u64, u64)) -> Shape {
        Shape { rtt: Duration::from_millis(rtt), bits_per_second: mbit * 1_000_000 }
    }

    /// Queues `bytes` as soon as possible; after each wait, it continues later by `late`. Returns
    /// when the last byte arrives, and the maximum number of bytes in transit.
    fn send(
        shape: Shape,
        bytes: usize,
        chunk: usize,
        mut late: impl FnMut() -> Duration,
    ) -> (Duration, usize) {
        let mut schedule = Schedule::new(shape);
        let (mut now, mut left, mut last) = (Duration::ZERO, bytes, Duration::ZERO);
        let mut under_way = std::collections::VecDeque::new();
        let (mut sum, mut most) = (0, 0);
        while left > 0 {
            let n = left.min(chunk);
            last = schedule.arrival(now, n);
            under_way.push_back((last, n));
            sum += n;
            while under_way.front().is_some_and(|(arrival, _)| *arrival <= now) {
                sum -= under_way.pop_front().map_or(0, |(_, n)| n);
            }
            most = most.max(sum);
            left -= n;
            now += READ;
            if now < schedule.ready() {
                now = schedule.ready() + late();
            }
        }
        (last, most)
    }

    #[test]
    fn ten_megabytes_take_as_long_as_the_rate_says_and_the_delay_comes_once() {
        for case in SHAPES {
            let shape = shape(case);
            let exact = 10e6 * 8.0 / shape.bits_per_second as f64 + shape.delay().as_secs_f64();
            for chunk in [CHUNK, 1000] {
                let (last, _) = send(shape, 10_000_000, chunk, || Duration::ZERO);
                let error = last.as_secs_f64() / exact - 1.0;
                assert!((-1e-9..0.02).contains(&error), "{case:?} {chunk}: {error}");
            }
            // Wakes up late, at times by as much as the queue compensates.
            let mut wakes = 0;
            let late = || {
                wakes += 1;
                if wakes % 7 == 0 { QUEUE / 2 } else { Duration::from_micros(80) }
            };
            let (last, _) = send(shape, 10_000_000, CHUNK, late);
            let error = last.as_secs_f64() / exact - 1.0;
            assert!((-1e-9..0.02).contains(&error), "{case:?} woken late: {error}");
        }
    }

    #[test]
    fn no_more_is_under_way_than_the_link_and_its_queue_hold() {
        for case in SHAPES {
            let shape = shape(case);
            let (_, most) = send(shape, 10_000_000, CHUNK, || Duration::ZERO);
            let time = shape.delay() + QUEUE;
            let holds = time.as_secs_f64() * shape.bits_per_second as f64 / 8.0;
            assert!(most as f64 <= holds + 2.0 * CHUNK as f64, "{case:?}: {most} of {holds}");
        }
    }

    #[test]
    fn a_byte_on_an_idle_link_takes_the_delay_and_two_senders_share_the_rate() {
        let mut schedule = Schedule::new(shape((80, 100)));
        let second = Duration::from_secs(1);
        assert_eq!(schedule.arrival(second, 1), second + Duration::from_nanos(40_000_080));
        // Bytes of two connections are sent one after the other.
        let [a, b] = [(); 2].map(|()| schedule.arrival(2 * second, 125_000));
        let [a, b] = [a, b].map(|arrival| (arrival - 2 * second).as_millis());
        assert_eq!((a, b), (50, 60));
    }
}
