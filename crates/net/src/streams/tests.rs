//! Connections over the loopback address, with a clock that is real: limits are short, what is waited for
//! has none.

use super::*;
use std::cell::Cell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::LocalSet;

const OPTIONS: &str = "OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

/// What an owner was told.
#[derive(Default)]
struct Told {
    received: RefCell<Vec<(Peer, Bytes)>>,
    undelivered: RefCell<Vec<Bytes>>,
    closed: RefCell<Vec<Closed>>,
    passed: Cell<usize>,
    news: Notify,
}

impl Owner for Rc<Told> {
    fn received(&self, from: Peer, messages: &mut Vec<Bytes>, _: u64) {
        self.received.borrow_mut().extend(messages.drain(..).map(|m| (from, m)));
        self.news.notify_one();
    }
    fn is_busy(&self) -> bool {
        false
    }
    fn undelivered(&self, _: Peer, messages: Vec<Bytes>) {
        self.undelivered.borrow_mut().extend(messages);
        self.news.notify_one();
    }
    fn pass_on(&self, _: u16, _: Peer, _: Bytes) {
        self.passed.set(self.passed.get() + 1);
    }
    fn closed(&self, _: &Entry, why: &Closed) {
        self.closed.borrow_mut().push(why.clone());
        self.news.notify_one();
    }
    fn complain(&self, _: &str) {}
}

impl Told {
    async fn until(&self, reached: impl Fn(&Told) -> bool) {
        while !reached(self) {
            self.news.notified().await;
        }
    }
}

struct Place {
    streams: Rc<Streams>,
    told: Rc<Told>,
    addr: SocketAddr,
}

fn place(settings: Settings) -> Place {
    let bound =
        tcp::BoundTcp::bind("127.0.0.1:0".parse().unwrap(), &settings.tcp, crate::Sharing::Workers).unwrap();
    let addr = bound.local().unwrap();
    let socket = Socket { transport: Transport::Tcp, local: addr, link: LinkSetup::default() };
    let told = Rc::new(Told::default());
    let owner = Rc::new(told.clone());
    let streams = Streams::new(0, Arc::default(), vec![Some(socket)], settings, Instant::now(), owner);
    spawn_local(streams.clone().listen(0, bound.open().unwrap()));
    Place { streams, told, addr }
}

fn to(remote: SocketAddr) -> Peer {
    Peer {
        socket: 0,
        transport: Transport::Tcp,
        remote,
        local: None,
        connection: 0,
        open: Open::Allowed,
        hint: 0,
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("in time");
    });
}

#[test]
fn messages_come_and_go_by_one_connection() {
    run(async {
        let place = place(Settings::default());
        let mut client = TcpStream::connect(place.addr).await.unwrap();
        client.write_all(format!("{OPTIONS}{OPTIONS}\r\n\r\n").as_bytes()).await.unwrap();
        place.told.until(|told| told.received.borrow().len() == 2).await;
        let from = place.told.received.borrow()[0].0;
        assert_eq!(from.remote, client.local_addr().unwrap());
        place.streams.send(from, Bytes::from_static(b"by its number "));
        place.streams.send(to(from.remote), Bytes::from_static(b"by its address"));
        let mut got = [0; 30];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"\r\nby its number by its address");
        let _ = place.streams.close(from.connection);
        assert_eq!(client.read(&mut got).await.unwrap(), 0);
        place.told.until(|told| *told.closed.borrow() == [Closed::Here]).await;
        place.streams.send(Peer { open: Open::Never, ..from }, Bytes::from_static(b"late"));
        place.told.until(|told| *told.undelivered.borrow() == ["late"]).await;
    });
}

#[test]
fn connects_once_and_says_when_it_cannot() {
    run(async {
        let place = place(Settings::default());
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = other.local_addr().unwrap();
        place.streams.send(to(addr), Bytes::from_static(b"one "));
        place.streams.send(to(addr), Bytes::from_static(b"two"));
        let (mut stream, _) = other.accept().await.unwrap();
        let mut got = [0; 7];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"one two");
        // What comes back by it is received too.
        stream.write_all(OPTIONS.as_bytes()).await.unwrap();
        place.told.until(|told| told.received.borrow().len() == 1).await;
        drop((stream, other));
        place.told.until(|told| *told.closed.borrow() == [Closed::ByPeer]).await;
        place.streams.send(to(addr), Bytes::from_static(b"three"));
        place.told.until(|told| *told.undelivered.borrow() == ["three"]).await;
        assert!(place.streams.directory.is_empty());
    });
}

#[test]
fn slow_silent_and_noisy_clients_end() {
    run(async {
        let place = place(Settings { message: 50, lifetime: 200, ..Settings::default() });
        for (sent, why) in [
            ("OPTIONS sip:a SIP/2.0\r\n", Closed::Slow),
            ("", Closed::Idle),
            ("GET / HTTP/1.1\r\n\r\n", Closed::Bad(LinkError::Frame(crate::stream::FrameError::NoLength))),
        ] {
            let mut client = TcpStream::connect(place.addr).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
            place.told.until(|told| !told.closed.borrow().is_empty()).await;
            assert_eq!(place.told.closed.take(), [why]);
        }
    });
}

