//! UDP sockets of one worker: batches in, batches out.
//!
//! Each worker binds the same address with `SO_REUSEPORT`. What arrives is copied once, from the
//! worker's arena into memory of exactly the datagram's size, so that a message which outlives its
//! batch (a suspended script, a transaction) holds no more than itself.

use crate::{steer, sys};
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams that may wait for a full send buffer to drain, for each socket.
pub const QUEUE_LIMIT: usize = 4096;

/// Datagrams that `recv_batch` takes at most; so many tell that more wait.
pub const RECV_BATCH: usize = sys::RECV_BATCH;

/// What a UDP socket is bound with.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Wanted SO_RCVBUF in bytes; 0 leaves the system's default.
    pub receive_buffer: usize,
    /// IP_TOS / IPV6_TCLASS of what is sent.
    pub tos: Option<u8>,
    /// Whether other workers bind the same address.
    pub sharing: Sharing,
}

/// Who else may bind the address of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    Exclusive,
    /// `SO_REUSEPORT`: the other workers of this server.
    Workers,
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions { receive_buffer: 4 << 20, tos: None, sharing: Sharing::Workers }
    }
}

/// One received datagram.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub bytes: Bytes,
    pub remote: SocketAddr,
    /// Address it was sent to: the socket's own, or the interface's when the socket is a wildcard.
    pub local: SocketAddr,
    /// When it came, microseconds since 1970; 0: not known.
    pub at_us: u64,
}

/// One datagram to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub bytes: Bytes,
    pub remote: SocketAddr,
    /// Source address, for a socket bound to a wildcard; `None` lets the system choose.
    pub source: Option<IpAddr>,
}

/// What became of a batch.
#[derive(Default, Debug)]
pub struct SendReport {
    pub sent: usize,
    /// Kept until the socket is writable again.
    pub queued: usize,
    /// Lost because `QUEUE_LIMIT` datagrams wait already.
    pub overflowed: usize,
    /// Datagrams that the system refused, with the index in the batch.
    pub failed: Vec<(usize, io::Error)>,
}

pub use sys::RecvArena;

/// A bound socket that has no runtime yet: sockets are bound before the workers start, so that a server
/// that cannot have its addresses starts nothing.
pub struct BoundUdp {
    socket: Socket,
    local: SocketAddr,
    clamped: Option<usize>,
}

/// A UDP socket of one worker. Not shared between threads.
pub struct UdpSocket {
    fd: AsyncFd<Socket>,
    local: SocketAddr,
    queue: RefCell<VecDeque<Outgoing>>,
    dropped: Cell<u64>,
    /// What the kernel has lost so far, and how much of that `take_lost` told.
    lost: Cell<u32>,
    lost_told: Cell<u32>,
}

