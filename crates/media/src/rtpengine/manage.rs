//! Management commands of rtpengine.

use super::ask::Asking;
use super::sets::load;
use super::{Rtpengine, TOLD};
use crate::nodes::manage;
use crate::nodes::source::{Reload, all};
use host::mi::{MiAnswer, MiError, MiParams};
use host::{Call, Ctx, Finish, Registrar};
use modules::dialog::api as dialog;
use serde_json::json;

/// Longest that looking at all engines after a reload may take.
const LOOK_MS: u64 = 600_000;

pub fn register(m: &mut Registrar<Rtpengine>) {
    m.command(
        "rtpengine:enable rtpengine_enable",
        "takes an engine in (1) or out (0), or out until it answers (2)",
        |call, params| {
            let (sets, timeout) = (call.module.sets.get(), call.module.disable_s);
            manage::enable(call.ctx, &sets, params, TOLD, timeout, "RTP engine not found")
        },
    )
    .takes("url enable [setid]");
    m.command("rtpengine:show rtpengine_show", "all sets and their engines", |call, _| {
        manage::show(&call.module.sets.get())
    })
    .takes("");
    m.command_late("rtpengine:reload rtpengine_reload", "reads the engines from the database again", reload)
        .takes("[type]");
    m.command("rtpengine:teardown", "ends the call with this Call-ID", |call, params| {
        if dialog::module(call.ctx).is_none() {
            return Err(MiError::new(500, "Dialog module not loaded"));
        }
        let call_id = params.need("callid", 0)?;
        if call_id.is_empty() {
            return Err(MiError::new(400, "Empty callid"));
        }
        let job = {
            let call_id = call_id.clone();
            move |ctx: &mut Ctx| {
                if let Some(key) = dialog::find_by_call_id(ctx, call_id.as_bytes()) {
                    dialog::end(ctx, key, "MI Termination");
                }
            }
        };
        call.ctx.on_owner(call_id.as_bytes(), job);
        Ok(json!("OK"))
    })
    .takes("callid");
}

fn reload(call: &mut Call<Rtpengine>, params: &MiParams, answer: MiAnswer) {
    if call.module.db.is_none() {
        return answer.give(Err(MiError::new(400, "Dynamic loading not enabled")));
    }
    let soft = params.text("type", 0).is_some_and(|kind| kind == "soft");
    let how = if soft { Reload::Soft } else { Reload::Hard };
    let module = call.module.clone();
    load(&call.module.clone(), call.ctx, how, move |ctx, result| {
        if let Err(why) = result {
            host::error!("rtpengine", "reload: {why}");
            return answer.give(Err(MiError::new(500, "Internal error")));
        }
        let nodes: Vec<_> = module.sets.get().nodes().cloned().collect();
        let asking = Asking::new(ctx, &module);
        ctx.spawn_aside("rtpengine reload", LOOK_MS, async move {
            all(nodes.iter().map(|node| asking.ping(node))).await;
            answer.give(Ok(json!("OK")));
            Box::new(|_: &mut Ctx| 1) as Finish
        });
    });
}
