//! One command: its pipes, its process group, its end.

use bytes::Bytes;
use host::coded::Coded;
use host::worker::ops::note_refused;
use rustix::process::{Pid, Signal, kill_process_group};
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::future::pending;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// Output beyond this is not read, of each stream.
const MAX_OUTPUT: u64 = 1 << 20;
/// Commands that run at one time, in all workers.
const MAX_RUNNING: usize = 1000;
/// Between asking a process group to end and ending it.
const GRACE: Duration = Duration::from_secs(1);

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// What the caller waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Want {
    pub stdout: bool,
    pub stderr: bool,
    /// Its exit, too.
    pub exit: bool,
}

pub struct Command {
    /// For `/bin/sh -c`; with `args`, the program itself.
    pub text: Bytes,
    /// `Some`: no shell; each of these is one argument, whatever it holds.
    pub args: Option<Vec<Bytes>>,
    pub stdin: Bytes,
    /// Besides the server's own environment.
    pub env: Vec<(String, Bytes)>,
    pub want: Want,
}

#[derive(Debug, Default)]
pub struct Done {
    pub stdout: Bytes,
    pub stderr: Bytes,
    /// It ended with status 0; false when nobody waited for that.
    pub success: bool,
}

impl Coded for Done {
    fn put(&self, out: &mut Vec<u8>) {
        self.stdout.put(out);
        self.stderr.put(out);
        self.success.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Done> {
        Some(Done { stdout: Bytes::take(from)?, stderr: Bytes::take(from)?, success: bool::take(from)? })
    }
}

/// Ends the process groups whose scripts are gone; one a worker.
#[derive(Clone, Default)]
pub struct Undertaker(Rc<OnceCell<mpsc::UnboundedSender<Body>>>);

/// A running process group, led by the shell.
struct Body {
    child: Child,
    group: Option<Pid>,
}

impl Undertaker {
    fn sender(&self) -> mpsc::UnboundedSender<Body> {
        let start = || {
            let (sender, mut bodies) = mpsc::unbounded_channel::<Body>();
            spawn_local(async move {
                while let Some(body) = bodies.recv().await {
                    spawn_local(bury(body));
                }
            });
            sender
        };
        self.0.get_or_init(start).clone()
    }
}

/// The shell is not waited for before the last signal: until then nobody else can have its number.
async fn bury(mut body: Body) {
    sleep(GRACE).await;
    body.signal(Signal::KILL);
    let _ = body.child.wait().await;
}

impl Body {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

/// A process that must not outlive whoever waits for it.
struct Running {
    body: Option<Body>,
    undertaker: mpsc::UnboundedSender<Body>,
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        if let Some(body) = self.body.take() {
            body.signal(Signal::TERM);
            let _ = self.undertaker.send(body);
        }
    }
}

/// Runs a command. Dropped, it takes the process and its children along.
pub async fn run(command: Command, undertaker: &Undertaker) -> io::Result<Done> {
    if RUNNING.fetch_add(1, Ordering::Relaxed) >= MAX_RUNNING {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        note_refused();
        return Err(io::Error::other(format!("{MAX_RUNNING} commands run already")));
    }
    let mut running = Running { body: None, undertaker: undertaker.sender() };
    let want = command.want;
    let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    let mut program = match &command.args {
        None => {
            let mut shell = tokio::process::Command::new("/bin/sh");
            shell.arg("-c").arg(OsStr::from_bytes(&command.text));
            shell
        }
        Some(args) => {
            let mut program = tokio::process::Command::new(OsStr::from_bytes(&command.text));
            program.args(args.iter().map(|arg| OsStr::from_bytes(arg)));
            program
        }
    };
    let program = program
        .envs(command.env.iter().map(|(name, value)| (name, OsStr::from_bytes(value))))
        .stdin(pipe(!command.stdin.is_empty()))
        .stdout(pipe(want.stdout))
        .stderr(pipe(want.stderr))
        .process_group(0);
    let mut child = with_huge_pages(|| program.spawn())?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let body = running.body.insert(Body { child, group });
    let mut done = Done::default();
    {
        let wants_output = want.stdout || want.stderr;
        let read = async { tokio::join!(read(stdout), read(stderr)) };
        let feed = async {
            feed(stdin, &command.stdin).await;
            // What it prints decides, not what it reads.
            if wants_output {
                pending::<()>().await;
            }
        };
        tokio::select! {
            (stdout, stderr) = read, if wants_output => (done.stdout, done.stderr) = (stdout, stderr),
            () = feed => {}
        }
    }
    if want.exit || !(want.stdout || want.stderr) {
        done.success = body.child.wait().await?.success();
    }
    // It may go on after its last output; the runtime reaps it.
    running.body = None;
    Ok(done)
}

/// Starts a program with the memory that it would have anywhere: this one forgoes huge pages, and who is started here
/// would do so too.
fn with_huge_pages<T>(start: impl FnOnce() -> T) -> T {
    use rustix::thread::{disable_transparent_huge_pages as disable, transparent_huge_pages_are_disabled};
    let forgone = transparent_huge_pages_are_disabled().unwrap_or(false);
    // What the system refuses is no harm.
    let _ = forgone.then(|| disable(false));
    let started = start();
    let _ = forgone.then(|| disable(true));
    started
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Bytes {
    let mut out = Vec::new();
    if let Some(stream) = stream {
        // An error of the pipe ends the output like its end does.
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut out).await;
    }
    Bytes::from(out)
}

async fn feed(stdin: Option<ChildStdin>, text: &[u8]) {
    if let Some(mut stdin) = stdin {
        // A command that does not read its input is none of our concern.
        let _ = stdin.write_all(text).await;
    }
}