impl BoundUdp {
    /// Binds `addr`. Errors are the system's (address in use, not local, no permission).
    pub fn bind(addr: SocketAddr, options: &UdpOptions) -> io::Result<BoundUdp> {
        let v6 = addr.is_ipv6();
        let socket =
            Socket::new(Domain::for_address(addr), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        if options.sharing == Sharing::Workers {
            socket.set_reuse_port(true)?;
        }
        if v6 {
            socket.set_only_v6(true)?;
        }
        let clamped = match options.receive_buffer {
            0 => None,
            wanted => set_receive_buffer(&socket, wanted)?,
        };
        match options.tos {
            Some(tos) if v6 => socket.set_tclass_v6(tos.into())?,
            Some(tos) => socket.set_tos_v4(tos.into())?,
            None => {}
        }
        if addr.ip().is_unspecified() {
            sys::enable_packet_info(socket.as_fd(), v6)?;
        }
        // Nice to know, not needed.
        let _ = sys::enable_arrival_times(socket.as_fd());
        let _ = sys::enable_loss_count(socket.as_fd());
        socket.bind(&addr.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok(BoundUdp { socket, local, clamped })
    }

    /// The bound address, with the real port when 0 was asked for.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Bytes of receive buffer that the system granted, when fewer than asked
    /// (`net.core.rmem_max`): worth a warning.
    pub fn receive_buffer_clamped(&self) -> Option<usize> {
        self.clamped
    }

    /// From now on each datagram comes to the socket of the worker that owns its call (`sip::call_hash` of its Call-ID,
    /// modulo `sockets`), where the kernel finds it. For all `sockets` that share this one's address, which were bound in
    /// the order of the workers' numbers. Errors: the system cannot do it; datagrams then go by their addresses, as before.
    pub fn steer(&self, sockets: usize) -> io::Result<()> {
        let sockets = u32::try_from(sockets).map_err(|_| io::ErrorKind::InvalidInput)?;
        let attach = |reach| sys::attach_reuseport(self.socket.as_fd(), &steer::program(sockets, reach));
        let [far, near] = steer::REACHES;
        attach(far).or_else(|_| attach(near))
    }

    /// Hands the socket to the runtime of the calling thread.
    pub fn open(self) -> io::Result<UdpSocket> {
        let BoundUdp { socket, local, .. } = self;
        // SAFETY: the socket owns its descriptor, and `AsyncFd` owns the socket until both are dropped.
        // Readable only: with both, every datagram that leaves the send buffer would wake the worker.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(UdpSocket {
            fd,
            local,
            queue: RefCell::default(),
            dropped: Cell::new(0),
            lost: Cell::new(0),
            lost_told: Cell::new(0),
        })
    }
}

impl UdpSocket {
    /// Binds and opens in one step. Must run inside the worker's runtime.
    pub fn bind(addr: SocketAddr, options: &UdpOptions) -> io::Result<UdpSocket> {
        BoundUdp::bind(addr, options)?.open()
    }

