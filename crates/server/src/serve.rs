//! The running server: binds, starts the workers, waits for signals, lets calls finish, ends.

use crate::cli::Run;
use crate::log::Logger;
use crate::mailbox::Post;
use crate::pid_file::PidFile;
use crate::runner::{self, Bound, Setup};
use crate::settings;
use crate::streams::{self, Common, Switchboard};
use host::Shared;
use host::shared::Dispatch;
use host::status::MAIN;
use net::dns::DnsCache;
use net::tcp::BoundTcp;
use net::{BoundUdp, Sharing, UdpOptions, process};
use sip::Transport;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// The server could not start; the text is for the operator.
pub struct Failed(pub String);

/// How much of the time to end is left for CANCELs, and for what is answered to them.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long modules get for their last writes once no call is open: a database may be locked for a backup.
const LAST_WRITES: Duration = Duration::from_secs(30);
/// How long a worker thread gets to end.
const LAST_STEP: Duration = Duration::from_secs(2);

/// Runs a checked configuration until the server is told to stop.
pub fn serve(shared: Shared, run: &Run, started: Instant) -> Result<ExitCode, Failed> {
    let globals = &shared.globals;
    let place = settings::place(run, globals);
    // Names of users are looked up before chroot hides the files they stand in.
    let user = place.user.as_deref().map(|name| known(process::user(name), "user", name)).transpose()?;
    let group = place.group.as_deref().map(|name| known(process::group(name), "group", name)).transpose()?;
    let settings::Workers { count: workers, asked } = settings::workers(run, globals, settings::cores());
    process_clock();
    // Elsewhere a path of a database names another file than the workers will see.
    if place.chroot.is_none() && place.directory.is_none() {
        crate::proofs::hold(&shared).map_err(Failed)?;
    }
    let options = settings::udp_options(run, globals);
    let common = Common::new(&shared, options.tos).map_err(|e| Failed(format!("cannot listen on {e}")))?;
    let (sockets, notes) = bind(&shared, workers, &options, &common)?;
    crate::reload::offer(&shared, run);
    enter(&place)?;
    let mut pid_files = Vec::new();
    for path in [&run.pid_file, &run.pgid_file].into_iter().flatten() {
        pid_files.push(PidFile::open(path).map_err(Failed)?);
    }
    let limited = limits(&shared);
    process::become_user(user.as_ref(), group)
        .map_err(|e| Failed(format!("cannot become user {:?}, group {:?}: {e}", place.user, place.group)))?;
    for open in &shared.hooks.openings {
        open().map_err(Failed)?;
    }
    if run.daemon {
        process::daemonize().map_err(|e| Failed(format!("cannot go into the background: {e}")))?;
    }
    // Threads do not follow into the background, so the writer starts here.
    let logger = Logger::start(settings::logging(run, globals))
        .map_err(|e| Failed(format!("cannot start the log thread: {e}")))?;
    logger.install();
    for text in limited {
        host::warn!("core", "{text}");
    }
    if let Some(asked) = asked {
        host::notice!(
            "core",
            "the script asks for {asked} workers, {workers} run: a worker never waits, so more of them than cores only \
             cost (the switch -n starts as many as it says)"
        );
    }
    for text in notes {
        host::notice!("core", "{text}");
    }
    for file in &mut pid_files {
        file.write().map_err(Failed)?;
    }
    let code = run_workers(shared, run, sockets, common, started);
    logger.flush();
    code
}

fn known<T>(found: Option<T>, what: &str, name: &str) -> Result<T, Failed> {
    found.ok_or_else(|| Failed(format!("there is no {what} {name}")))
}

/// Limits of the process; what could not be had.
fn limits(shared: &Shared) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(files) = u64::try_from(shared.globals.core.open_files_limit).ok().filter(|n| *n > 0) {
        match process::limit_open_files(files) {
            Ok(granted) if granted < files => {
                problems.push(format!("open_files_limit: {granted} of {files} files were granted"));
            }
            Ok(_) => {}
            Err(e) => problems.push(format!("open_files_limit has no effect: {e}")),
        }
    }
    if shared.globals.core.disable_core_dump
        && let Err(e) = process::disable_core_dump()
    {
        problems.push(format!("disable_core_dump has no effect: {e}"));
    }
    problems
}

/// Local time for log lines and scripts; again later, when clocks change for summer.
fn process_clock() {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    host::clock::set_utc_offset(process::utc_offset(unix));
}

/// Sockets of one worker, by index in `Shared::sockets`.
type Sockets = Vec<Bound>;

