//! acc: accounting of transactions to the log, SQL tables, events and AAA servers.
//!
//! A script marks a transaction (`do_accounting`, or the flags of 2.1); the report is made when a reply
//! goes upstream or all branches have failed. Nothing here waits for a database.

mod account;
mod cdr;
mod fields;
mod marks;
mod report;
mod watch;

use account::{Backend, MAX_LEGS, Marks, What};
use fields::Fields;
use host::aaa::Aaa;
use host::db::{Db, Name};
use host::load::Loader;
use host::log::Level;
use host::registrar::ParamFn;
use host::{Accepts, InParam, LoadError};
use host::{Call, Outcome, Registrar, Routes, Text, Value, Var};
use marks::{BackendsArg, WhatArg};
use report::{Report, ReportKind};
use script::ast::ParamValue;

const EVENT: &str = "E_ACC_EVENT";
const MISSED_EVENT: &str = "E_ACC_MISSED_EVENT";
const CDR_EVENT: &str = "E_ACC_CDR";

/// Columns of the tables.
struct Columns {
    method: Name,
    from_tag: Name,
    to_tag: Name,
    call_id: Name,
    code: Name,
    reason: Name,
    time: Name,
}

/// Message flags of 2.1 and what each marks.
#[derive(Default)]
struct Flag {
    name: String,
    /// Bit of the flag, once known.
    bit: u32,
    marks: Marks,
}

pub struct Acc {
    early_media: bool,
    report_cancels: bool,
    detect_direction: bool,
    log_level: Level,
    db_url: Option<String>,
    db: Option<Db>,
    table: String,
    missed_table: String,
    columns: Columns,
    extra: Fields,
    legs: Fields,
    flags: Vec<Flag>,
    table_avp_text: String,
    table_avp: Option<Var>,
    old_extra_texts: Vec<(Backend, String)>,
    old_extra: Vec<(Backend, String, Var)>,
    old_legs_text: String,
    old_legs: Vec<(String, Var)>,
    aaa_url: Option<String>,
    aaa: Option<Aaa>,
    service_type: Option<i64>,
    has_dialog: bool,
}

impl Default for Acc {
    fn default() -> Acc {
        Acc {
            early_media: false,
            report_cancels: false,
            detect_direction: false,
            log_level: Level::Notice,
            db_url: None,
            db: None,
            table: "acc".into(),
            missed_table: "missed_calls".into(),
            columns: Columns {
                method: "method".into(),
                from_tag: "from_tag".into(),
                to_tag: "to_tag".into(),
                call_id: "callid".into(),
                code: "sip_code".into(),
                reason: "sip_reason".into(),
                time: "time".into(),
            },
            extra: Fields::default(),
            legs: Fields::default(),
            flags: Vec::new(),
            table_avp_text: String::new(),
            table_avp: None,
            old_extra_texts: Vec::new(),
            old_extra: Vec::new(),
            old_legs_text: String::new(),
            old_legs: Vec::new(),
            aaa_url: None,
            aaa: None,
            service_type: None,
            has_dialog: false,
        }
    }
}

