//! siptrace: tracing as OpenSIPS 2.1 has it, a table and an address for copies; and as 2.2 to 2.4 have it, with
//! `trace_id`. The work is `tracer`'s.

use crate::hep::Version;
use crate::proto_hep::{Destination, ProtoHep};
use crate::tracer::{Order, Scope, Sides, TraceId, Tracer, follow};
use crate::tracer::{Target, siptrace_target};
use bytes::Bytes;
use host::avp::AvpName;
use host::mi::{MiError, MiParams, MiResult};
use host::registrar::ParamFn;
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::Told;
use host::{Call, Ctx, Loader, Registrar, Routes, Text};
use script::ast::ParamValue;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Values of `traced_user_avp` that a message is stored for.
const MAX_USERS: usize = 64;

/// See the file.
pub struct SipTrace {
    db_url: Option<String>,
    table: String,
    trace_flag: Option<String>,
    flag: u32,
    user: Option<AvpName>,
    duplicate: Option<String>,
    with_hep: bool,
    hep_version: Version,
    hep_capture_id: u16,
    to_database: Arc<AtomicBool>,
    /// `trace_on`; with `trace_id` it is on unless it is said otherwise.
    on: Option<bool>,
    tracer: Arc<Tracer>,
    /// Until `init`.
    own: Option<Tracer>,
    hep: Option<Arc<ProtoHep>>,
}

impl Default for SipTrace {
    fn default() -> SipTrace {
        SipTrace {
            db_url: None,
            table: "sip_trace".to_string(),
            trace_flag: None,
            flag: 0,
            user: None,
            duplicate: None,
            with_hep: false,
            hep_version: Version::One,
            hep_capture_id: 1,
            to_database: Arc::new(AtomicBool::new(true)),
            tracer: Arc::default(),
            on: None,
            own: Some(Tracer::default()),
            hep: None,
        }
    }
}

pub fn register(m: &mut Registrar<SipTrace>) {
    m.param_text("db_url", |m, url| Ok(m.db_url = Some(url.to_string())));
    m.param_text("table", |m, name| Ok(m.table = name.to_string()));
    m.param(
        "trace_flag",
        ParamFn::Any(|m: &mut SipTrace, value| {
            m.trace_flag = Some(match value {
                ParamValue::Int(number) => number.to_string(),
                ParamValue::Text(name) => String::from_utf8_lossy(name).into_owned(),
            });
            Ok(())
        }),
    );
    m.param_int("trace_on", |m, n| {
        m.on = Some(n != 0);
        Ok(())
    });
    m.param_text("traced_user_avp", |m, name| {
        let inner = name.trim().strip_prefix("$avp(").and_then(|rest| rest.strip_suffix(')'));
        m.user = Some(AvpName::new(inner.ok_or("it is an AVP, $avp(name)")?.trim().as_bytes()));
        Ok(())
    });
    m.param_text("duplicate_uri", |m, uri| Ok(m.duplicate = Some(uri.to_string())));
    m.param_text("trace_local_ip", |m, text| {
        let local = crate::tracer::local_address(text)?;
        if let Some(own) = &mut m.own {
            own.set_local(local);
        }
        Ok(())
    });
    m.param_int("trace_to_database", |m, n| Ok(m.to_database.store(n != 0, Ordering::Relaxed)));
    m.param_int("duplicate_with_hep", |m, n| Ok(m.with_hep = n != 0));
    m.param_int("hep_version", |m, n| {
        m.hep_version = match n {
            1 => Version::One,
            2 => Version::Two,
            _ => return Err("hep_version is 1 or 2".to_string()),
        };
        Ok(())
    });
    m.param_int("hep_capture_id", |m, n| {
        m.hep_capture_id = u16::try_from(n).map_err(|_| "hep_capture_id has 16 bits")?;
        Ok(())
    });
    m.ignored(&["enable_ack_trace"], "ACKs of what is traced are always stored");
    m.ignored(&["trace_table_avp"], "all messages go to `table`");
    m.param_text("trace_id", |m, text| m.own.as_mut().map_or(Ok(()), |own| own.write_id(text)));
    m.asks_for(|m| {
        let own = m.own.as_ref().and_then(Tracer::driver);
        m.db_url.as_deref().and_then(host::db::driver_of).or(own)
    });
    m.init(init);
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::ON_REPLY).and(Routes::BRANCH);
    m.function("sip_trace", routes, sip_trace);
    m.function("trace_dialog", Routes::REQUEST, trace_dialog);
    m.command("sip_trace", "says whether messages are traced, or turns it on and off", |call, params| {
        let module = call.module.clone();
        switch(params, "trace_mode", module.tracer.is_on(), |on| module.tracer.set_on(on))
    })
    .takes("[trace_mode]");
    m.command(
        "trace_to_database",
        "says whether messages go into the table, or turns it on and off",
        |call, params| {
            let flag = call.module.to_database.clone();
            switch(params, "trace_to_database_mode", flag.load(Ordering::Relaxed), |on| {
                flag.store(on, Ordering::Relaxed)
            })
        },
    )
    .takes("[trace_to_database_mode]");
    m.ready(ready);
}