/// Sockets of all workers, all or nothing; and what the operator should know about them.
fn bind(
    shared: &Shared,
    workers: u16,
    options: &UdpOptions,
    common: &Common,
) -> Result<(Vec<Sockets>, Vec<String>), Failed> {
    let mut clamped = None;
    let failed = |text: &str, e: io::Error| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => " (is another server running there?)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has this address)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 need privilege)",
            _ => "",
        };
        Failed(format!("cannot listen on {text}: {e}{hint}"))
    };
    let tcp = &common.settings.tcp;
    for listen in &shared.sockets {
        // Alone first: sharing an address with the workers of another server would split the calls.
        if listen.transport != Transport::Udp {
            BoundTcp::bind(listen.addr, tcp, Sharing::Exclusive).map_err(|e| failed(&listen.text, e))?;
            continue;
        }
        let alone = UdpOptions { sharing: Sharing::Exclusive, ..options.clone() };
        let trial = BoundUdp::bind(listen.addr, &alone).map_err(|e| failed(&listen.text, e))?;
        if let Some(granted) = trial.receive_buffer_clamped() {
            clamped = Some(format!(
                "the system granted a receive buffer of {granted} bytes for {}, {} were asked for; raise \
                 net.core.rmem_max so that bursts are not lost",
                listen.text, options.receive_buffer
            ));
        }
    }
    let bind = |listen: &host::Listen| match listen.transport {
        Transport::Udp => BoundUdp::bind(listen.addr, options).map(Bound::Udp),
        _ => BoundTcp::bind(listen.addr, tcp, Sharing::Workers).map(Bound::Stream),
    };
    let bind = |listen: &host::Listen| bind(listen).map_err(|e| failed(&listen.text, e));
    let all = (0..workers).map(|_| shared.sockets.iter().map(bind).collect());
    let all = all.collect::<Result<Vec<Sockets>, _>>()?;
    let unsteered = all.first().and_then(|first| steer(first, workers));
    Ok((all, clamped.into_iter().chain(unsteered).collect()))
}

/// Lets the kernel bring each datagram to the worker of its call; what the operator should know when it does not.
fn steer(sockets: &Sockets, workers: u16) -> Option<String> {
    let udp = sockets.iter().filter(|_| workers > 1).filter_map(|socket| match socket {
        Bound::Udp(socket) => Some(socket),
        Bound::Stream(_) => None,
    });
    let refused = udp.fold(None, |refused, socket| socket.steer(workers.into()).err().or(refused))?;
    Some(format!(
        "the system does not choose workers by Call-ID ({refused}): messages that come to another worker than their \
         call's take a moment more"
    ))
}

fn enter(place: &settings::Place) -> Result<(), Failed> {
    let failed = |what: &str, path: &Path, e: io::Error| Failed(format!("{what} {}: {e}", path.display()));
    if let Some(root) = &place.chroot {
        std::os::unix::fs::chroot(root).map_err(|e| failed("cannot make the root", root, e))?;
        std::env::set_current_dir("/").map_err(|e| failed("cannot enter", root, e))?;
    }
    if let Some(directory) = &place.directory {
        std::env::set_current_dir(directory).map_err(|e| failed("cannot work in", directory, e))?;
    }
    Ok(())
}

fn run_workers(
    shared: Shared,
    run: &Run,
    sockets: Vec<Sockets>,
    common: Common,
    started: Instant,
) -> Result<ExitCode, Failed> {
    streams::show(&shared, &common.directory);
    if shared.sockets.iter().any(host::shared::Listen::is_wildcard) {
        let all = net::interfaces().unwrap_or_default();
        shared.local_addresses.write().extend(all.iter().map(|interface| interface.addr));
    }
    let shared = Arc::new(shared);
    let post = Arc::new(Post::new(sockets.len()));
    let _ = shared.dispatch.set(post.clone());
    let _ = shared.arguments.set(std::env::args().collect());
    // Before the workers: no moment in which a signal would kill half a server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failed(format!("cannot make the runtime: {e}")))?;
    let signals = runtime.block_on(async { Signals::install() });
    let mut signals = signals.map_err(|e| Failed(format!("cannot handle signals: {e}")))?;
    let threads = start(&shared, &post, sockets, common)?;
    say_hello(&shared, run, threads.len(), started);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    shared.status.report("core", MAIN, shared.started_ms / 1000, "initializing");
    shared.status.report("core", MAIN, now, "initialization completed, ready now");
    shared.status.set("core", MAIN, 1, "running");
    let code = runtime.block_on(async {
        for service in &shared.hooks.services {
            tokio::spawn(service(shared.clone()));
        }
        tokio::spawn(watch_local_time());
        tokio::spawn(forget_the_start(post.clone()));
        tokio::spawn(crate::load::watch(shared.stats.clone(), post.boxes.len()));
        until_the_end(&shared, &post, &mut signals, Duration::from_secs(run.grace)).await
    });
    runtime.shutdown_background();
    drop(threads);
    host::notice!("core", "ended");
    Ok(ExitCode::from(code as u8))
}

