//! What a daemon asks of the system: user and group, limits, local time.

use std::ffi::CString;
use std::io;

/// Memory in pages of the usual size from now on: in huge ones a server at rest is twice as large, and nothing was seen
/// to be faster. What the system refuses is no harm.
pub fn forgo_huge_pages() {
    // SAFETY: a plain call with numbers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Gives memory that this thread has freed back to the system. The allocator does it by itself while it is asked for more,
/// but not in the quiet after a crowd. Costs some microseconds, and a tenth of a millisecond for each 100 MB that is used.
pub fn give_back_memory() {
    // SAFETY: works on the heap of the calling thread only; without `force` nothing is taken from others.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Lets go of the parts of the program that only its start needed. They take no memory from now on; what is used again
/// comes back from the file by itself. What the system refuses is no harm.
pub fn forget_the_start() {
    let (Ok(maps), Ok(program)) = (std::fs::read_to_string("/proc/self/maps"), std::env::current_exe())
    else {
        return;
    };
    for line in maps.lines().filter(|line| line.ends_with(&*program.to_string_lossy())) {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some("r-xp")) = (words.next(), words.next()) else { continue };
        let ends =
            range.split_once('-').map(|(from, to)| [from, to].map(|text| usize::from_str_radix(text, 16)));
        let Some([Ok(from), Ok(to)]) = ends else { continue };
        // SAFETY: this is text of the program's file, mapped privately and never written: its pages are those of the file,
        // which the system reads again when they are asked for.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(from), to - from, libc::MADV_DONTNEED) };
    }
}

/// A user as the password file has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// A user by name or number. `None`: there is none of that name.
pub fn user(name: &str) -> Option<User> {
    let c_name = CString::new(name).ok()?;
    // SAFETY: getpwnam reads a NUL-terminated string and returns null or a record in static memory,
    // which is read before any other call; the server looks up users before it starts threads.
    let found = unsafe { libc::getpwnam(c_name.as_ptr()).as_ref().map(|p| (p.pw_uid, p.pw_gid)) };
    match found {
        Some((uid, gid)) => Some(User { name: name.to_owned(), uid, gid }),
        None => name.parse().ok().map(|uid| User { name: name.to_owned(), uid, gid: uid }),
    }
}

/// A group's number by name or number.
pub fn group(name: &str) -> Option<u32> {
    let c_name = CString::new(name).ok()?;
    // SAFETY: as in `user`, with getgrnam.
    let found = unsafe { libc::getgrnam(c_name.as_ptr()).as_ref().map(|g| g.gr_gid) };
    found.or_else(|| name.parse().ok())
}

/// Gives up privileges for good: supplementary groups, group, user.
pub fn become_user(user: Option<&User>, gid: Option<u32>) -> io::Result<()> {
    let gid = gid.or(user.map(|u| u.gid));
    // SAFETY: plain calls with numbers and, for initgroups, a NUL-terminated name that outlives it.
    unsafe {
        if let (Some(user), Some(gid)) = (user, gid) {
            let name = CString::new(user.name.as_str())?;
            // Without privilege the groups stay; setgid below then says so if it matters.
            if libc::geteuid() == 0 {
                check(libc::initgroups(name.as_ptr(), gid))?;
            }
        }
        if let Some(gid) = gid {
            check(libc::setgid(gid))?;
        }
        if let Some(user) = user {
            check(libc::setuid(user.uid))?;
        }
    }
    Ok(())
}

/// Whether something keeps the clock in step with others (NTP), as the kernel was told. `None`: it does not say.
pub fn clock_is_kept() -> Option<bool> {
    // SAFETY: all fields are numbers; adjtimex with no modes only reads, and fills in the struct.
    let state = unsafe {
        let mut clock: libc::timex = std::mem::zeroed();
        libc::adjtimex(&mut clock)
    };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

/// Files that the process may open: now, and at most without privilege.
pub fn open_files() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit only touches the struct passed.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises (or lowers) the number of files the process may open; what was granted.
pub fn limit_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit and setrlimit only touch the struct passed.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        let privileged = libc::geteuid() == 0;
        limit.rlim_max = if privileged { limit.rlim_max.max(wanted) } else { limit.rlim_max };
        limit.rlim_cur = wanted.min(limit.rlim_max);
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(limit.rlim_cur)
}

/// No core file when the process dies.
pub fn disable_core_dump() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit only reads the struct.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) })
}

/// Goes on in the background, in a session of its own; the foreground process ends with code 0. Call it
/// before any thread exists: threads do not follow.
pub fn daemonize() -> io::Result<()> {
    // SAFETY: no other thread runs yet (documented above), so the child may do anything; the parent ends
    // at once without running destructors.
    unsafe {
        match libc::fork() {
            -1 => return Err(io::Error::last_os_error()),
            0 => {}
            _ => libc::_exit(0),
        }
        check(libc::setsid())?;
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        check(null)?;
        for fd in 0..=2 {
            check(libc::dup2(null, fd))?;
        }
    }
    Ok(())
}

/// Seconds east of UTC that local time has now.
pub fn utc_offset(unix: i64) -> i32 {
    let time = unix as libc::time_t;
    // SAFETY: tm is integers and a pointer, for which all zeroes is a value; localtime_r only writes it.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&time, &mut tm).is_null() { 0 } else { tm.tm_gmtoff as i32 }
    }
}

fn check(rc: libc::c_int) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn users_and_groups() {
        let root = super::user("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(super::user("12345").unwrap().uid, 12345);
        assert_eq!(super::user("no such user"), None);
        assert_eq!(super::group("root"), Some(0));
        assert_eq!(super::group("no such group"), None);
    }
}