fn switch(params: &MiParams, name: &str, is_on: bool, set: impl FnOnce(bool)) -> MiResult {
    match params.text(name, 0).as_deref() {
        None => Ok(json!(if is_on { "on" } else { "off" })),
        Some(word @ ("on" | "off")) => {
            set(word == "on");
            Ok(json!("OK"))
        }
        Some(_) => Err(MiError::new(400, "Bad parameter")),
    }
}

fn init(m: &mut SipTrace, loader: &mut Loader) -> Result<(), String> {
    let here = script::Loc::default();
    if let Some(name) = &m.trace_flag {
        m.flag = loader.flag(name.as_bytes(), here).map_err(|problem| problem.message)?;
    }
    let mut targets: Vec<Target> = Vec::new();
    if let Some(url) = m.db_url.as_deref().filter(|url| !url.is_empty()) {
        targets.push(siptrace_target(loader.db(url)?, m.table.clone(), m.to_database.clone()));
    }
    if let Some(uri) = &m.duplicate {
        if m.with_hep {
            let address = uri.strip_prefix("sip:").unwrap_or(uri);
            let text = format!("{address}; transport=udp; version={}", m.hep_version as u8);
            let to = Destination::parse(&text).map_err(|why| format!("duplicate_uri: {why}"))?;
            m.hep = Some(Arc::new(ProtoHep::sender(m.hep_capture_id)));
            targets.push(Target::Hep(Arc::new(to)));
        } else {
            targets.extend(Target::address(uri, None).map_err(|why| format!("duplicate_uri: {why}"))?);
        }
    }
    let mut own = m.own.take().unwrap_or_default();
    own.set_on(m.on.unwrap_or(own.has_ids()));
    if own.has_ids() {
        crate::tracer::init(&mut own, loader)?;
        m.tracer = Arc::new(own);
        return Ok(());
    }
    own.set_targets(TraceId::named("siptrace", targets), loader.is_loaded("dialog"), m.hep.clone());
    m.tracer = Arc::new(own);
    Ok(())
}

fn ready(module: &Arc<SipTrace>, hooks: &mut Hooks, stats: &Stats) {
    crate::tracer::ready(&module.tracer, hooks, stats);
    if let Some(hep) = module.hep.clone() {
        hooks.services.push(Arc::new(move |_| Box::pin(crate::proto_hep::serve(hep.clone()))));
    }
    if module.flag != 0 {
        let module = module.clone();
        hooks.watch.told(Told::Created, move |ctx, seen| {
            if ctx.state.flags & module.flag == 0 {
                return;
            }
            for order in orders(&module, ctx) {
                let order = Arc::new(order);
                match seen.txn {
                    Some(txn) => crate::tracer::follow_in(ctx, txn, &order),
                    None => follow(ctx, &order),
                }
            }
        });
    }
}

