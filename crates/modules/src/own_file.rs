//! Names in the file system that this server makes and listens on: FIFOs and Unix sockets. What is there and is of another
//! kind is left alone, and so is what another server listens on.

use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// What stands behind the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnFileKind {
    Fifo,
    Socket,
}

/// Who may use the file.
#[derive(Clone, Default, Debug)]
pub struct Access {
    /// Permission bits, as in `0o660`.
    pub mode: u32,
    /// Names or numbers; `None` are those of the server.
    pub user: Option<String>,
    pub group: Option<String>,
}

/// A name that was made here; gone when this is dropped, unless it has become another's.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
    inode: (u64, u64),
}

/// Makes a name with `make`, and gives it its mode and owner. The error is what the operator should read.
pub fn make<T>(
    path: &Path,
    kind: OwnFileKind,
    access: &Access,
    make: impl FnOnce() -> std::io::Result<T>,
) -> Result<(OwnFile, T), String> {
    let failed = |e: Error| {
        let hint = match e.kind() {
            ErrorKind::NotFound => " (its folder is missing)",
            ErrorKind::PermissionDenied => " (the server may not write there)",
            _ => "",
        };
        format!("cannot make {}: {e}{hint}", path.display())
    };
    make_room(path, kind).map_err(failed)?;
    // Nobody gets in before the mode is set.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777 & !access.mode));
    let made = make();
    rustix::process::umask(before);
    let made = made.map_err(failed)?;
    let meta = std::fs::symlink_metadata(path).map_err(failed)?;
    let file = OwnFile { path: path.to_owned(), inode: (meta.dev(), meta.ino()) };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(access.mode)).map_err(failed)?;
    if access.user.is_some() || access.group.is_some() {
        let id =
            |file: &str, name: &Option<String>| name.as_deref().map(|name| id_of(file, name)).transpose();
        let (user, group) = (id("/etc/passwd", &access.user), id("/etc/group", &access.group));
        let changed = user.and_then(|user| std::os::unix::fs::chown(path, user, group?));
        changed.map_err(|e| format!("cannot change the owner of {}: {e}", path.display()))?;
    }
    Ok((file, made))
}

/// The folder in which a name would be made is not there.
pub fn folder_missing(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    (!folder.is_dir()).then(|| format!("cannot make {}: its folder is missing", path.display()))
}

/// An ordinary file, made anew, that only the server's user and group get at.
pub fn private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o660).open(path)
}

/// Removes what an earlier server left behind, and nothing else.
fn make_room(path: &Path, kind: OwnFileKind) -> std::io::Result<()> {
    let other = |text: &str| Err(Error::other(text.to_owned()));
    let found = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let in_use = match kind {
        OwnFileKind::Fifo if found.is_fifo() => has_reader(path)?,
        OwnFileKind::Socket if found.is_socket() => has_listener(path)?,
        OwnFileKind::Fifo => return other("the file is there and is no FIFO: it is left alone"),
        OwnFileKind::Socket => return other("the file is there and is no socket: it is left alone"),
    };
    match in_use {
        true => other("another server uses it"),
        false => std::fs::remove_file(path),
    }
}

/// Without a reader, opening for writing fails at once.
fn has_reader(path: &Path) -> std::io::Result<bool> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NXIO) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn has_listener(path: &Path) -> std::io::Result<bool> {
    match UnixDatagram::unbound()?.connect(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(false),
        // A socket of another type: somebody's, as long as it takes connections.
        Err(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(false),
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => Err(e),
            _ => Ok(true),
        },
    }
}

/// An owner as a parameter gives it: a name or a number.
pub fn owner_text(value: &script::ast::ParamValue) -> String {
    match value {
        script::ast::ParamValue::Int(n) => n.to_string(),
        script::ast::ParamValue::Text(t) => String::from_utf8_lossy(t).into_owned(),
    }
}

/// A numeric id, or the third field of the name's line.
fn id_of(file: &str, name: &str) -> std::io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().map(|l| l.split(':')).find(|l| l.clone().next() == Some(name));
    let id = line.and_then(|mut l| l.nth(2)?.parse().ok());
    id.ok_or_else(|| Error::other(format!("{name} is not in {file}")))
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let still = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if still {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::Folder;

    fn access() -> Access {
        Access { mode: 0o600, ..Access::default() }
    }

    fn socket(path: &Path) -> Result<(OwnFile, UnixDatagram), String> {
        make(path, OwnFileKind::Socket, &access(), || UnixDatagram::bind(path))
    }

    fn fifo(path: &Path) -> Result<(OwnFile, ()), String> {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        make(path, OwnFileKind::Fifo, &access(), || {
            Ok(rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)?)
        })
    }

    #[test]
    fn others_files_are_left_alone() {
        let folder = Folder::new("own_file");
        let path = folder.0.join("file");
        std::fs::write(&path, "kept").unwrap();
        assert!(socket(&path).unwrap_err().ends_with("is no socket: it is left alone"));
        assert!(fifo(&path).unwrap_err().ends_with("is no FIFO: it is left alone"));
        let link = folder.0.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(fifo(&link).unwrap_err().contains("is no FIFO"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        let missing = folder.0.join("missing/fifo");
        assert!(fifo(&missing).unwrap_err().ends_with("(its folder is missing)"));
    }

    #[test]
    fn what_is_used_is_not_taken_and_what_is_left_is() {
        let folder = Folder::new("own_file_used");
        let path = folder.0.join("socket");
        let first = socket(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(socket(&path).unwrap_err().ends_with("another server uses it"));
        // After a kill the name is there and nobody listens.
        drop(first.1);
        let second = socket(&path).unwrap();
        // Who is killed takes nothing away.
        std::mem::forget(first.0);
        drop(second);
        assert!(!path.exists());

        let path = folder.0.join("fifo");
        let first = fifo(&path).unwrap();
        let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert!(fifo(&path).unwrap_err().ends_with("another server uses it"));
        drop(reader);
        let second = fifo(&path).unwrap();
        std::mem::forget(first);
        drop(second);
        assert!(!path.exists());
    }
}
