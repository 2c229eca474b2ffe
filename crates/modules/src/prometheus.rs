//! prometheus: statistics for the monitoring system of that name, `http://host:8888/metrics`, and what a route of the
//! script adds to them.

use crate::httpd::{Answer, Httpd, Query};
use bytes::Bytes;
use host::ctx::After;
use host::load::Loader;
use host::shared::Shared;
use host::stats::{Source, Stats};
use host::subst::Subst;
use host::{Accepts, InParam, LoadError};
use host::{Call, Ctx, Int, Registrar, Routes, Text};
use script::ast::RouteKind;
use script::{Loc, RouteId};
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

/// Lines that the route may add to one answer.
const MAX_LINES: usize = 10_000;

/// What becomes of a statistic's group.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum GroupMode {
    #[default]
    Nowhere,
    InName,
    AsLabel,
}

/// "group: /expression/name:labels/"
struct Labels {
    group: String,
    rule: Subst,
}

pub struct Prometheus {
    root: String,
    prefix: String,
    group_prefix: String,
    delimiter: String,
    group_label: String,
    mode: GroupMode,
    /// Names, "group:", "all".
    wanted: Vec<String>,
    label_texts: Vec<String>,
    labels: Vec<Labels>,
    route_name: Option<String>,
    route: Option<RouteId>,
    own: Arc<OnceLock<Arc<Prometheus>>>,
}

impl Default for Prometheus {
    fn default() -> Prometheus {
        Prometheus {
            root: "metrics".into(),
            prefix: "opensips".into(),
            group_prefix: String::new(),
            delimiter: "_".into(),
            group_label: "group".into(),
            mode: GroupMode::Nowhere,
            wanted: Vec::new(),
            label_texts: Vec::new(),
            labels: Vec::new(),
            route_name: None,
            route: None,
            own: Arc::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Prometheus>) {
    m.param_text("root", |s, v| Ok(s.root = v.into()));
    m.param_text("prefix", |s, v| Ok(s.prefix = v.into()));
    m.param_text("group_prefix", |s, v| Ok(s.group_prefix = v.into()));
    m.param_text("delimiter", |s, v| Ok(s.delimiter = v.into()));
    m.param_text("group_label", |s, v| Ok(s.group_label = v.into()));
    m.param_int("group_mode", |s, v| {
        s.mode = match v {
            0 => GroupMode::Nowhere,
            1 => GroupMode::InName,
            2 => GroupMode::AsLabel,
            _ => return Err("group_mode is 0, 1 or 2".into()),
        };
        Ok(())
    });
    m.param_text("statistics", |s, v| Ok(s.wanted.extend(v.split_whitespace().map(str::to_owned))));
    m.param_text("labels", |s, v| Ok(s.label_texts.push(v.into())));
    m.param_text("script_route", |s, v| Ok(s.route_name = Some(v.into())));
    m.function("prometheus_declare_stat", Routes::REQUEST, declare);
    m.function("prometheus_push_stat", Routes::REQUEST, push);
    m.accepts(Accepts::ROUTE, &["script_route"]);
    m.needs(&["httpd"]);
    m.init_or(init);
    m.ready(|module, _, _| {
        let _ = module.own.set(module.clone());
    });
}

fn init(s: &mut Prometheus, loader: &mut Loader) -> Result<(), LoadError> {
    for text in std::mem::take(&mut s.label_texts) {
        let (group, rule) =
            text.split_once(':').ok_or_else(|| format!("`{text}` is not group: /a/b/")).in_param("labels")?;
        let rule = Subst::new(&Bytes::from(rule.trim().to_owned()), Loc::default(), loader);
        let rule = rule.in_param("labels")?;
        s.labels.push(Labels { group: group.trim().into(), rule });
    }
    if let Some(name) = s.route_name.as_deref().filter(|name| !name.is_empty()) {
        s.route = Some(loader.route(name).in_param("script_route")?);
    }
    if let Some(httpd) = loader.module::<Httpd>() {
        let own = s.own.clone();
        let page = move |shared: Arc<Shared>,
                         query: Query|
              -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
            let module = own.get().cloned();
            Box::pin(async move { page(shared, module, query).await })
        };
        httpd.add(&s.root, "prometheus", Arc::new(page));
    }
    Ok(())
}

async fn page(shared: Arc<Shared>, module: Option<Arc<Prometheus>>, query: Query) -> Answer {
    let plain = |status, text: String| Answer {
        status,
        content_type: "text/plain; version=0.0.4",
        body: text.into(),
    };
    if query.method != "GET" {
        return plain(405, "metrics are asked for with GET\n".into());
    }
    let (Some(module), Some(dispatch)) = (module, shared.dispatch.get()) else {
        return plain(503, "the server starts\n".into());
    };
    // On a worker: labels and the route need one.
    let (send, receive) = tokio::sync::oneshot::channel();
    dispatch.run_on(0, Box::new(move |ctx| write_all(ctx, &module, move |text| drop(send.send(text)))));
    match receive.await {
        Ok(text) => plain(200, text),
        Err(_) => plain(500, "the route of the script did not end\n".into()),
    }
}

/// Statistics first, then what the route says.
fn write_all(ctx: &mut Ctx, module: &Arc<Prometheus>, done: impl FnOnce(String) + 'static) {
    let stats = ctx.shared().stats.clone();
    let mut text = module.statistics(ctx, &stats);
    let Some(route) = module.route else { return done(text) };
    let mut state = host::worker::detached_state(ctx, route, RouteKind::Request);
    state.ext.set(Said::default());
    state.after = After::Then(Box::new(move |_, state, _| {
        text.push_str(state.ext.find::<Said>().map_or("", |said| &said.text));
        done(text);
    }));
    ctx.run(state);
}

impl Prometheus {
    fn is_wanted(&self, group: &str, name: &str) -> bool {
        self.wanted.iter().any(|w| match w.strip_suffix(':') {
            Some(wanted) => wanted == group,
            None => {
                w == "all" || w == name || w.split_once(':').is_some_and(|(g, n)| g == group && n == name)
            }
        })
    }

