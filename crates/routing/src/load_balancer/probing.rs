//! Probes of destinations, their states, and what is done each second.

use super::data::{Dst, ProbeMode};
use super::{EVENT, LoadBalancer};
use crate::destinations::{CSEQ_FIRST, Destination, Heard, Member, State, refresh};
use host::events::{self, EventParams};
use host::{Call, Ctx, Value};
use std::sync::Arc;

/// Probes that are sent in one step; the next follow some milliseconds later.
const AT_ONCE: usize = 500;
const PAUSE_MS: u64 = 10;
/// How often names are looked up again.
const REFRESH_S: u64 = 60;
/// How often a table is read again that could not be read, or whose names have no address.
const RETRY_S: u64 = 10;

/// Each second, on worker 0.
pub fn tick(call: &mut Call<LoadBalancer>) {
    let module = call.module.clone();
    let data = module.data.get();
    if module.retries.due(call.ctx, RETRY_S) {
        module.complete(call.ctx);
    }
    let Some(data) = data else { return };
    if module.cluster_id > 0 {
        let name = format!("lb_states_{}", module.cluster_id);
        let member = |dst: &Dst| Member {
            name: dst.id.to_string().into(),
            standing: dst.to.standing.clone(),
            of: dst.to.clone(),
        };
        let members = data.dsts.iter().map(member).collect();
        let hears = module.clone();
        module.states.exchange(call.ctx, "load_balancer", name, members, move |ctx, member, state| {
            let Some(data) = hears.data.get() else { return };
            if let Some(dst) = data.dsts.iter().find(|dst| Arc::ptr_eq(&dst.to, &member.of)) {
                hears.change(ctx, dst, state, "another server of the cluster says so");
            }
        });
    }
    if module.refreshes.due(call.ctx, REFRESH_S) {
        let all = data.dsts.iter().map(|dst| dst.to.clone()).collect();
        let module = module.clone();
        refresh(call.ctx, all, move |ctx| fill_blacklists(ctx, &module));
    }
    if module.probes.due(call.ctx, module.probing_interval) && module.probes_here(call.ctx) {
        let wanted = |dst: &&Dst| match (dst.to.state(), dst.probe) {
            (State::Inactive, _) => false,
            (_, ProbeMode::Always) => true,
            (state, mode) => mode == ProbeMode::WhenDisabled && state == State::Probing,
        };
        let due = data.dsts.iter().filter(wanted).map(|dst| (dst.id, dst.to.clone())).collect();
        send(call.ctx, &module, due);
    }
}

fn send(ctx: &mut Ctx, module: &Arc<LoadBalancer>, mut due: Vec<(i64, Arc<Destination>)>) {
    let later = due.split_off(due.len().min(AT_ONCE));
    for (id, to) in due {
        let module = module.clone();
        let probe = module.probe.clone();
        probe.send_numbered(ctx, &to, CSEQ_FIRST, move |ctx, _, heard| module.heard(ctx, id, heard));
    }
    if !later.is_empty() {
        let module = module.clone();
        ctx.after(PAUSE_MS, move |ctx| send(ctx, &module, later));
    }
}

impl LoadBalancer {
    /// Reads a table that could not be read, or one in which a name has an address now that had none.
    fn complete(self: &Arc<Self>, ctx: &mut Ctx) {
        let Some(data) = self.data.get() else { return self.load(ctx, |_, _| ()) };
        let module = self.clone();
        refresh(ctx, data.pending.clone(), move |ctx| {
            if data.pending.iter().any(|destination| destination.is_known()) {
                module.load(ctx, |_, _| ());
            }
        });
    }

    /// An answer to a probe: a good one brings the destination back, one from 400 on disables it.
    fn heard(&self, ctx: &mut Ctx, id: i64, heard: Heard) {
        let Some(data) = self.data.get() else { return };
        let Some(dst) = data.by_id(id) else { return };
        let status = heard.status;
        if status == 200 || self.good_codes.has(status) {
            // What a command has disabled stays so.
            if dst.to.state() == State::Probing {
                self.change(ctx, dst, State::Active, &format!("re-enabled after reply {status} to a probe"));
            }
        } else if status >= 400 && dst.to.is_active() {
            self.change(ctx, dst, State::Probing, &format!("disabled after reply {status} to a probe"));
        }
    }

    /// Changes a state and tells of it.
    pub fn change(&self, ctx: &mut Ctx, dst: &Dst, state: State, why: &str) {
        if !dst.to.set_state(state) {
            return;
        }
        let uri = String::from_utf8_lossy(&dst.to.uri);
        if self.verbose {
            host::info!("load_balancer", "destination {} ({uri}): {why}", dst.id);
        }
        let status = if state == State::Active { "enabled" } else { "disabled" };
        let params: EventParams = [
            ("group", Value::Int(dst.group)),
            ("uri", Value::Str(dst.to.uri.clone())),
            ("status", Value::from(status)),
        ]
        .into_iter()
        .collect();
        events::raise(ctx, EVENT, params);
    }
}

/// The lists get the addresses that their groups have now.
pub fn fill_blacklists(ctx: &Ctx, module: &LoadBalancer) {
    let Some(data) = module.data.get() else { return };
    for list in &module.blacklists {
        let wanted =
            list.sets.iter().flat_map(|group| data.dsts.iter().filter(move |dst| dst.group == *group));
        list.fill(ctx, wanted.map(|dst| &dst.to));
    }
}
