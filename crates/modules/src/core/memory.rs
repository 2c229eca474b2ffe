//! Memory: statistics of the process, and the commands by which the reference inspects its own pools. There are
//! no pools here; the commands log what the process uses.

use super::Core;
use host::mi::MiResult;
use host::shared::Hooks;
use host::stats::Stats;
use host::{Call, Registrar};
use serde_json::json;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Core>) {
    m.command("mem:shm_dump mem_shm_dump", "logs the memory in use", dump).takes("[log_level]");
    m.command("mem:pkg_dump mem_pkg_dump", "logs the memory in use", dump).takes("pid [log_level]");
    m.command("mem:rpm_dump mem_rpm_dump", "logs the memory in use", dump).takes("[log_level]");
    m.command("mem:shm_check shm_check", "there is no pool to check", |_, _| Ok(json!({}))).takes("");
    m.ready(ready);
}

fn dump(_: &mut Call<Core>, _: &host::mi::MiParams) -> MiResult {
    let Memory { total, used, peak } = Memory::now();
    host::notice!("core", "memory: {used} bytes in use, {peak} at most so far, {total} in this machine");
    Ok(json!("OK"))
}

/// What the reference calls shared memory is the memory of the process here.
fn ready(_: &Arc<Core>, _: &mut Hooks, stats: &Stats) {
    type Read = fn(&Memory) -> i64;
    let all: [(&str, Read); 5] = [
        ("total_size", |m| m.total),
        ("used_size", |m| m.used),
        ("real_used_size", |m| m.used),
        ("max_used_size", |m| m.peak),
        ("free_size", |m| (m.total - m.used).max(0)),
    ];
    for (name, read) in all {
        stats.computed("shmem", name, move || read(&Memory::now()));
    }
}

/// Bytes.
struct Memory {
    /// Of the machine.
    total: i64,
    /// Resident, of this process.
    used: i64,
    /// The most that `used` has been.
    peak: i64,
}

impl Memory {
    fn now() -> Memory {
        let number = |file: &str, word: usize| -> i64 {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.split_whitespace().nth(word).and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0) * 1024;
        // /proc/meminfo begins "MemTotal: N kB"; statm's second number counts pages of 4 KiB.
        Memory { total: number("/proc/meminfo", 1) * 1024, used: number("/proc/self/statm", 1) * 4096, peak }
    }
}
