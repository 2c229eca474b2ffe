//! A host without SIP: `$var`, `$avp`, a few fixed message values and a handful of functions, enough to
//! run the language cases. Functions finish at once or suspend, as the test wants it.

use ahash::AHashMap;
use bytes::Bytes;
use script::ast::{Arg, ArgKind, AssignOp, Dialect, IndexSpec, VarSpec};
use script::{
    CallSite, Called, Diagnostic, End, Env, FormatPiece, Host, Lang, Loc, Options, ParallelSite, Program,
    RouteId, Sources, Step, Task, Value, parse_format, parse_variable,
};
use std::fmt;
use std::sync::Arc;

#[derive(Debug)]
pub struct Mock;

impl Lang for Mock {
    type Var = Var;
    type Func = Func;
}

pub struct Var {
    kind: Kind,
    index: Index,
    trans: Vec<(Bytes, Bytes)>,
    text: String,
}

enum Kind {
    Local(Bytes),
    Avp(Bytes),
    Rc,
    Param(Number),
    Returned(Number),
    Route,
    Fixed(Value),
}

enum Number {
    Fixed(usize),
    Var(Box<Var>),
}

enum Index {
    None,
    At(i32),
    All,
    Append,
    Var(Box<Var>),
}

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub struct Func {
    name: &'static str,
    args: Vec<Vec<Piece>>,
    text: String,
}

enum Piece {
    Text(Bytes),
    Var(Var),
}

impl fmt::Debug for Func {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the mock does not have: such a case is not run.
pub const UNSUPPORTED: &str = "not in the mock: ";

pub struct MockEnv(pub Dialect);

impl MockEnv {
    fn number(&mut self, inner: Option<&Bytes>, loc: Loc) -> Result<Number, Diagnostic> {
        let inner = inner.cloned().unwrap_or_default();
        if inner.first() == Some(&b'$') {
            let spec = parse_variable(&inner, loc)?;
            return Ok(Number::Var(Box::new(self.variable(&spec)?)));
        }
        let n = std::str::from_utf8(&inner).ok().and_then(|t| t.parse().ok());
        n.map(Number::Fixed).ok_or_else(|| Diagnostic::error(loc, "not a number"))
    }

    fn pieces(&mut self, arg: &Arg) -> Result<Vec<Piece>, Diagnostic> {
        Ok(match &arg.kind {
            ArgKind::Empty => Vec::new(),
            ArgKind::Int(n) => vec![Piece::Text(n.to_string().into())],
            ArgKind::Word(w) => vec![Piece::Text(w.clone())],
            ArgKind::Var(spec) => vec![Piece::Var(self.variable(spec)?)],
            ArgKind::Text(text) => {
                let mut pieces = Vec::new();
                for piece in parse_format(text, arg.loc)? {
                    pieces.push(match piece {
                        FormatPiece::Text(t) => Piece::Text(t),
                        FormatPiece::Var(spec) => Piece::Var(self.variable(&spec)?),
                    });
                }
                pieces
            }
            ArgKind::Expr(_) => return Err(Diagnostic::error(arg.loc, "no expression here")),
        })
    }
}

/// `$rU` and its like, as the default request of the golden cases has them.
fn fixed(name: &[u8], inner: Option<&[u8]>) -> Option<Value> {
    Some(match name {
        b"rU" | b"tU" => Value::from("bob"),
        b"fU" => Value::from("alice"),
        b"rm" => Value::from("INVITE"),
        b"td" | b"fd" => Value::from("example.com"),
        b"ru" => Value::from("sip:bob@127.0.0.3:40000"),
        b"fu" => Value::from("sip:alice@example.com"),
        b"rp" => Value::Both("40000".into(), 40000),
        b"cs" => Value::from("1"),
        b"si" => Value::from("127.0.0.2"),
        b"sp" => Value::Int(40001),
        b"ml" => Value::Int(308),
        b"cl" => Value::Int(0),
        b"ft" => Value::from("alice1"),
        b"hdr" => match inner? {
            b"From" => Value::from("\"Alice\" <sip:alice@example.com>;tag=alice1"),
            b"Max-Forwards" => Value::from("70"),
            b"Via" => Value::from("SIP/2.0/UDP 127.0.0.2:40001;branch=z9hG4bK1"),
            b"Nope" => Value::Null,
            _ => return None,
        },
        _ => return None,
    })
}

const TRANSFORMATIONS: [(&[u8], &[u8]); 4] =
    [(b"s", b"len"), (b"s", b"int"), (b"s", b"toupper"), (b"csv", b"value")];

impl Env<Mock> for MockEnv {
    fn variable(&mut self, spec: &VarSpec) -> Result<Var, Diagnostic> {
        let shown = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let inner = spec.inner.as_ref();
        let unsupported =
            || Diagnostic::error(spec.loc, format!("{UNSUPPORTED}${}", String::from_utf8_lossy(&spec.name)));
        let kind = match &spec.name[..] {
            b"var" => Kind::Local(inner.cloned().ok_or_else(|| Diagnostic::error(spec.loc, "which?"))?),
            b"avp" => Kind::Avp(inner.cloned().ok_or_else(|| Diagnostic::error(spec.loc, "which?"))?),
            b"rc" | b"retcode" => Kind::Rc,
            b"param" => Kind::Param(self.number(inner, spec.loc)?),
            b"return" => Kind::Returned(self.number(inner, spec.loc)?),
            b"route" if spec.index.is_none() => Kind::Route,
            name => Kind::Fixed(fixed(name, inner.map(|b| &b[..])).ok_or_else(unsupported)?),
        };
        let index = match &spec.index {
            None => Index::None,
            Some(IndexSpec::Int(n)) => Index::At(*n),
            Some(IndexSpec::All) => Index::All,
            Some(IndexSpec::Append) => Index::Append,
            Some(IndexSpec::Text(_)) => return Err(Diagnostic::error(spec.loc, "no words here")),
            Some(IndexSpec::Var(var)) => Index::Var(Box::new(self.variable(var)?)),
        };
        let known =
            |t: &script::ast::TranSpec| TRANSFORMATIONS.iter().any(|k| *k == (&t.class[..], &t.name[..]));
        if spec.context.is_some() || !spec.transformations.iter().all(known) {
            return Err(unsupported());
        }
        let trans = spec.transformations.iter().map(|t| (t.class.clone(), t.name.clone())).collect();
        let mut text = format!("${}", shown(&spec.name));
        if let Some(inner) = inner {
            text += &format!("({})", shown(inner));
        }
        Ok(Var { kind, index, trans, text })
    }

