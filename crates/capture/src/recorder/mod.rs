//! recorder: keeps what the workers hear from outside, so that `fermata replay` can run a call again. Of this server
//! only; the reference has no such module. docs/RECORDING.md is the user's page.
//!
//! ```text
//!  Worker::step, answers ─► host::tape ─► ring (one a worker, bounded) ─► recorder:save ─► file ─► sim::replay
//!                                            └─ directory: full segments, by a thread
//! ```

pub mod format;
mod mask;
pub mod reloads;
mod ring;
pub mod spill;

use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::shared::Shared;
use host::taped::{OnReload, Reloaded, TapeMaker};
use host::{Call, Ctx, Registrar};
use parking_lot::Mutex;
use ring::{Common, Recorder, Ring};
use serde_json::json;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Megabytes of one worker.
const DEFAULT_MEGABYTES: usize = 64;

pub struct Rings {
    common: Arc<Common>,
    megabytes: usize,
    directory: Option<String>,
    masks: bool,
    enabled: bool,
    rings: Mutex<Vec<(u16, Arc<Ring>)>>,
    /// Other routes, and which step they came before.
    reloads: Arc<Mutex<Vec<(u64, Reloaded)>>>,
    spill: Mutex<Option<Arc<spill::Folder>>>,
}

impl Default for Rings {
    fn default() -> Rings {
        Rings {
            common: Arc::default(),
            megabytes: DEFAULT_MEGABYTES,
            directory: None,
            masks: false,
            enabled: false,
            rings: Mutex::default(),
            reloads: Arc::default(),
            spill: Mutex::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Rings>) {
    m.param_int("enabled", |s, on| {
        s.enabled = on != 0;
        Ok(())
    });
    m.param_int("size", |s, megabytes| {
        s.megabytes =
            usize::try_from(megabytes).ok().filter(|n| *n > 0).ok_or("it is a number of megabytes")?;
        Ok(())
    });
    m.param_text("directory", |s, path| {
        s.directory = Some(path.to_string());
        Ok(())
    });
    m.param_int("mask_credentials", |s, on| {
        s.masks = on != 0;
        Ok(())
    });
    m.init(|s, _| {
        s.common = Arc::new(Common { on: s.enabled.into(), masks: s.masks, ..Common::default() });
        Ok(())
    });
    m.ready(|module, hooks, stats| {
        let common = module.common.clone();
        stats.computed("recorder", "dropped_segments", move || common.dropped.load(Ordering::Relaxed) as i64);
        let rings = module.clone();
        stats.computed("recorder", "recorded_bytes", move || rings.bytes() as i64);
        let (common, reloads) = (module.common.clone(), module.reloads.clone());
        hooks.list::<OnReload>().push(OnReload(Arc::new(move |reloaded| {
            let order = common.order.fetch_add(1, Ordering::Relaxed);
            reloads.lock().push((order, reloaded.clone()));
        })));
        let module = module.clone();
        hooks
            .list::<TapeMaker>()
            .push(TapeMaker(Arc::new(move |shared, worker| Rc::new(Recorder(module.ring(shared, worker))))));
    });
    m.stop(|call| {
        if let Some(folder) = &*call.module.spill.lock() {
            call.module.spill_rest(folder);
            folder.flush();
        }
    });
    m.command("recorder:start", "records from now on", |call: &mut Call<Rings>, _: &MiParams| {
        call.module.common.on.store(true, Ordering::Relaxed);
        Ok(json!("OK"))
    })
    .takes("");
    m.command(
        "recorder:stop",
        "records no more; what there is stays",
        |call: &mut Call<Rings>, _: &MiParams| {
            call.module.common.on.store(false, Ordering::Relaxed);
            Ok(json!("OK"))
        },
    )
    .takes("");
    m.command("recorder:status", "says whether it records, and how much there is", status).takes("");
    m.command_late("recorder:save", "writes what there is to a file, for `fermata replay`", save)
        .takes("file");
}

impl Rings {
    /// The ring of a worker.
    fn ring(&self, shared: &Shared, worker: u16) -> Arc<Ring> {
        let folder = self.directory.as_deref().and_then(|path| self.folder(shared, path));
        let spill = folder.map(|folder| folder.spill(worker));
        let ring = Arc::new(Ring::new(self.common.clone(), self.megabytes << 20, spill));
        self.rings.lock().push((worker, ring.clone()));
        ring
    }

    fn folder(&self, shared: &Shared, path: &str) -> Option<Arc<spill::Folder>> {
        let mut slot = self.spill.lock();
        if slot.is_none() {
            let workers = shared.dispatch.get().map_or(1, |dispatch| dispatch.workers());
            let limit = (self.megabytes as u64) << 20;
            match spill::Folder::open(
                Path::new(path),
                &format::head(shared, workers, self.masks, &[]),
                limit * workers as u64,
            ) {
                Ok(folder) => *slot = Some(Arc::new(folder)),
                Err(e) => host::error!("recorder", "cannot write to {path}, the memory is used instead: {e}"),
            }
        }
        slot.clone()
    }

    /// Hands the unfinished segments to the folder; they are written again when they are whole.
    fn spill_rest(&self, folder: &spill::Folder) {
        for (worker, ring) in self.rings.lock().iter() {
            let (number, bytes) = ring.unfinished();
            folder.write(*worker, number, Arc::new(bytes));
        }
    }

    fn bytes(&self) -> usize {
        self.rings.lock().iter().map(|(_, ring)| ring.len()).sum()
    }

    /// Everything there is, as a file holds it.
    pub fn written(&self, shared: &Shared) -> Vec<u8> {
        let rings = self.rings.lock().clone();
        let reloads = self.reloads.lock().clone();
        let mut out = format::preamble(&format::head(shared, rings.len(), self.masks, &reloads));
        for (worker, ring) in rings {
            for (label, bytes) in ring.segments(worker) {
                out.extend(label);
                out.extend_from_slice(&bytes);
            }
        }
        out
    }
}

fn status(call: &mut Call<Rings>, _: &MiParams) -> MiResult {
    let module = &call.module;
    Ok(json!({
        "recording": module.common.on.load(Ordering::Relaxed),
        "bytes": module.bytes(),
        "size": module.megabytes << 20,
        "workers": module.rings.lock().len(),
        "dropped_segments": module.common.dropped.load(Ordering::Relaxed),
        "masked": module.masks,
        "directory": module.directory,
    }))
}

fn save(call: &mut Call<Rings>, params: &MiParams, answer: MiAnswer) {
    let path = match params.need("file", 0) {
        Ok(path) => path,
        Err(e) => return answer.give(Err(e)),
    };
    let (module, shared) = (call.module.clone(), call.shared().clone());
    let work = tokio::task::spawn_blocking(move || {
        if let Some(folder) = &*module.spill.lock() {
            module.spill_rest(folder);
            return folder.gather(Path::new(&path)).map_err(|e| (path, e));
        }
        let bytes = module.written(&shared);
        spill::write_private(Path::new(&path), &bytes).map(|()| bytes.len() as u64).map_err(|e| (path, e))
    });
    call.spawn("recorder:save", 120_000, async move {
        let done = work.await;
        Box::new(move |_: &mut Ctx| {
            answer.give(match done {
                Ok(Ok(bytes)) => Ok(json!({"bytes": bytes})),
                Ok(Err((path, e))) => Err(MiError::internal(format!("cannot write {path}: {e}"))),
                Err(_) => Err(MiError::internal("the recording could not be written")),
            });
            1
        }) as host::Finish
    });
}