#[test]
fn who_never_reads_gets_no_more() {
    run(async {
        let place = place(Settings { stall: 100, queue: 4, ..Settings::default() });
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = other.local_addr().unwrap();
        let accepted = spawn_local(async move { other.accept().await.unwrap() });
        let message = Bytes::from(vec![b'x'; 60_000]);
        while place.told.undelivered.borrow().is_empty() {
            place.streams.send(to(addr), message.clone());
            tokio::task::yield_now().await;
        }
        place.told.until(|told| *told.closed.borrow() == [Closed::Slow]).await;
        // Those that waited come back, too.
        place.told.until(|told| told.undelivered.borrow().len() >= 5).await;
        drop(accepted.await);
    });
}

/// What waits for many connections together has a bound, and is none when they have ended.
#[test]
fn many_who_never_read_get_no_more_together() {
    run(async {
        let (most, size) = (500_000, 60_000);
        let place = place(Settings { stall: 300, queue_bytes: most, ..Settings::default() });
        let mut others = Vec::new();
        for _ in 0..8 {
            let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = other.local_addr().unwrap();
            others.push((addr, spawn_local(async move { other.accept().await.unwrap() })));
        }
        let message = Bytes::from(vec![b'x'; size]);
        let queued = || place.streams.directory.counters.queued.load(Ordering::Relaxed) as usize;
        while place.told.undelivered.borrow().len() < 20 {
            for (addr, _) in &others {
                place.streams.send(to(*addr), message.clone());
            }
            // One for each connection always has room.
            assert!(queued() <= most + size * others.len(), "{} bytes wait", queued());
            tokio::task::yield_now().await;
        }
        place.told.until(|told| told.closed.borrow().len() >= 8).await;
        assert_eq!(queued(), 0);
        for (_, accepted) in others {
            drop(accepted.await);
        }
    });
}

/// A client that sends keep-alives and never reads costs a bounded number of bytes, then its connection.
#[test]
fn who_never_reads_answers_to_keep_alives_is_not_read_from() {
    run(async {
        let place = place(Settings { stall: 300, ..Settings::default() });
        let client = TcpStream::connect(place.addr).await.unwrap();
        let pings = "\r\n\r\n".repeat(4096);
        let (mut sent, mut most) = (0, 0);
        while place.told.closed.borrow().is_empty() {
            tokio::select! {
                ready = client.writable() => if ready.is_ok() {
                    sent += client.try_write(pings.as_bytes()).unwrap_or(0);
                },
                () = place.told.news.notified() => {}
            }
            let owed = |conn: &Rc<Conn>| conn.owed();
            most = most.max(place.streams.table.borrow().values().map(owed).sum());
            tokio::task::yield_now().await;
        }
        assert_eq!(*place.told.closed.borrow(), [Closed::Slow]);
        assert!(sent > most && most < 100_000, "{sent} bytes of pings, {most} bytes of answers held");
    });
}

/// A connection that always has something for us gives way to others after each read.
#[test]
fn a_connection_in_haste_does_not_hold_up_others() {
    run(async {
        let place = place(Settings::default());
        let mut hasty = TcpStream::connect(place.addr).await.unwrap();
        let mut quiet = TcpStream::connect(place.addr).await.unwrap();
        let address = quiet.local_addr().unwrap();
        // Both have all they send in the server's buffers before it reads a byte.
        hasty.write_all(OPTIONS.repeat(1000).as_bytes()).await.unwrap();
        quiet.write_all(OPTIONS.as_bytes()).await.unwrap();
        place.told.until(|told| told.received.borrow().len() == 1001).await;
        let before =
            place.told.received.borrow().iter().position(|(from, _)| from.remote == address).unwrap();
        assert!(before < 800, "{before} messages of one connection before the first of the other");
    });
}

#[test]
fn there_is_a_limit_of_connections() {
    run(async {
        let place = place(Settings { max_accepted: 1, ..Settings::default() });
        let mut first = TcpStream::connect(place.addr).await.unwrap();
        first.write_all(OPTIONS.as_bytes()).await.unwrap();
        place.told.until(|told| told.received.borrow().len() == 1).await;
        let mut second = TcpStream::connect(place.addr).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
        drop(first);
        place.told.until(|told| told.closed.borrow().len() == 1).await;
        let mut third = TcpStream::connect(place.addr).await.unwrap();
        third.write_all(OPTIONS.as_bytes()).await.unwrap();
        place.told.until(|told| told.received.borrow().len() == 2).await;
    });
}

#[test]
fn another_workers_connection_is_reached_through_it() {
    run(async {
        let place = place(Settings::default());
        let directory = &place.streams.directory;
        let entry = directory.accept(1, 0, Transport::Tcp, "10.0.0.1:5060".parse().unwrap(), 10).unwrap();
        place.streams.send(to(entry.remote), Bytes::from_static(b"x"));
        place.streams.send(Peer { connection: entry.id, ..to(entry.remote) }, Bytes::from_static(b"x"));
        assert_eq!(place.told.passed.get(), 2);
    });
}