/// One order for each user that the message is traced for; one for nobody without `traced_user_avp`.
fn orders(module: &SipTrace, ctx: &mut Ctx) -> Vec<Order> {
    let caller = ctx.state.msg.from_tag().unwrap_or_default();
    let order = |attrs: Option<Bytes>| Order {
        id: module.tracer.only_id(),
        sides: Sides::Both,
        attrs,
        correlation: None,
        caller: caller.clone(),
    };
    let Some(name) = module.user else { return vec![order(None)] };
    let users: Vec<Bytes> =
        ctx.state.avps.borrow().values(name).take(MAX_USERS).map(host::Value::to_text).collect();
    match users.is_empty() {
        true => vec![order(None)],
        false => users.into_iter().map(|user| order(Some(user))).collect(),
    }
}

/// sip_trace(), and of 2.2 to 2.4 sip_trace(trace_id, [scope], [types], [attributes])
fn sip_trace(
    call: &mut Call<SipTrace>,
    id: Option<Text>,
    scope: Option<Text>,
    kinds: Option<Text>,
    attrs: Option<Text>,
) -> bool {
    let Some(id) = id else { return begin(call, Scope::Message) };
    let tracer = call.module.tracer.clone();
    crate::tracer::trace_by(&tracer, call.ctx, (id, scope, kinds, attrs), None, None)
}

/// trace_dialog()
fn trace_dialog(call: &mut Call<SipTrace>) -> bool {
    begin(call, Scope::Dialog)
}

fn begin(call: &mut Call<SipTrace>, scope: Scope) -> bool {
    let module = call.module.clone();
    if !module.tracer.is_on() || module.tracer.has_ids() {
        return false;
    }
    for order in orders(&module, call.ctx) {
        module.tracer.begin(call.ctx, order, scope);
    }
    true
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;
    use script::ast::Dialect;
    use serde_json::json;

    const OPTIONS: &str = "OPTIONS sip:bob@x SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK1\nFrom: <sip:a@x>;tag=1\n\
        To: <sip:b@x>\nCall-ID: one\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n";

    fn server(params: &str, route: &str) -> Server {
        Server::new(
            &format!(
                "listen=udp:10.0.0.1:5060\nloadmodule \"sl.so\"\nloadmodule \"tm.so\"\nloadmodule \"siptrace.so\"\nmodparam(\"siptrace\", \"duplicate_uri\", \"sip:10.0.0.9:5888\")\n{params}\nroute {{ {route} }}"
            ),
            Dialect::V21,
        )
    }

    fn copies(server: &mut Server) -> Vec<String> {
        let sent = server.receive("10.0.0.2:5060", OPTIONS);
        let copies = sent.iter().filter(|sent| sent.to.port() == 5888);
        copies.map(|sent| sent.text.lines().next().unwrap_or_default().to_string()).collect()
    }

    #[test]
    fn a_message_and_a_flagged_transaction() {
        let on = "modparam(\"siptrace\", \"trace_on\", 1)";
        let mut one = server(on, "sip_trace(); sl_send_reply(\"200\", \"OK\");");
        assert_eq!(copies(&mut one), ["OPTIONS sip:bob@x SIP/2.0"]);
        let flag =
            "modparam(\"siptrace\", \"trace_on\", 1)\nmodparam(\"siptrace\", \"trace_flag\", \"TRACE\")";
        let mut all = server(flag, "setflag(TRACE); t_newtran(); t_reply(\"404\", \"None\");");
        assert_eq!(copies(&mut all), ["SIP/2.0 404 None"]);
    }

    #[test]
    fn it_is_off_until_it_is_turned_on() {
        let mut server = server("", "sip_trace(); sl_send_reply(\"200\", \"OK\");");
        assert!(copies(&mut server).is_empty());
        assert_eq!(server.manage("sip_trace", json!([])).unwrap(), "off");
        server.manage("sip_trace", json!(["on"])).unwrap();
        assert_eq!(copies(&mut server).len(), 1);
        assert_eq!(server.manage("trace_to_database", json!([])).unwrap(), "on");
        assert!(server.manage("sip_trace", json!(["perhaps"])).is_err());
    }
}
