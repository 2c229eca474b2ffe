//! Management commands of rtpproxy.

use super::sets::{load, look_at};
use super::{Rtpproxy, TOLD};
use crate::nodes::manage;
use host::mi::{MiAnswer, MiError, MiParams};
use host::{Call, Registrar};
use serde_json::json;

pub fn register(m: &mut Registrar<Rtpproxy>) {
    m.command(
        "rtpproxy:enable rtpproxy_enable",
        "takes an engine in (1) or out (0), or out until it answers (2)",
        |call, params| {
            let (sets, timeout) = (call.module.sets.get(), call.module.disable_s);
            let told = crate::nodes::Told { inverted: true, ..TOLD };
            manage::enable(call.ctx, &sets, params, told, timeout, "RTP proxy not found")
        },
    )
    .takes("url enable [setid]");
    m.command("rtpproxy:show rtpproxy_show", "all sets and their engines", |call, _| {
        manage::show(&call.module.sets.get())
    })
    .takes("");
    m.command_late("rtpproxy:reload rtpproxy_reload", "reads the engines from the database again", reload)
        .takes("");
}

fn reload(call: &mut Call<Rtpproxy>, _: &MiParams, answer: MiAnswer) {
    if call.module.db.is_none() {
        return answer.give(Err(MiError::new(400, "Dynamic loading not enabled")));
    }
    let module = call.module.clone();
    load(&call.module.clone(), call.ctx, move |ctx, result| match result {
        Err(why) => {
            host::error!("rtpproxy", "reload: {why}");
            answer.give(Err(MiError::new(500, "Internal error")));
        }
        Ok(()) => look_at(&module, ctx, |_| true, move |_| answer.give(Ok(json!("OK")))),
    });
}
