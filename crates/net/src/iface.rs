//! Addresses of this machine.

use crate::sys;
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// One address of one network interface that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// "eth0"
    pub name: String,
    pub addr: IpAddr,
    pub loopback: bool,
    /// IPv6 link-local (fe80::/10): not usable without a scope.
    pub link_local: bool,
}

/// All addresses of all interfaces that are up, in the system's order (`getifaddrs`).
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut head: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs writes a list to `head` or fails and leaves it; freed below.
    if unsafe { libc::getifaddrs(&mut head) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut out = Vec::new();
    let mut at = head;
    // SAFETY: `at` is null or an entry of the list, which lives until freeifaddrs.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_flags & libc::IFF_UP as u32 == 0 {
            continue;
        }
        if let Some(addr) = address(entry) {
            // SAFETY: ifa_name is a NUL-terminated string of the list.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
            let loopback = entry.ifa_flags & libc::IFF_LOOPBACK as u32 != 0;
            let link_local = matches!(addr, IpAddr::V6(ip) if ip.is_unicast_link_local());
            out.push(Interface { name, addr, loopback, link_local });
        }
    }
    // SAFETY: `head` came from getifaddrs and is freed once; nothing borrowed from it is left.
    unsafe { libc::freeifaddrs(head) };
    Ok(out)
}

/// The address of this machine that the route to `remote` starts from; nothing is sent.
pub fn source_for(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // The discard port: only the routing table is asked.
    socket.connect((remote, 9)).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

/// The name that the system's resolver has for an address. Waits for the answer: only at start.
pub fn host_name_of(ip: IpAddr) -> Option<String> {
    let addr = socket2::SockAddr::from(SocketAddr::new(ip, 0));
    let mut name = [0; libc::NI_MAXHOST as usize];
    // SAFETY: address and buffer live across the call and are given with their sizes; with a host
    // buffer and no service buffer, getnameinfo writes a NUL-terminated name into the former or fails.
    let failed = unsafe {
        libc::getnameinfo(
            addr.as_ptr().cast(),
            addr.len(),
            name.as_mut_ptr(),
            name.len() as libc::socklen_t,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if failed != 0 {
        return None;
    }
    // SAFETY: NUL-terminated within the buffer, as it succeeded.
    Some(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

fn address(entry: &libc::ifaddrs) -> Option<IpAddr> {
    // SAFETY: the storage is zeroed (a valid value), and only as many bytes are copied as an address of
    // the entry's family has, which is at most the storage's size.
    let storage = unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        let len = match i32::from((*entry.ifa_addr).sa_family) {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            _ => return None,
        };
        std::ptr::copy_nonoverlapping(entry.ifa_addr.cast::<u8>(), (&raw mut storage).cast::<u8>(), len);
        storage
    };
    Some(sys::socket_addr(&storage)?.ip())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_route_to_loopback_starts_there() {
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(super::source_for(loopback), Some(loopback));
    }

    #[test]
    fn loopback_is_listed() {
        let all = super::interfaces().unwrap();
        assert!(all.iter().any(|i| i.loopback && i.addr.is_loopback() && !i.name.is_empty()), "{all:?}");
    }
}