    fn target(&mut self, spec: &VarSpec) -> Result<Var, Diagnostic> {
        let var = self.variable(spec)?;
        match var.kind {
            Kind::Local(_) | Kind::Avp(_) => Ok(var),
            _ => Err(Diagnostic::error(spec.loc, format!("{} cannot be assigned", var.text))),
        }
    }

    fn function(&mut self, site: &CallSite<'_>) -> Result<Func, Diagnostic> {
        const NAMES: [&str; 6] = ["append_to_reply", "is_method", "xlog", "ok", "result", "wait"];
        let name = String::from_utf8_lossy(site.name).into_owned();
        let known = NAMES.into_iter().find(|n| *n == name);
        let unsupported = || Diagnostic::error(site.loc, format!("{UNSUPPORTED}{name}()"));
        let name = known.ok_or_else(unsupported)?;
        let args = site.args.iter().map(|a| self.pieces(a)).collect::<Result<Vec<_>, _>>()?;
        let shown: Vec<String> = args
            .iter()
            .map(|a| {
                a.iter()
                    .map(|p| match p {
                        Piece::Text(t) => String::from_utf8_lossy(t).into_owned(),
                        Piece::Var(v) => v.text.clone(),
                    })
                    .collect()
            })
            .collect();
        Ok(Func { name, args, text: format!("{name}({})", shown.join(", ")) })
    }

    fn word(&mut self, word: &[u8], loc: Loc) -> Result<Var, Diagnostic> {
        let text = String::from_utf8_lossy(word).into_owned();
        let value = match word {
            b"method" => Value::from("INVITE"),
            b"src_ip" => Value::from("127.0.0.2"),
            b"proto" | b"UDP" => Value::from("udp"),
            b"myself" | b"127.0.0.0/8" => Value::from(text.clone()),
            b"uri" => Value::from("sip:bob@127.0.0.3:40000"),
            _ => return Err(Diagnostic::error(loc, format!("{UNSUPPORTED}{text}"))),
        };
        Ok(Var { kind: Kind::Fixed(value), index: Index::None, trans: Vec::new(), text })
    }

    fn dialect(&self) -> Dialect {
        self.0
    }
}

/// When functions suspend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// Only `wait()`.
    Asked,
    /// Every function.
    Always,
    /// None, `wait()` neither.
    Never,
}