fn start(
    shared: &Arc<Shared>,
    post: &Arc<Post>,
    sockets: Vec<Sockets>,
    common: Common,
) -> Result<Vec<JoinHandle<io::Result<()>>>, Failed> {
    let (epoch, random) = (Instant::now(), RandomState::new());
    let switchboard = Switchboard { common: common.clone(), post: post.clone(), epoch };
    shared.set_connections(Arc::new(switchboard));
    let (dns, cache) = (settings::dns_options(shared), DnsCache::default());
    let threads = sockets.into_iter().enumerate().map(|(index, sockets)| {
        let (shared, post, index) = (shared.clone(), post.clone(), index as u16);
        let setup = Setup {
            shared,
            index,
            seed: random.hash_one(index),
            sockets,
            streams: common.clone(),
            post,
            epoch,
            dns: dns.clone(),
            cache: cache.clone(),
        };
        std::thread::Builder::new().name(format!("worker {index}")).spawn(move || runner::run(setup))
    });
    let threads: io::Result<Vec<_>> = threads.collect();
    threads.map_err(|e| Failed(format!("cannot start a worker thread: {e}")))
}

fn say_hello(shared: &Shared, run: &Run, workers: usize, started: Instant) {
    let sources = shared.sources();
    for warning in &shared.warnings {
        host::warn!("core", "{}", sources.render(warning).trim_end());
    }
    for letter in run.without_effect.given() {
        host::notice!("core", "the switch -{letter} has no effect here");
    }
    let sockets: Vec<&str> = shared.sockets.iter().map(|s| s.text.as_str()).collect();
    let (version, ms) = (host::mi::VERSION, started.elapsed().as_millis());
    let s = if workers == 1 { "" } else { "s" };
    host::notice!(
        "core",
        "{version} listens on {} with {workers} worker{s}, after {ms} ms",
        sockets.join(", ")
    );
}

/// Once the workers take messages, what only the start needed of the program is let go.
async fn forget_the_start(post: Arc<Post>) {
    let _ = post.started.subscribe().wait_for(|started| *started).await;
    process::forget_the_start();
}

async fn watch_local_time() {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        process_clock();
    }
}

/// Waits for a reason to end, ends, and returns the exit code.
async fn until_the_end(
    shared: &Arc<Shared>,
    post: &Arc<Post>,
    signals: &mut Signals,
    grace: Duration,
) -> i32 {
    let told = tokio::select! {
        name = signals.end() => {
            host::notice!("core", "{name}: new requests are refused, running calls get {} s", grace.as_secs());
            None
        }
        told = post.main.wait(|told| told.shut_down.is_some()) => told.shut_down,
    };
    let code = told.unwrap_or(0);
    shared.status.set("core", MAIN, -2, "shutting down");
    let workers = post.boxes.len();
    if code == 0 {
        post.boxes.iter().for_each(|mailbox| mailbox.drain());
        tokio::select! {
            name = signals.end() => {
                host::notice!("core", "{name} again: ending at once");
                end(post).await;
                return code;
            }
            () = let_finish(post, workers, grace) => {}
        }
    }
    last_writes(shared, post).await;
    end(post).await;
    code
}

/// Waits until nothing is open. What is still open shortly before the end of the time hears that it is over.
async fn let_finish(post: &Arc<Post>, workers: usize, grace: Duration) {
    let idle = |told: &crate::mailbox::Told| told.idle >= workers;
    let farewell = (grace / 5).min(FAREWELL);
    if post.main.wait_at_most(grace - farewell, idle).await.is_some() {
        return;
    }
    host::warn!(
        "core",
        "some calls did not finish in {} s: they are refused or cancelled now",
        grace.as_secs()
    );
    post.boxes.iter().for_each(|mailbox| mailbox.end());
    post.main.wait_at_most(farewell, idle).await;
}

/// `Hooks::stop`, on worker 0, and what they started.
async fn last_writes(shared: &Arc<Shared>, post: &Arc<Post>) {
    if shared.hooks.stop.is_empty() {
        return;
    }
    let hooks = shared.clone();
    post.main.tell(|told| told.idle = 0);
    let queued = post.run_on(
        0,
        Box::new(move |ctx| {
            for hook in &hooks.hooks.stop {
                hook(ctx);
            }
        }),
    );
    post.boxes[0].drain();
    if queued && post.main.wait_at_most(LAST_WRITES, |told| told.idle >= 1).await.is_none() {
        host::warn!("core", "the last writes of modules did not finish in {} s", LAST_WRITES.as_secs());
    }
}

async fn end(post: &Arc<Post>) {
    let workers = post.boxes.len();
    post.boxes.iter().for_each(|mailbox| mailbox.stop());
    post.main.wait_at_most(LAST_STEP, |told| told.ended >= workers).await;
}

/// Signals the server reacts to.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    user: [tokio::signal::unix::Signal; 2],
}

impl Signals {
    fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for a signal that ends the server; its name. The others are logged and ignored.
    async fn end(&mut self) -> &'static str {
        loop {
            let [user1, user2] = &mut self.user;
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => "SIGHUP",
                _ = user1.recv() => "SIGUSR1",
                _ = user2.recv() => "SIGUSR2",
            };
            host::notice!(
                "core",
                "{ignored} is ignored; a script is read again with the command reload_routes"
            );
        }
    }
}