pub fn register(m: &mut Registrar<Acc>) {
    m.param_int("early_media", |s, v| Ok(s.early_media = v != 0));
    m.param_int("report_cancels", |s, v| Ok(s.report_cancels = v != 0));
    m.param_int("detect_direction", |s, v| Ok(s.detect_direction = v != 0));
    m.param(
        "log_level",
        ParamFn::Any(|s, v| {
            s.log_level = match v {
                ParamValue::Int(n) => Level::from_number(*n),
                ParamValue::Text(t) => {
                    Level::parse(t).ok_or("log_level is a number or L_NOTICE and its like")?
                }
            };
            Ok(())
        }),
    );
    m.ignored(&["log_facility"], "lines of accounting go where all lines go (the core's syslog_facility)");
    m.param_text("db_url", |s, v| Ok(s.db_url = Some(v.into())));
    m.param_text("db_table_acc", |s, v| Ok(s.table = v.into()));
    m.param_text("db_table_missed_calls", |s, v| Ok(s.missed_table = v.into()));
    m.param_text("db_table_avp", |s, v| Ok(s.table_avp_text = v.into()));
    m.param_text("acc_method_column", |s, v| Ok(s.columns.method = v.to_string().into()));
    m.param_text("acc_from_tag_column", |s, v| Ok(s.columns.from_tag = v.to_string().into()));
    m.param_text("acc_to_tag_column", |s, v| Ok(s.columns.to_tag = v.to_string().into()));
    m.param_text("acc_callid_column", |s, v| Ok(s.columns.call_id = v.to_string().into()));
    m.param_text("acc_sip_code_column", |s, v| Ok(s.columns.code = v.to_string().into()));
    m.param_text("acc_sip_reason_column", |s, v| Ok(s.columns.reason = v.to_string().into()));
    m.param_text("acc_time_column", |s, v| Ok(s.columns.time = v.to_string().into()));
    m.param_text("extra_fields", |s, v| s.extra.add(v));
    m.param_text("leg_fields", |s, v| s.legs.add(v));
    m.param_text("aaa_url", |s, v| Ok(s.aaa_url = Some(v.into())));
    m.param_int("service_type", |s, v| Ok(s.service_type = Some(v)));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.accepts(Accepts::VARIABLE, &["db_table_avp"]);
    m.accepts(Accepts::from(0), &["service_type"]);
    old_params(m);
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("do_accounting", routes, do_accounting);
    m.function("drop_accounting", routes, drop_accounting);
    m.function("acc_log_request", routes, acc_log_request);
    m.function("acc_db_request", routes, acc_db_request);
    m.function("acc_aaa_request", routes, acc_aaa_request);
    m.function("acc_evi_request", routes, acc_evi_request);
    m.function("acc_new_leg", routes, acc_new_leg);
    m.variable_class("acc_extra", fields::extra);
    m.variable_class("acc_leg", fields::leg);
    m.variable("acc_current_leg", |call| {
        // Without `leg_fields` there are none.
        let legs = account::entry(call.ctx, call.module).borrow().legs.len();
        if legs == 0 { Value::Null } else { Value::Int(legs as i64 - 1) }
    });
    m.needs(&["tm"]);
    m.init_or(init);
    m.ready(watch::ready);
    m.start(cdr::start);
}

