//! The link of benchmarks, with real connections.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tests::link::{Link, Shape};
use tests::process::wait_for;

const SHAPE: Shape = Shape { rtt: Duration::from_millis(40), bits_per_second: 80_000_000 };

/// A server that reads to the end, and then sends all of that and `more` in return.
fn echo(listener: &TcpListener, more: usize) {
    for client in listener.incoming() {
        let mut client = client.expect("a connection");
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("read");
        bytes.resize(bytes.len() + more, 7);
        // A client may have gone.
        let _ = client.write_all(&bytes);
    }
}

fn serve(more: usize) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || echo(&listener, more));
    port
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn all_bytes_arrive_in_order_are_counted_and_are_no_faster_than_the_link() {
    let link = Link::start(serve(1000), SHAPE).expect("a link");
    let sent = pattern(1_000_000);
    let began = Instant::now();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).expect("connect");
    client.write_all(&sent).expect("write");
    client.shutdown(Shutdown::Write).expect("end");
    let mut got = Vec::new();
    client.read_to_end(&mut got).expect("read");
    assert!(got[..sent.len()] == sent && got[sent.len()..] == [7; 1000]);
    assert_eq!(link.passed(), [1_000_000, 1_001_000]);
    // Connecting, 0.1 s each way for the bytes, and the way there and back. A busy
    // machine only adds to it.
    let least = SHAPE.rtt * 2 + Duration::from_millis(200);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());

    link.reshape(Shape { rtt: Duration::ZERO, ..SHAPE });
    assert_eq!(link.passed(), [0, 0]);
}

#[test]
fn two_connections_share_the_rate() {
    let link = Link::start(serve(0), SHAPE).expect("a link");
    let began = Instant::now();
    let port = link.port();
    let send = move || {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        client.write_all(&pattern(500_000)).expect("write");
        client.shutdown(Shutdown::Write).expect("end");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("read");
        assert!(got == pattern(500_000));
    };
    let clients = [(); 2].map(|()| thread::spawn(send));
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    assert!(began.elapsed() >= Duration::from_millis(80 + 150), "{:?}", began.elapsed());
}

#[test]
fn who_does_not_read_holds_the_sender_up_and_who_leaves_ends_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let fast = Shape { rtt: Duration::ZERO, bits_per_second: 100_000_000_000 };
    let link = Link::start(port, fast).expect("a link");
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).expect("connect");
    let (server, _) = listener.accept().expect("a connection");
    // More than all buffers on the way hold.
    let mut writer = client.try_clone().expect("clone");
    let sender = thread::spawn(move || writer.write_all(&vec![0; 2 << 30]));
    let mut before = [0, 0];
    wait_for("nothing to move any more", || {
        let now = link.passed();
        thread::sleep(Duration::from_millis(100));
        (std::mem::replace(&mut before, now) == now && now[0] > 0).then_some(())
    });
    assert!(before[0] < 200 << 20, "{before:?}");
    assert!(!sender.is_finished());
    drop(server);
    assert!(sender.join().expect("no panic").is_err(), "it is told");
}