pub struct World {
    pub task: Task<Mock>,
    pub waiting: Waiting,
    pub locals: AHashMap<Bytes, Value>,
    /// Oldest first.
    pub avps: AHashMap<Bytes, Vec<Value>>,
    /// What append_to_reply added.
    pub headers: Vec<String>,
    pub log: Vec<String>,
    pub replied: bool,
    pub complaints: Vec<String>,
    pub launched: Vec<(String, Option<RouteId>, Value)>,
    pub limits: Vec<u64>,
}

impl World {
    pub fn new(program: &Arc<Program<Mock>>, route: RouteId, waiting: Waiting) -> World {
        World {
            task: Task::new(program.clone(), route),
            waiting,
            locals: AHashMap::new(),
            avps: AHashMap::new(),
            headers: Vec::new(),
            log: Vec::new(),
            replied: false,
            complaints: Vec::new(),
            launched: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// To the end, resuming whatever suspends; the number of suspensions comes with it.
    pub fn finish(&mut self, fuel: u32) -> (End, usize) {
        let mut suspended = 0;
        for _ in 0..20_000_000 {
            match script::run(self, fuel) {
                Step::Done(end) => return (end, suspended),
                Step::Suspended(rc) => {
                    suspended += 1;
                    self.task.resume(rc);
                }
                Step::OutOfFuel => {}
            }
        }
        panic!("the script does not end");
    }

    fn number(&mut self, number: &Number) -> usize {
        match number {
            Number::Fixed(n) => *n,
            Number::Var(var) => {
                self.get(var).int().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
            }
        }
    }

    fn avp_at(&self, name: &Bytes, index: i32) -> Option<usize> {
        let len = self.avps.get(name).map_or(0, Vec::len) as i32;
        let from_oldest = if index >= 0 { len - 1 - index } else { -index - 1 };
        (0..len).contains(&from_oldest).then_some(from_oldest as usize)
    }

    fn text(&mut self, pieces: &[Piece]) -> String {
        let mut text = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(t) => text.extend_from_slice(t),
                Piece::Var(var) => text.extend_from_slice(&self.get(var).to_text()),
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn read(&mut self, var: &Var) -> Value {
        let index = match &var.index {
            Index::None | Index::Append => 0,
            Index::At(n) => *n,
            Index::All => i32::MAX,
            Index::Var(inner) => self.get(inner).int().unwrap_or(0) as i32,
        };
        match &var.kind {
            Kind::Local(name) => self.locals.get(name).cloned().unwrap_or_default(),
            Kind::Avp(name) if matches!(var.index, Index::All) => {
                let values = self.avps.get(name).into_iter().flatten().rev();
                let texts: Vec<_> =
                    values.map(|v| String::from_utf8_lossy(&v.to_text()).into_owned()).collect();
                if texts.is_empty() { Value::Null } else { texts.join(", ").into() }
            }
            Kind::Avp(name) => {
                let at = self.avp_at(name, index);
                at.map_or(Value::Null, |at| self.avps[name][at].clone())
            }
            Kind::Rc => Value::Int(self.task.rc),
            Kind::Param(n) => {
                let n = self.number(n);
                script::param(self, n)
            }
            Kind::Returned(n) => {
                let n = self.number(n);
                self.task.returned(n)
            }
            Kind::Route => {
                let name = self.task.program().route_name(self.task.route());
                let name = String::from_utf8_lossy(&name).into_owned();
                Value::from(if name.is_empty() { "route".to_string() } else { format!("route[{name}]") })
            }
            Kind::Fixed(value) => value.clone(),
        }
    }
}

fn transformed(value: Value, class: &[u8], name: &[u8]) -> Value {
    let Some(text) = value.text() else { return Value::Null };
    match (class, name) {
        (b"s", b"len") => Value::Int(text.len() as i64),
        (b"s", b"toupper") => Value::Str(text.to_ascii_uppercase().into()),
        (b"s", b"int") => {
            let digits = String::from_utf8_lossy(&text).into_owned();
            let end = digits.char_indices().find(|(i, c)| !(c.is_ascii_digit() || (*i == 0 && *c == '-')));
            let n = digits[..end.map_or(digits.len(), |(i, _)| i)].parse::<i64>().unwrap_or(0);
            Value::Num(text, i64::from(n as i32))
        }
        _ => Value::Str(text),
    }
}

impl Host for World {
    type Lang = Mock;
    /// The return code that a suspended function will have.
    type Op = i32;

    fn task(&mut self) -> &mut Task<Mock> {
        &mut self.task
    }

    fn get(&mut self, var: &Var) -> Value {
        let mut value = self.read(var);
        for (class, name) in &var.trans {
            value = transformed(value, class, name);
        }
        value
    }

    fn get_at(&mut self, var: &Var, index: i32) -> Value {
        match &var.kind {
            Kind::Avp(name) => self.avp_at(name, index).map_or(Value::Null, |at| self.avps[name][at].clone()),
            _ if index == 0 => self.read(var),
            _ => Value::Null,
        }
    }

    fn set(&mut self, var: &Var, op: AssignOp, value: Value) -> bool {
        let value = value.plain();
        match (&var.kind, &var.index) {
            (Kind::Local(name), _) => {
                self.locals.insert(name.clone(), value);
            }
            (Kind::Avp(name), Index::None) => {
                let list = self.avps.entry(name.clone()).or_default();
                if op == AssignOp::SetOver {
                    list.clear();
                } else if value.is_null() {
                    list.pop();
                }
                if !value.is_null() {
                    list.push(value);
                }
            }
            (Kind::Avp(name), Index::Append) => self.avps.entry(name.clone()).or_default().insert(0, value),
            (Kind::Avp(name), Index::All) => {
                self.avps.insert(name.clone(), if value.is_null() { Vec::new() } else { vec![value] });
            }
            (Kind::Avp(name), index) => {
                let index = match index {
                    Index::At(n) => *n,
                    Index::Var(inner) => self.get(inner).int().unwrap_or(0) as i32,
                    _ => 0,
                };
                let Some(at) = self.avp_at(name, index) else { return true };
                let list = self.avps.get_mut(name).expect("found in it");
                if value.is_null() {
                    list.remove(at);
                } else {
                    list[at] = value;
                }
            }
            _ => return false,
        }
        true
    }

    fn call(&mut self, func: &Func) -> Called<i32> {
        let args: Vec<String> = func.args.iter().map(|a| self.text(a)).collect();
        let first = args.first().map_or("", String::as_str);
        let rc = match func.name {
            "append_to_reply" => {
                self.headers.push(first.trim_end().to_string());
                1
            }
            "is_method" if first.split('|').any(|m| m == "INVITE") => 1,
            "is_method" => -1,
            "xlog" => {
                self.log.push(first.trim_end().to_string());
                1
            }
            "ok" => {
                self.replied = true;
                1
            }
            _ => first.parse().unwrap_or(1),
        };
        match (self.waiting, func.name) {
            (Waiting::Always, _) | (Waiting::Asked, "wait") => Called::Suspend(rc),
            _ => Called::Done(rc),
        }
    }

    /// One after the other; the first that suspends is the one that is waited for.
    fn parallel(&mut self, site: ParallelSite<Mock>) -> Called<i32> {
        let mut worst = 1;
        for i in 0..site.len() {
            match self.call(site.func(i)) {
                Called::Done(rc) => worst = worst.min(if rc == 0 { -1 } else { rc }),
                suspended => return suspended,
            }
        }
        Called::Done(worst)
    }

    fn launch(&mut self, func: &Func, report: Option<RouteId>, param: Value) -> i32 {
        self.launched.push((func.text.clone(), report, param));
        1
    }

    fn limit(&mut self, _: &mut i32, timeout_ms: u64) {
        self.limits.push(timeout_ms);
    }

    fn compare_word(&mut self, left: &Value, word: &Var) -> Option<bool> {
        match word.text.as_str() {
            "myself" => Some(false),
            "127.0.0.0/8" => Some(left.to_text().starts_with(b"127.")),
            _ => None,
        }
    }

    fn complain(&mut self, _: Loc, text: &str) {
        if self.complaints.len() < 100 {
            self.complaints.push(text.to_string());
        }
    }
}

/// A compiled text, or what is wrong with it.
pub fn load(text: &str, dialect: Dialect) -> Result<Arc<Program<Mock>>, Vec<Diagnostic>> {
    let mut sources = Sources::default();
    let options = Options { dialect: Some(dialect) };
    let (config, mut problems) = script::parse_text("test.cfg", text, &mut sources, options);
    if !problems.iter().any(Diagnostic::is_error) {
        let (program, more) = script::compile(&config, &mut MockEnv(dialect));
        problems.extend(more);
        if !problems.iter().any(Diagnostic::is_error) {
            return Ok(Arc::new(program));
        }
    }
    Err(problems)
}

/// The same for a text that must be right.
pub fn loaded(text: &str) -> Arc<Program<Mock>> {
    load(text, Dialect::V4).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}