/// Parameters of 2.1: message flags instead of functions, variables instead of `$acc_extra`.
fn old_params(m: &mut Registrar<Acc>) {
    m.param("log_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Log, What::Answered))));
    m.param("log_missed_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Log, What::Missed))));
    m.param("db_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Db, What::Answered))));
    m.param("db_missed_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Db, What::Missed))));
    m.param("aaa_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Aaa, What::Answered))));
    m.param("aaa_missed_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Aaa, What::Missed))));
    m.param("evi_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Evi, What::Answered))));
    m.param("evi_missed_flag", ParamFn::Any(|s, v| s.flag(v, Marks::of(Backend::Evi, What::Missed))));
    m.param("failed_transaction_flag", ParamFn::Any(|s, v| s.flag(v, every(What::Failed))));
    m.param("cdr_flag", ParamFn::Any(|s, v| s.flag(v, every(What::Cdr))));
    m.param_text("log_extra", |s, v| Ok(s.old_extra_texts.push((Backend::Log, v.into()))));
    m.param_text("db_extra", |s, v| Ok(s.old_extra_texts.push((Backend::Db, v.into()))));
    m.param_text("aaa_extra", |s, v| Ok(s.old_extra_texts.push((Backend::Aaa, v.into()))));
    m.param_text("evi_extra", |s, v| Ok(s.old_extra_texts.push((Backend::Evi, v.into()))));
    m.param_text("multi_leg_info", |s, v| Ok(s.old_legs_text = v.into()));
    m.accepts(VARIABLES, &["aaa_extra", "db_extra", "evi_extra", "log_extra", "multi_leg_info"]);
    let bye = ["log_extra_bye", "db_extra_bye", "aaa_extra_bye", "evi_extra_bye", "multi_leg_bye_info"];
    m.ignored(&bye, "only records of whole calls (cdr_flag) have values of the BYE");
    m.ignored(&["acc_created_avp_name"], "the time of the request is kept without an AVP");
    m.ignored(&["report_ack"], "ACKs are requests of their own: mark them with the accounting flag");
    let diameter = [
        "diameter_flag",
        "diameter_missed_flag",
        "diameter_client_host",
        "diameter_client_port",
        "diameter_extra",
    ];
    m.ignored(&diameter, "no release has Diameter compiled in");
}

/// Extra values of 2.1.
const VARIABLES: Accepts = Accepts::Such {
    what: "a list name=$variable; name=$variable",
    check: |text, loader| {
        let list = variables(&String::from_utf8_lossy(text), loader);
        list.map(drop).map_err(|why| script::Diagnostic::error(script::Loc::default(), why))
    },
};

fn every(what: What) -> Marks {
    Backend::ALL.iter().fold(Marks::default(), |all, b| all.with(Marks::of(*b, what)))
}

impl Acc {
    fn flag(&mut self, value: &ParamValue, marks: Marks) -> Result<(), String> {
        let name = match value {
            ParamValue::Int(n) => n.to_string(),
            ParamValue::Text(t) => String::from_utf8_lossy(t).into_owned(),
        };
        self.flags.push(Flag { name, bit: 0, marks });
        Ok(())
    }

    /// What the message flags mark.
    fn flagged(&self, flags: u32) -> Marks {
        let set = self.flags.iter().filter(|f| flags & f.bit != 0);
        set.fold(Marks::default(), |all, f| all.with(f.marks))
    }
}

fn init(s: &mut Acc, loader: &mut Loader) -> Result<(), LoadError> {
    s.has_dialog = loader.is_loaded("dialog");
    for flag in &mut s.flags {
        flag.bit = loader.flag(flag.name.as_bytes(), script::Loc::default()).map_err(|d| d.message)?;
    }
    if !s.has_dialog && s.flags.iter().any(|f| f.marks == every(What::Cdr)) {
        return Err(LoadError::from("records of whole calls need module dialog").in_param("cdr_flag"));
    }
    s.db = match s.db_url.as_deref().filter(|url| !url.is_empty()) {
        Some(url) => Some(loader.db(url)?),
        None => loader.db_or_default(None).ok().flatten(),
    };
    if let Some(url) = s.aaa_url.as_deref().filter(|url| !url.is_empty()) {
        s.aaa = Some(open_aaa(loader, url, &mut s.service_type).in_param("aaa_url")?);
    }
    for (backend, text) in std::mem::take(&mut s.old_extra_texts) {
        let list = variables(&text, loader)?;
        s.old_extra.extend(list.into_iter().map(|(name, var)| (backend, name, var)));
    }
    s.old_legs = variables(&s.old_legs_text, loader)?;
    if !s.table_avp_text.is_empty() {
        s.table_avp = Some(variable(&s.table_avp_text, loader)?);
    }
    if s.db.is_none() && s.flags.iter().any(|f| f.marks.has(Backend::Db, What::Answered)) {
        return Err(LoadError::from("it is set, but db_url is not").in_param("db_flag"));
    }
    Ok(())
}

fn open_aaa(loader: &mut Loader, url: &str, service_type: &mut Option<i64>) -> Result<Aaa, String> {
    let aaa = loader.aaa(url)?;
    for attribute in report::AAA_ATTRIBUTES {
        aaa.attribute(attribute)?;
    }
    for attribute in report::OPTIONAL_ATTRIBUTES {
        if aaa.attribute(attribute).is_err() {
            host::warn!("acc", "the dictionary of {url} has no {attribute}: records are without it");
        }
    }
    if service_type.is_none() {
        *service_type = Some(aaa.value("Service-Type", "Sip-Session")?);
    }
    Ok(aaa)
}

/// "name=$var;name=$var"
fn variables(text: &str, loader: &mut Loader) -> Result<Vec<(String, Var)>, String> {
    let mut list = Vec::new();
    for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, var) = part.split_once('=').ok_or_else(|| format!("`{part}` is not name=$variable"))?;
        list.push((name.trim().to_string(), variable(var.trim(), loader)?));
    }
    Ok(list)
}

fn variable(text: &str, loader: &mut Loader) -> Result<Var, String> {
    let spec = script::parse_variable(&text.to_string().into(), script::Loc::default());
    spec.and_then(|spec| loader.var(&spec)).map_err(|d| d.message)
}

/// do_accounting(backends, [what], [table])
fn do_accounting(
    call: &mut Call<Acc>,
    backends: BackendsArg,
    what: Option<WhatArg>,
    table: Option<Text>,
) -> i32 {
    let module = call.module.clone();
    if call.state.msg.method() == sip::Method::Cancel && !module.report_cancels {
        return 1;
    }
    let mut marks = Marks::default();
    for backend in &backends.0 {
        marks = marks.with(Marks::of(*backend, What::Answered));
        for what in what.iter().flat_map(|w| &w.0) {
            marks = marks.with(Marks::of(*backend, *what));
        }
    }
    let account = own_entry(call, &module, marks);
    if marks.any(What::Cdr) && !cdr::asked(call.ctx, &account) {
        host::error!("acc", "a record of a call begins with its INVITE: this request is none");
        return -1;
    }
    let mut account = account.borrow_mut();
    account.marks = account.marks.with(marks);
    if let Some(table) = table.filter(|_| marks.has(Backend::Db, What::Answered)) {
        account.table = Some(table.0);
    }
    1
}

/// The account to mark. A request inside a call that is accounted as a whole has one of its own.
fn own_entry(call: &mut Call<Acc>, module: &Acc, marks: Marks) -> account::Shared {
    if !marks.any(What::Cdr) && call.state.msg.to_tag().is_some() && cdr::account_of(call.ctx).is_some() {
        return account::own(call.ctx, module);
    }
    account::entry(call.ctx, module)
}

/// drop_accounting([backends], [what]): without `what` all of these backends, without anything all.
fn drop_accounting(call: &mut Call<Acc>, backends: Option<BackendsArg>, what: Option<WhatArg>) -> i32 {
    let Some(account) = account::find(call.ctx) else {
        host::error!("acc", "drop_accounting() without do_accounting() before it");
        return -1;
    };
    let mut account = account.borrow_mut();
    let backends = backends.map_or_else(|| Backend::ALL.to_vec(), |b| b.0);
    for backend in backends {
        account.marks = match &what {
            None => account.marks.without(Marks::all_of(backend)),
            Some(list) => list.0.iter().fold(account.marks, |m, what| m.without(Marks::of(backend, *what))),
        };
    }
    1
}

/// A report of the current request, with a comment of the script.
fn request_report(call: &mut Call<Acc>, comment: &Text) -> Report {
    let module = call.module.clone();
    let account = account::find(call.ctx).map(|a| a.borrow().clone());
    Report::new(call.ctx, &module, account, report::comment(&comment.0))
}

fn acc_log_request(call: &mut Call<Acc>, comment: Text) -> i32 {
    let module = call.module.clone();
    request_report(call, &comment).to_log(call.ctx, &module, &ReportKind::Request);
    1
}

/// acc_db_request(comment, table): waits until the row is written.
fn acc_db_request(call: &mut Call<Acc>, comment: Text, table: Text) -> Outcome {
    let module = call.module.clone();
    let Some(db) = &module.db else {
        host::error!("acc", "acc_db_request needs the parameter db_url");
        return (-1).into();
    };
    let table = table.str();
    let kind = if *table == module.missed_table { ReportKind::Missed } else { ReportKind::Request };
    let rows = request_report(call, &comment).rows(call.ctx, &module, &kind, &table);
    let written = db.on(call.ctx).run_all(rows);
    host::Suspension::future("acc_db_request", async move {
        let rc = match written.await {
            Ok(_) => 1,
            Err(error) => {
                host::error!("acc", "acc_db_request: {error}");
                -1
            }
        };
        Box::new(move |_: &mut host::Ctx| rc) as host::Finish
    })
    .detail(table.into_owned())
    .limit(host::db::LIMIT_MS, -1)
}

/// acc_aaa_request(comment): waits for the server's answer.
fn acc_aaa_request(call: &mut Call<Acc>, comment: Text) -> Outcome {
    let module = call.module.clone();
    let Some(aaa) = &module.aaa else {
        host::error!("acc", "acc_aaa_request needs the parameter aaa_url");
        return (-1).into();
    };
    let request = request_report(call, &comment).aaa_request(call.ctx, &module, aaa, &ReportKind::Request);
    aaa.suspend(call.ctx, "acc_aaa_request", request, |_, answer| match answer {
        Ok(_) => 1,
        Err(error) => {
            host::error!("acc", "acc_aaa_request: {error}");
            -1
        }
    })
}

fn acc_evi_request(call: &mut Call<Acc>, comment: Text) -> i32 {
    let module = call.module.clone();
    let code = report::comment(&comment.0).code;
    let missed =
        std::str::from_utf8(&code).ok().and_then(|c| c.parse::<u16>().ok()).is_some_and(|c| c >= 300);
    let kind = if missed { ReportKind::Missed } else { ReportKind::Request };
    request_report(call, &comment).to_event(call.ctx, &module, &kind);
    1
}

fn acc_new_leg(call: &mut Call<Acc>) -> i32 {
    let module = call.module.clone();
    if module.legs.tags.is_empty() {
        host::complain!(call.ctx, "acc", "acc_new_leg() without the parameter leg_fields adds nothing");
        return 1;
    }
    let account = account::entry(call.ctx, &module);
    let mut account = account.borrow_mut();
    if account.legs.len() >= MAX_LEGS {
        return -1;
    }
    account.legs.push(vec![None; module.legs.tags.len()]);
    1
}

#[cfg(test)]
mod tests;
