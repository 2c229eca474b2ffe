//! The mailboxes between simulated workers.

use host::Ctx;
use host::shared::Dispatch;
use std::sync::{Arc, Mutex};

pub type Job = Box<dyn FnOnce(&mut Ctx) + Send>;

/// Jobs that workers gave each other and nobody has carried yet.
#[derive(Default)]
pub struct Post {
    workers: usize,
    jobs: Mutex<Vec<(usize, Job)>>,
}

impl Post {
    pub fn new(workers: usize) -> Arc<Post> {
        Arc::new(Post { workers, jobs: Mutex::default() })
    }

    /// What was asked since the last time: for which worker, and what; in the order of asking.
    pub fn take(&self) -> Vec<(usize, Job)> {
        self.jobs.lock().map(|mut jobs| std::mem::take(&mut *jobs)).unwrap_or_default()
    }
}

impl Dispatch for Post {
    fn workers(&self) -> usize {
        self.workers
    }

    fn run_on(&self, worker: usize, job: Job) -> bool {
        let known = worker < self.workers;
        if let (true, Ok(mut jobs)) = (known, self.jobs.lock()) {
            jobs.push((worker, job));
        }
        known
    }

    fn shut_down(&self) {}
}
