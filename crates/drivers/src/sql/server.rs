//! Private database servers for the tests: own files, own ports, gone with the test.

use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[derive(Clone, Copy, PartialEq)]
pub enum ServerKind {
    MariaDb,
    Postgres,
}

pub struct Server {
    kind: ServerKind,
    home: PathBuf,
    pub port: u16,
    child: Option<Child>,
}

/// A program in PATH, or where Debian keeps those of PostgreSQL.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|v| v.path().join("bin")));
    }
    places.into_iter().map(|p| p.join(name)).find(|p| p.exists())
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// PostgreSQL refuses to run as root.
fn as_postgres(name: &str, home: &Path) -> Option<Command> {
    let program = program(name)?;
    let mut command = if rustix::process::geteuid().is_root() {
        let owned = Command::new("chown").arg("-R").arg("postgres").arg(home).status().ok()?;
        if !owned.success() {
            return None;
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // It looks around in its working directory.
    command.current_dir(home);
    Some(command)
}

impl Server {
    /// `None`: it is not installed here.
    pub fn new(kind: ServerKind) -> Option<Server> {
        let name = if kind == ServerKind::MariaDb { "mariadb" } else { "postgres" };
        let home = std::env::temp_dir().join(format!("fermata-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).ok()?;
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut server = Server { kind, home, port, child: None };
        if !server.install()? {
            return None;
        }
        server.start();
        Some(server)
    }

    fn data(&self) -> String {
        self.home.join("data").to_string_lossy().into_owned()
    }

    fn install(&self) -> Option<bool> {
        let data = self.data();
        let status = match self.kind {
            ServerKind::MariaDb => {
                program("mariadbd")?;
                let mut command = Command::new(program("mariadb-install-db")?);
                command.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                quiet(command.arg(format!("--datadir={data}")).args(self.user())).status()
            }
            ServerKind::Postgres => {
                std::fs::write(self.home.join("password"), "secret").ok()?;
                let mut command = as_postgres("initdb", &self.home)?;
                command.args(["-D", &data, "-U", "fermata", "-A", "scram-sha-256", "--no-sync"]);
                quiet(command.arg("--pwfile=password")).status()
            }
        };
        Some(status.is_ok_and(|s| s.success()))
    }

    fn user(&self) -> Vec<String> {
        if rustix::process::geteuid().is_root() { vec!["--user=root".to_string()] } else { Vec::new() }
    }

    pub fn start(&mut self) {
        let data = self.data();
        let home = self.home.to_string_lossy().into_owned();
        let mut command = match self.kind {
            ServerKind::MariaDb => {
                let mut command = Command::new(program("mariadbd").expect("was there"));
                command.arg("--no-defaults").args(self.user()).arg(format!("--datadir={data}"));
                command.arg(format!("--socket={home}/s")).arg(format!("--pid-file={home}/pid"));
                command.arg(format!("--port={}", self.port)).arg("--bind-address=127.0.0.1");
                // A user without password, who may come by TCP.
                command.arg("--skip-grant-tables").arg("--skip-name-resolve");
                command
            }
            ServerKind::Postgres => {
                let mut command = as_postgres("postgres", &self.home).expect("was there");
                command.args(["-D", &data, "-p", &self.port.to_string(), "-k", &home]);
                command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
                command
            }
        };
        self.child = Some(quiet(&mut command).spawn().expect("starts"));
    }

    /// Ends it at once; clients see their connections break.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_child(&child);
        let signal = if self.kind == ServerKind::MariaDb { Signal::KILL } else { Signal::QUIT };
        let _ = kill_process(pid, signal);
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}