    fn statistics(&self, ctx: &mut Ctx, stats: &Stats) -> String {
        let mut out = String::new();
        let mut typed = String::new();
        for (group, name, value) in stats.list(None) {
            if !self.is_wanted(&group, &name) {
                continue;
            }
            let kind = match stats.source(&format!("{group}:{name}")) {
                Some(Source::Counter(_)) => "counter",
                _ => "gauge",
            };
            let (shown, own) = self.labelled(ctx, &group, &name);
            let group = format!("{}{group}", self.group_prefix);
            let mut full = format!("{}{}", self.prefix, self.delimiter);
            if self.mode == GroupMode::InName {
                let _ = write!(full, "{group}{}", self.delimiter);
            }
            full.push_str(&shown);
            let full = metric_name(&full);
            let mut labels = Vec::new();
            if self.mode == GroupMode::AsLabel {
                labels.push(format!("{}=\"{group}\"", self.group_label));
            }
            labels.extend(own);
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            // One name has one type, however many labels follow each other.
            if typed != full {
                let _ = writeln!(out, "# TYPE {full} {kind}");
                typed = full.clone();
            }
            let _ = writeln!(out, "{full}{labels} {value}");
        }
        out
    }

    /// The name to show, and the labels that a rule made of it.
    fn labelled(&self, ctx: &mut Ctx, group: &str, name: &str) -> (String, Option<String>) {
        for labels in self.labels.iter().filter(|l| l.group == group) {
            let Some(text) = labels.rule.apply(ctx, name.as_bytes()) else { continue };
            let text = String::from_utf8_lossy(&text).into_owned();
            if let Some((name, labels)) = text.split_once(':') {
                return (name.to_owned(), Some(labels.to_owned()));
            }
        }
        (name.to_owned(), None)
    }
}

/// Letters, digits, `_` and `:` (the data model of Prometheus); others become `_`.
fn metric_name(text: &str) -> String {
    let fits = |(at, c): (usize, char)| match c {
        c if c.is_ascii_alphabetic() || c == '_' || c == ':' || at > 0 && c.is_ascii_digit() => c,
        _ => '_',
    };
    text.chars().enumerate().map(fits).collect()
}

/// What the route has said so far.
#[derive(Clone, Default)]
struct Said {
    text: String,
    lines: usize,
    declared: String,
}

fn said<'a>(call: &'a mut Call<Prometheus>, function: &str) -> Option<&'a mut Said> {
    let known = call.ctx.state.ext.find::<Said>().is_some_and(|said| said.lines < MAX_LINES);
    if !known {
        host::error!(
            "prometheus",
            "{function} belongs in the route that `script_route` names, {MAX_LINES} times at most"
        );
        return None;
    }
    let said = call.ctx.state.ext.entry::<Said>();
    said.lines += 1;
    Some(said)
}

/// prometheus_declare_stat(name, [type], [help])
fn declare(call: &mut Call<Prometheus>, name: Text, kind: Option<Text>, help: Option<Text>) -> i32 {
    let kind = kind.map_or("gauge".into(), |k| k.str().into_owned());
    if !matches!(kind.as_str(), "gauge" | "counter") {
        host::error!("prometheus", "{kind} is neither gauge nor counter");
        return -1;
    }
    let name = metric_name(&name.str());
    let Some(said) = said(call, "prometheus_declare_stat()") else { return -1 };
    if let Some(help) = help {
        let _ = writeln!(said.text, "# HELP {name} {}", help.str().replace(['\r', '\n'], " "));
    }
    let _ = writeln!(said.text, "# TYPE {name} {kind}");
    said.declared = name;
    1
}

/// prometheus_push_stat(value, [label], [label value]); a label alone is a whole set in braces.
fn push(call: &mut Call<Prometheus>, value: Int, label: Option<Text>, label_value: Option<Text>) -> i32 {
    let Some(said) = said(call, "prometheus_push_stat()") else { return -1 };
    if said.declared.is_empty() {
        host::error!("prometheus", "prometheus_push_stat() comes after prometheus_declare_stat()");
        return -1;
    }
    let labels = match (&label, &label_value) {
        (None, _) => String::new(),
        (Some(set), None) => set.str().replace(['\r', '\n'], " "),
        (Some(name), Some(value)) => {
            let value = value.str().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{{{}=\"{value}\"}}", name.str())
        }
    };
    let _ = writeln!(said.text, "{}{labels} {}", said.declared, value.0);
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_data_model() {
        for (name, want) in
            [("opensips_a:b", "opensips_a:b"), ("1-x y", "__x_y"), ("load-proc-1", "load_proc_1")]
        {
            assert_eq!(metric_name(name), want);
        }
    }

    #[test]
    fn names_and_groups_are_wanted() {
        let module =
            Prometheus { wanted: vec!["core:".into(), "tm:a".into(), "b".into()], ..Prometheus::default() };
        let found: Vec<bool> = [("core", "x"), ("tm", "a"), ("tm", "c"), ("sl", "b")]
            .iter()
            .map(|(group, name)| module.is_wanted(group, name))
            .collect();
        assert_eq!(found, [true, true, false, true]);
    }
}
