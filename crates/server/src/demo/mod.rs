//! `fermata demo`: a server with one worker, a script that asks a database and a slow HTTP service for
//! every call, and a built-in user agent that places many calls at once. Ends with a picture.
//!
//! The server is this program, started again as a process of its own: what is shown is what an operator
//! would get, watched through the management interface that operators use.

mod agent;
mod picture;
mod script;
mod service;
mod watch;

use crate::CANNOT_START;
use agent::{Caller, Calls, Outcome};
use picture::Picture;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What `fermata demo` was asked for.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// Calls to place
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub calls: u32,
    /// Calls that start in one second
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub rate: u32,
    /// The HTTP service answers each request after a time up to this, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub slowest: u64,
    /// Print the script that runs, and stop
    #[arg(long)]
    pub script: bool,
}

/// No call takes longer, whatever goes wrong.
const CALL_LIMIT: Duration = Duration::from_secs(30);
const START_LIMIT: Duration = Duration::from_secs(10);

/// Shows it; the exit code is 1 when a call failed.
pub fn run(options: &Options) -> ExitCode {
    if options.script {
        print!("{}", script::text(&script::Places::example()));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, show(options))
    });
    match shown {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("fermata demo: {text}");
            ExitCode::from(CANNOT_START)
        }
    }
}

/// The number of calls that failed.
async fn show(options: &Options) -> Result<usize, String> {
    let folder = Folder::new()?;
    let called = agent::Called::start().await.map_err(|e| format!("cannot open a socket: {e}"))?;
    let http =
        service::start(options.slowest).await.map_err(|e| format!("cannot start the HTTP service: {e}"))?;
    let places = script::Places {
        sip: free_address()?,
        management: free_tcp_port()?,
        called: called.address,
        http,
        database: folder.0.join("routes.sqlite"),
    };
    let file = folder.0.join("demo.cfg");
    let text = script::text(&places);
    std::fs::write(&file, &text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    println!("{}", script::excerpt(&text));
    let mut server = Server::start(&file, &folder.0)?;
    let caller = Caller::start(places.sip).await.map_err(|e| format!("cannot open a socket: {e}"))?;
    server.wait_until_it_answers(&caller).await?;

    let started = Instant::now();
    let watch = watch::start(places.management, started);
    let prober = agent::probe(caller.clone());
    let calls = caller.place(options.calls, options.rate, CALL_LIMIT);
    let progress = tokio::task::spawn_local(progress(calls.clone(), watch.seen.clone(), options.calls));
    let outcomes = calls.finished().await;
    progress.abort();
    finish_line();
    let elapsed = started.elapsed();
    let options_times = prober.stop();
    let seen = watch.stop();
    let failed = outcomes.iter().filter(|o| !matches!(o, Outcome::Answered(_))).count();
    print!("{}", Picture { outcomes: &outcomes, seen: &seen, elapsed, probes: &options_times }.draw());
    if failed > 0 {
        eprintln!("\nthe log of the server:\n{}", server.log());
    }
    Ok(failed)
}

/// One line that changes while calls run; on no terminal, nothing.
async fn progress(calls: Rc<Calls>, seen: Rc<std::cell::RefCell<watch::Seen>>, total: u32) {
    if !std::io::stdout().is_terminal() {
        return;
    }
    loop {
        let (placed, done) = calls.counts();
        let waiting = seen.borrow().now();
        print!("\r{}", picture::progress(placed, done, total as usize, waiting));
        let _ = std::io::stdout().flush();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn finish_line() {
    if std::io::stdout().is_terminal() {
        print!("\r{:78}\r", "");
    }
}

/// A folder that is removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, String> {
        let path = std::env::temp_dir().join(format!("fermata-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The server's process; ended with this one.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn start(file: &Path, folder: &Path) -> Result<Server, String> {
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        let log = folder.join("log");
        let out = std::fs::File::create(&log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let mut command = Command::new(program);
        command.arg("-f").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        let child = command.spawn().map_err(|e| format!("cannot start the server: {e}"))?;
        Ok(Server { child, log })
    }

    async fn wait_until_it_answers(&mut self, caller: &Rc<Caller>) -> Result<(), String> {
        let limit = Instant::now() + START_LIMIT;
        while Instant::now() < limit {
            if caller.ask(Duration::from_millis(50)).await.is_some() {
                return Ok(());
            }
            if let Ok(Some(code)) = self.child.try_wait() {
                return Err(format!("the server ended with {code}:\n{}", self.log()));
            }
        }
        Err(format!("the server does not answer:\n{}", self.log()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> Result<SocketAddr, String> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    socket.and_then(|s| s.local_addr()).map_err(|e| format!("no free UDP port: {e}"))
}

fn free_tcp_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener.and_then(|l| l.local_addr()).map(|a| a.port()).map_err(|e| format!("no free TCP port: {e}"))
}
