//! The system calls that the standard library and `socket2` do not have: `recvmmsg`, `sendmmsg`,
//! `IP_PKTINFO`, `SO_TIMESTAMPNS`, `SO_RXQ_OVFL`, `SO_ATTACH_REUSEPORT_CBPF`. Every function here is safe to call; the blocks say why.

use crate::steer::Instruction;
use crate::udp::Outgoing;
use socket2::SockAddr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams that one `recvmmsg` takes at most.
pub const RECV_BATCH: usize = 32;
/// Datagrams that one `sendmmsg` takes at most.
pub const SEND_BATCH: usize = 64;
/// Room for one datagram: nothing that UDP carries is longer.
pub const SLOT: usize = 65_536;
/// Room for the control messages of one datagram (IPV6_PKTINFO is 40 bytes, SCM_TIMESTAMPNS 32, SO_RXQ_OVFL 24).
const CONTROL: usize = 128;

/// Control buffers start where `cmsghdr` may start.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Control([u8; CONTROL]);

/// Where one `recvmmsg` puts what it receives, and the headers that tell the kernel so, written once. One for each
/// worker, shared by its sockets; only the pages that datagrams really reached are ever touched.
pub struct RecvArena {
    /// `RECV_BATCH` times `SLOT` bytes. None of these ever grows: `iovecs` and `messages` point into the others.
    slots: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    _controls: Vec<Control>,
    _iovecs: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    /// Headers that the kernel wrote lengths into.
    used: usize,
}

impl Default for RecvArena {
    fn default() -> RecvArena {
        let mut slots = vec![0; RECV_BATCH * SLOT];
        // SAFETY: sockaddr_storage is plain bytes, for which all zeroes is a value (AF_UNSPEC).
        let mut names = vec![unsafe { std::mem::zeroed::<libc::sockaddr_storage>() }; RECV_BATCH];
        let mut controls = vec![Control([0; CONTROL]); RECV_BATCH];
        let iovec = |slot: &mut [u8]| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT };
        let mut iovecs: Vec<libc::iovec> = slots.chunks_exact_mut(SLOT).map(iovec).collect();
        let places = names.iter_mut().zip(&mut controls).zip(&mut iovecs);
        let messages = places.map(|((name, control), iov)| {
            // SAFETY: msghdr is integers and pointers, for which all zeroes is a value; the fields that the kernel reads
            // are set below (musl has private padding fields, so no literal is possible).
            let mut hdr: libc::msghdr = unsafe { std::mem::zeroed() };
            hdr.msg_name = (&raw mut *name).cast();
            hdr.msg_iov = iov;
            hdr.msg_iovlen = 1;
            hdr.msg_control = control.0.as_mut_ptr().cast();
            libc::mmsghdr { msg_hdr: hdr, msg_len: 0 }
        });
        let messages = messages.collect();
        RecvArena { slots, names, _controls: controls, _iovecs: iovecs, messages, used: RECV_BATCH }
    }
}

/// One received datagram: its sender, and what the kernel said about it.
#[derive(Default)]
pub struct Received {
    pub remote: Option<SocketAddr>,
    /// The address it was sent to.
    pub local: Option<IpAddr>,
    /// When it came, microseconds since 1970; 0: not known.
    pub at_us: u64,
    /// Datagrams that found no room in the socket so far, modulo 2^32; `None`: none yet.
    pub lost: Option<u32>,
}

/// Receives up to `RECV_BATCH` datagrams without waiting, and calls `each` with what came.
pub fn recv_batch(
    fd: BorrowedFd<'_>,
    arena: &mut RecvArena,
    mut each: impl FnMut(Received, &[u8]),
) -> io::Result<usize> {
    for message in &mut arena.messages[..arena.used] {
        message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_hdr.msg_controllen = CONTROL as _;
    }
    arena.used = 0;
    // SAFETY: there are `RECV_BATCH` headers, each points to a name, a control buffer and a slot of its own, of the
    // lengths given, in vectors of the same arena that are never grown; it is borrowed mutably through the call.
    let n = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            arena.messages.as_mut_ptr(),
            RECV_BATCH as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    arena.used = (n as usize).min(RECV_BATCH);
    for (i, message) in arena.messages[..arena.used].iter().enumerate() {
        let len = (message.msg_len as usize).min(SLOT);
        let remote = socket_addr(&arena.names[i]);
        let received = Received { remote, ..control_data(&message.msg_hdr) };
        each(received, &arena.slots[i * SLOT..i * SLOT + len]);
    }
    Ok(arena.used)
}

