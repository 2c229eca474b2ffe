//! Files with the process number (`-P`, `-G`): one server for each, found out before anything is started.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A file with the process number; gone when the server ends.
pub struct PidFile {
    path: PathBuf,
    file: File,
    /// Its text was replaced by ours.
    written: bool,
}

impl PidFile {
    /// Opens the file while the server still may, and looks whether the process that it names runs. The error is what the
    /// operator should read.
    pub fn open(path: &Path) -> Result<PidFile, String> {
        let failed = |e: std::io::Error| format!("cannot write the PID file {}: {e}", path.display());
        // Not emptied: it may be that of a server that runs.
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(failed)?;
        let mut text = String::new();
        // What is no text is no number either.
        let _ = (&mut file).take(64).read_to_string(&mut text);
        if let Some(pid) = text.trim().parse::<i32>().ok().filter(|pid| is_other(*pid)) {
            return Err(format!(
                "process {pid} runs, which the PID file {} names: end it first, or remove the file when that is no server",
                path.display()
            ));
        }
        Ok(PidFile { path: path.to_owned(), file, written: false })
    }

    /// Puts the number of this process in, which a daemon has only in the background.
    pub fn write(&mut self) -> Result<(), String> {
        let text = format!("{}\n", std::process::id());
        let written = self.file.set_len(0).and_then(|()| self.file.rewind());
        let written = written.and_then(|()| self.file.write_all(text.as_bytes()));
        self.written = true;
        written.map_err(|e| format!("cannot write the PID file {}: {e}", self.path.display()))
    }
}

/// A process of this number runs and is not this one, which a container often starts under the same number again.
fn is_other(pid: i32) -> bool {
    let Some(process) = Some(pid).filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    pid.unsigned_abs() != std::process::id()
        && !matches!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // An empty one of ours, when the start failed, goes too; without the right to remove it, it stays.
        let empty = self.file.metadata().is_ok_and(|meta| meta.len() == 0);
        if self.written || empty {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_for_a_file() {
        let folder = testing::Folder::new("pid_file");
        let path = folder.0.join("pid");
        for (before, taken) in [
            (None, true),
            (Some("junk\n"), true),
            (Some("0\n"), true),
            (Some("1\n"), false),
            (Some("-1\n"), true),
        ] {
            let _ = std::fs::remove_file(&path);
            if let Some(text) = before {
                std::fs::write(&path, text).unwrap();
            }
            match PidFile::open(&path) {
                Ok(mut file) => {
                    assert!(taken, "{before:?}");
                    file.write().unwrap();
                    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
                    drop(file);
                    assert!(!path.exists(), "{before:?}");
                }
                Err(text) => {
                    assert!(!taken && text.contains("process 1 runs"), "{text}");
                    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
                }
            }
        }
        assert!(PidFile::open(&folder.0.join("missing/pid")).is_err());
    }
}