    /// The bound address, with the real port when 0 was asked for.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits for datagrams and takes one batch of them; how many came. The arena is borrowed only while
    /// receiving, so all sockets of a worker can wait with the same one. `Ok(0)` after an error that
    /// concerned an earlier send (ICMP port unreachable).
    pub async fn recv_batch(&self, arena: &RefCell<RecvArena>, out: &mut Vec<Datagram>) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| self.recv_now(fd.get_ref(), &mut arena.borrow_mut(), out)) {
                Ok(Ok(n)) => {
                    // Fewer than fit: the queue is empty, and the next arrival wakes anew. Saves the
                    // call that would only say so.
                    if n < sys::RECV_BATCH {
                        ready.clear_ready();
                    }
                    return Ok(n);
                }
                Ok(Err(e)) if is_icmp(&e) => return Ok(0),
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }

    /// One batch without waiting, `WouldBlock` when nothing is there.
    pub fn try_recv_batch(&self, arena: &mut RecvArena, out: &mut Vec<Datagram>) -> io::Result<usize> {
        self.recv_now(self.fd.get_ref(), arena, out)
    }

    fn recv_now(&self, socket: &Socket, arena: &mut RecvArena, out: &mut Vec<Datagram>) -> io::Result<usize> {
        sys::recv_batch(socket.as_fd(), arena, |received, bytes| {
            if let Some(remote) = received.remote {
                let ip = received.local.unwrap_or(self.local.ip());
                let local = SocketAddr::new(ip, self.local.port());
                let at_us = received.at_us;
                out.push(Datagram { bytes: Bytes::copy_from_slice(bytes), remote, local, at_us });
            }
            if let Some(lost) = received.lost {
                self.lost.set(lost);
            }
        })
    }

    /// Datagrams that found the receive buffer full, since this was asked last. The kernel tells with a later one.
    pub fn take_lost(&self) -> u32 {
        self.lost.get().wrapping_sub(self.lost_told.replace(self.lost.get()))
    }

    /// Sends a batch, never waits. Order is kept: while datagrams wait for the socket, later ones wait
    /// behind them. A datagram that the system refuses is reported and skipped.
    pub fn send_batch(&self, batch: &[Outgoing]) -> SendReport {
        let mut report = SendReport::default();
        let mut next = 0;
        if self.queue.borrow().is_empty() {
            while next < batch.len() {
                match sys::send_batch(self.fd.get_ref().as_fd(), batch[next..].iter()) {
                    Ok(n) => {
                        report.sent += n;
                        next += n;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted || is_icmp(&e) => {}
                    Err(e) => {
                        report.failed.push((next, e));
                        next += 1;
                    }
                }
            }
        }
        let mut queue = self.queue.borrow_mut();
        for datagram in &batch[next..] {
            if queue.len() >= QUEUE_LIMIT {
                report.overflowed += 1;
            } else {
                queue.push_back(datagram.clone());
                report.queued += 1;
            }
        }
        self.dropped.set(self.dropped.get() + report.overflowed as u64);
        report
    }

    /// Datagrams that wait for the socket to be writable.
    pub fn queued(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Datagrams lost so far to a full queue.
    pub fn overflowed(&self) -> u64 {
        self.dropped.get()
    }

    /// Waits until the socket takes datagrams again and sends what waits; returns when nothing does.
    pub async fn flush(&self) -> io::Result<()> {
        if self.queued() == 0 {
            return Ok(());
        }
        let socket = self.fd.get_ref().try_clone()?;
        // SAFETY: as in `open`; this one lives until the queue is empty.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE)? };
        while self.queued() > 0 {
            let mut ready = fd.writable().await?;
            let _ = ready.try_io(|fd| self.flush_now(fd.get_ref()));
        }
        Ok(())
    }

    fn flush_now(&self, socket: &Socket) -> io::Result<()> {
        let mut queue = self.queue.borrow_mut();
        while !queue.is_empty() {
            match sys::send_batch(socket.as_fd(), queue.iter()) {
                Ok(n) => drop(queue.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                Err(e) if e.kind() == io::ErrorKind::Interrupted || is_icmp(&e) => {}
                // The first one cannot be sent; the others may.
                Err(_) => drop(queue.pop_front()),
            }
        }
        Ok(())
    }
}

/// An earlier datagram bounced; the socket reports it once, on whatever call comes next.
fn is_icmp(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::ConnectionRefused
}

/// Asks for `wanted` bytes, with privilege if there is; what was granted when it is less.
fn set_receive_buffer(socket: &Socket, wanted: usize) -> io::Result<Option<usize>> {
    if sys::force_receive_buffer(socket.as_fd(), wanted).is_err() {
        socket.set_recv_buffer_size(wanted)?;
    }
    // Linux doubles the value for its bookkeeping and reports the double.
    let granted = socket.recv_buffer_size()? / 2;
    Ok((granted < wanted).then_some(granted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(to: &UdpSocket, text: &str) -> Outgoing {
        Outgoing { bytes: Bytes::copy_from_slice(text.as_bytes()), remote: to.local(), source: None }
    }

    fn texts(datagrams: &[Datagram]) -> Vec<String> {
        datagrams.iter().map(|d| String::from_utf8_lossy(&d.bytes).into_owned()).collect()
    }

    async fn take(socket: &UdpSocket, count: usize) -> Vec<Datagram> {
        let (arena, mut got) = (RefCell::default(), Vec::new());
        while got.len() < count {
            socket.recv_batch(&arena, &mut got).await.unwrap();
        }
        got
    }

    /// Sends `count` datagrams from one address to the other, checks order, sender and destination.
    async fn check(from: &str, bound: &str, to: Option<&str>, count: usize) {
        let options = UdpOptions::default();
        let a = UdpSocket::bind(from.parse().unwrap(), &options).unwrap();
        let b = UdpSocket::bind(bound.parse().unwrap(), &options).unwrap();
        let remote = SocketAddr::new(to.map_or(b.local().ip(), |ip| ip.parse().unwrap()), b.local().port());
        let batch: Vec<Outgoing> =
            (0..count).map(|i| Outgoing { remote, ..out(&b, &format!("datagram {i}")) }).collect();
        let report = a.send_batch(&batch);
        assert_eq!((report.sent, report.failed.len()), (count, 0), "{from} -> {bound}");
        let got = take(&b, count).await;
        assert_eq!(texts(&got), (0..count).map(|i| format!("datagram {i}")).collect::<Vec<_>>());
        for datagram in got {
            assert_eq!((datagram.remote, datagram.local), (a.local(), remote), "{from} -> {bound}");
        }
    }

    #[tokio::test]
    async fn batches() {
        check("127.0.0.1:0", "127.0.0.1:0", None, 1).await;
        check("127.0.0.1:0", "127.0.0.1:0", None, 150).await;
        check("127.0.0.1:0", "0.0.0.0:0", Some("127.0.0.3"), 3).await;
        if crate::interfaces().unwrap().iter().any(|i| i.addr == IpAddr::from(std::net::Ipv6Addr::LOCALHOST))
        {
            check("[::1]:0", "[::1]:0", None, 40).await;
            check("[::1]:0", "[::]:0", Some("::1"), 40).await;
        }
    }

    #[tokio::test]
    async fn source_address_of_a_wildcard_socket() {
        let options = UdpOptions::default();
        let a = UdpSocket::bind("0.0.0.0:0".parse().unwrap(), &options).unwrap();
        let b = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let source: IpAddr = "127.0.0.9".parse().unwrap();
        a.send_batch(&[Outgoing { source: Some(source), ..out(&b, "x") }]);
        assert_eq!(take(&b, 1).await[0].remote, SocketAddr::new(source, a.local().port()));
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_skipped() {
        let options = UdpOptions::default();
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let b = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let long = Outgoing { bytes: Bytes::from(vec![b'x'; 70_000]), ..out(&b, "") };
        let report = a.send_batch(&[out(&b, "1"), long, out(&b, "2")]);
        assert_eq!((report.sent, report.failed.len(), report.failed[0].0), (2, 1, 1));
        assert_eq!(texts(&take(&b, 2).await), ["1", "2"]);
    }

    #[tokio::test]
    async fn nobody_listening_harms_nobody() {
        let options = UdpOptions::default();
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let b = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let nowhere = out(&gone, "lost");
        drop(gone);
        for _ in 0..10 {
            assert!(a.send_batch(std::slice::from_ref(&nowhere)).failed.is_empty());
        }
        a.send_batch(&[out(&b, "still here")]);
        assert_eq!(texts(&take(&b, 1).await), ["still here"]);
    }

    #[tokio::test]
    async fn arrivals_have_a_time_and_losses_are_counted() {
        let options = UdpOptions { receive_buffer: 8192, ..UdpOptions::default() };
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let b = UdpSocket::bind("0.0.0.0:0".parse().unwrap(), &options).unwrap();
        let to = Outgoing { remote: ([127, 0, 0, 1], b.local().port()).into(), ..out(&b, &"x".repeat(1000)) };
        let now =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
        let before = now();
        a.send_batch(&vec![to.clone(); 200]);
        let after = now();
        let (mut arena, mut got) = (RecvArena::default(), Vec::new());
        while b.try_recv_batch(&mut arena, &mut got).is_ok() {}
        assert!(
            got.iter().all(|d| (before..=after).contains(&d.at_us)),
            "{before} {after} {:?}",
            got[0].at_us
        );
        // The next one that arrives tells.
        a.send_batch(std::slice::from_ref(&to));
        assert_eq!(take(&b, 1).await.len(), 1);
        assert_eq!(b.take_lost() as usize, 200 - got.len());
        assert_eq!(b.take_lost(), 0);
    }

    #[tokio::test]
    async fn workers_share_an_address() {
        let options = UdpOptions::default();
        let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        assert!(UdpSocket::bind(a.local(), &options).is_ok());
        let alone = UdpOptions { sharing: Sharing::Exclusive, ..options };
        assert!(UdpSocket::bind(a.local(), &alone).is_err());
    }
}