/// Sends up to `SEND_BATCH` of `batch` without waiting; how many the kernel took. An error concerns the
/// first datagram.
pub fn send_batch<'a>(fd: BorrowedFd<'_>, batch: impl Iterator<Item = &'a Outgoing>) -> io::Result<usize> {
    let mut names = [const { MaybeUninit::<SockAddr>::uninit() }; SEND_BATCH];
    let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; SEND_BATCH];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; SEND_BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND_BATCH];
    let mut count = 0;
    for (i, datagram) in batch.take(SEND_BATCH).enumerate() {
        let name = names[i].write(SockAddr::from(datagram.remote));
        let iov = iovecs[i].write(libc::iovec {
            iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
            iov_len: datagram.bytes.len(),
        });
        // SAFETY: as in `recv_batch`.
        let mut hdr: libc::msghdr = unsafe { std::mem::zeroed() };
        hdr.msg_name = name.as_ptr().cast_mut().cast();
        hdr.msg_namelen = name.len();
        hdr.msg_iov = iov;
        hdr.msg_iovlen = 1;
        if let Some(source) = datagram.source {
            hdr.msg_control = controls[i].write(Control([0; CONTROL])).0.as_mut_ptr().cast();
            hdr.msg_controllen = CONTROL as _;
            hdr.msg_controllen = write_source(&mut hdr, source) as _;
        }
        messages[i].write(libc::mmsghdr { msg_hdr: hdr, msg_len: 0 });
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised and point to names, control buffers and bytes
    // that outlive the call; the kernel only reads what `iov_base` points to.
    let n = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            count as libc::c_uint,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    // `SockAddr` needs no drop, so the uninitialised rest of `names` is fine.
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// Asks the kernel to say which local address each datagram was sent to.
pub fn enable_packet_info(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    match v6 {
        false => enable(fd, libc::IPPROTO_IP, libc::IP_PKTINFO),
        true => enable(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    }
}

/// Asks the kernel to say when each datagram, or the last byte of a read, came.
pub fn enable_arrival_times(fd: BorrowedFd<'_>) -> io::Result<()> {
    enable(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)
}

/// Asks the kernel to say how many datagrams found no room.
pub fn enable_loss_count(fd: BorrowedFd<'_>) -> io::Result<()> {
    enable(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)
}

fn enable(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, which lives through the call.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a classic BPF program choose among the sockets that share the address of this one by `SO_REUSEPORT`.
pub fn attach_reuseport(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jump_true, jf: i.jump_false, k: i.k })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let text = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the option's value is a sock_fprog whose pointer leads to `len` instructions; both live through the
    // call, in which the kernel copies and checks the program.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const text).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the receive buffer beyond `net.core.rmem_max`, which only a privileged process may.
pub fn force_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is one int, which lives through the call.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes the control message that chooses the source address; its length. `hdr` points to `CONTROL`
/// zeroed bytes.
fn write_source(hdr: &mut libc::msghdr, source: IpAddr) -> usize {
    // SAFETY: the buffer behind `hdr` is aligned for cmsghdr and, with 64 bytes, longer than either
    // message (CMSG_SPACE is 32 and 40), so CMSG_FIRSTHDR is not null and CMSG_DATA stays inside.
    unsafe {
        let cmsg = libc::CMSG_FIRSTHDR(hdr);
        match source {
            IpAddr::V4(ip) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                (*cmsg).cmsg_level = libc::IPPROTO_IP;
                (*cmsg).cmsg_type = libc::IP_PKTINFO;
                (*cmsg).cmsg_len = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as u32) as _;
                libc::CMSG_DATA(cmsg).cast::<libc::in_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) as usize
            }
            IpAddr::V6(ip) => {
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                (*cmsg).cmsg_level = libc::IPPROTO_IPV6;
                (*cmsg).cmsg_type = libc::IPV6_PKTINFO;
                (*cmsg).cmsg_len = libc::CMSG_LEN(size_of::<libc::in6_pktinfo>() as u32) as _;
                libc::CMSG_DATA(cmsg).cast::<libc::in6_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32) as usize
            }
        }
    }
}

/// Reads from a stream without waiting: how many bytes, and when the last of them came (microseconds since 1970, 0: not
/// known).
pub fn recv_stream(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, u64)> {
    let mut control = Control([0; CONTROL]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as in `RecvArena::default`.
    let mut hdr: libc::msghdr = unsafe { std::mem::zeroed() };
    hdr.msg_iov = &raw mut iov;
    hdr.msg_iovlen = 1;
    hdr.msg_control = control.0.as_mut_ptr().cast();
    hdr.msg_controllen = CONTROL as _;
    // SAFETY: the header points to one slice and one control buffer, of the lengths given, which outlive the call.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut hdr, libc::MSG_DONTWAIT) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((n as usize, control_data(&hdr).at_us))
}

/// What a received message's control data say.
fn control_data(hdr: &libc::msghdr) -> Received {
    let mut said = Received::default();
    if hdr.msg_controllen == 0 {
        return said;
    }
    // SAFETY: the kernel filled the control buffer and set `msg_controllen` to what it wrote; the CMSG
    // functions stay within it, and the data is read unaligned with the type its level and type name.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(hdr);
        while !cmsg.is_null() {
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(cmsg).cast::<libc::in_pktinfo>().read_unaligned();
                    said.local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(cmsg).cast::<libc::in6_pktinfo>().read_unaligned();
                    said.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = libc::CMSG_DATA(cmsg).cast::<libc::timespec>().read_unaligned();
                    said.at_us = time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000;
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    said.lost = Some(libc::CMSG_DATA(cmsg).cast::<u32>().read_unaligned());
                }
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(hdr, cmsg);
        }
    }
    said
}

/// Address in the kernel's form; `None` for families other than IPv4 and IPv6.
pub fn socket_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let at: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: sockaddr_storage is large and aligned enough for every address; the family says
            // that this one is a sockaddr_in.
            let a = unsafe { &*at.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let a = unsafe { &*at.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into())
        }
        _ => None,
    }
}
