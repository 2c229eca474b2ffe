//! The system calls that the standard library and `socket2` do not have: `recvmmsg`, `sendmmsg`,
//! `IP_PKTINFO`. Every function here is safe to call; the blocks say why.

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
/// Room for the control messages of one datagram (one IPV6_PKTINFO is 40 bytes).
const CONTROL: usize = 64;

/// Control buffers start where `cmsghdr` may start.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Control([u8; CONTROL]);

/// Memory of one `recvmmsg`: one address and one control buffer for each of `RECV_BATCH` datagrams.
pub struct RecvHeaders {
    names: Box<[libc::sockaddr_storage; RECV_BATCH]>,
    controls: Box<[Control; RECV_BATCH]>,
}

impl RecvHeaders {
    pub fn new() -> RecvHeaders {
        // SAFETY: sockaddr_storage is plain bytes, for which all zeroes is a value (AF_UNSPEC).
        let name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        RecvHeaders {
            names: Box::new([name; RECV_BATCH]),
            controls: Box::new([Control([0; CONTROL]); RECV_BATCH]),
        }
    }
}

/// One received datagram: its sender, and the address it was sent to when the kernel said so.
pub struct Received {
    pub remote: Option<SocketAddr>,
    pub local: Option<IpAddr>,
}

/// Receives up to `RECV_BATCH` datagrams into `slots` (`RECV_BATCH * SLOT` bytes) without waiting, and
/// calls `each` with the number of the slot.
pub fn recv_batch(
    fd: BorrowedFd<'_>,
    slots: &mut [u8],
    headers: &mut RecvHeaders,
    mut each: impl FnMut(usize, Received, &[u8]),
) -> io::Result<usize> {
    assert_eq!(slots.len(), RECV_BATCH * SLOT);
    let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; RECV_BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; RECV_BATCH];
    for (i, slot) in slots.chunks_exact_mut(SLOT).enumerate() {
        let iov = iovecs[i].write(libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT });
        // SAFETY: msghdr is integers and pointers, for which all zeroes is a value; the fields that the
        // kernel reads are set below (musl has private padding fields, so no literal is possible).
        let mut hdr: libc::msghdr = unsafe { std::mem::zeroed() };
        hdr.msg_name = (&raw mut headers.names[i]).cast();
        hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        hdr.msg_iov = iov;
        hdr.msg_iovlen = 1;
        hdr.msg_control = headers.controls[i].0.as_mut_ptr().cast();
        hdr.msg_controllen = CONTROL as _;
        messages[i].write(libc::mmsghdr { msg_hdr: hdr, msg_len: 0 });
    }
    // SAFETY: all `RECV_BATCH` headers are initialised, each points to a distinct name, control buffer
    // and slot of the lengths given, and all of them outlive the call.
    let n = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            RECV_BATCH as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    let n = n as usize;
    for (i, message) in messages.iter().take(n).enumerate() {
        // SAFETY: initialised above for every i < RECV_BATCH, and the kernel returns at most that many.
        let message = unsafe { message.assume_init_ref() };
        let len = (message.msg_len as usize).min(SLOT);
        let remote = socket_addr(&headers.names[i]);
        let received = Received { remote, local: packet_info(&message.msg_hdr) };
        each(i, received, &slots[i * SLOT..i * SLOT + len]);
    }
    Ok(n)
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
    let on: libc::c_int = 1;
    let (level, name) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
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

/// The destination address in a received message's control data.
fn packet_info(hdr: &libc::msghdr) -> Option<IpAddr> {
    if hdr.msg_controllen == 0 {
        return None;
    }
    // SAFETY: the kernel filled the control buffer and set `msg_controllen` to what it wrote; the CMSG
    // functions stay within it, and the data is read unaligned with the type its level and type name.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(hdr);
        while !cmsg.is_null() {
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(cmsg).cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(cmsg).cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => cmsg = libc::CMSG_NXTHDR(hdr, cmsg),
            }
        }
    }
    None
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
