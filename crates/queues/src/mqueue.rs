//! mqueue: queues of keys and values in memory, between any two routes.

use ahash::AHashMap;
use bytes::Bytes;
use host::db::{Db, Query};
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::var::{At, VarKind, Variable};
use host::{Call, Ctx, Finish, Registrar, Routes, Text, Value};
use parking_lot::Mutex;
use script::Diagnostic;
use script::ast::VarSpec;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// Items of a queue whose definition names no size.
const MAX_ITEMS: usize = 1_000_000;
/// Saving at the end of the server takes at most this long, milliseconds.
const SAVE_MS: u64 = 25_000;

/// What becomes of an item whose key is in the queue already.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Add {
    #[default]
    Append,
    KeepOldest,
    KeepNewest,
}

/// When the table of the queue's name is used.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Stored {
    read: bool,
    written: bool,
}

#[derive(Default, Debug)]
struct Queue {
    name: String,
    size: usize,
    add: Add,
    stored: Stored,
    items: Mutex<VecDeque<(Bytes, Bytes)>>,
}

impl Queue {
    /// `name=myq;size=20;addmode=2`. The error is what follows "modparam: ".
    fn parse(text: &str) -> Result<Queue, String> {
        let mut queue = Queue { size: MAX_ITEMS, ..Queue::default() };
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let number = || value.trim().parse::<usize>().map_err(|_| format!("{key} takes a number"));
            match key.trim() {
                "name" => queue.name = value.trim().to_owned(),
                "size" => {
                    queue.size = Some(number()?).filter(|n| *n > 0).map_or(MAX_ITEMS, |n| n.min(MAX_ITEMS))
                }
                "addmode" => {
                    queue.add = match number()? {
                        0 => Add::Append,
                        1 => Add::KeepOldest,
                        2 => Add::KeepNewest,
                        n => return Err(format!("addmode is 0, 1 or 2, not {n}")),
                    }
                }
                "dbmode" => {
                    queue.stored = match number()? {
                        0 => Stored::default(),
                        1 => Stored { read: true, written: true },
                        2 => Stored { read: false, written: true },
                        3 => Stored { read: true, written: false },
                        n => return Err(format!("dbmode is 0 to 3, not {n}")),
                    }
                }
                other => return Err(format!("a queue has no `{other}`: name, size, addmode, dbmode")),
            }
        }
        if queue.name.is_empty() { Err("a queue needs a name".into()) } else { Ok(queue) }
    }

    fn push(&self, key: Bytes, value: Bytes) {
        let mut items = self.items.lock();
        if self.add != Add::Append
            && let Some(at) = items.iter().position(|(k, _)| *k == key)
        {
            if self.add == Add::KeepOldest {
                return;
            }
            items.remove(at);
        }
        items.push_back((key, value));
        if items.len() > self.size {
            items.pop_front();
        }
    }
}

#[derive(Default)]
pub struct Mqueue {
    url: Option<String>,
    db: Option<Db>,
    queues: Vec<Queue>,
}

impl Mqueue {
    fn queue(&self, name: &[u8]) -> Option<&Queue> {
        self.queues.iter().find(|queue| queue.name.as_bytes() == name)
    }
}

/// What a message fetched last, by queue.
#[derive(Clone, Default)]
struct Fetched(AHashMap<Bytes, (Bytes, Bytes)>);

pub fn register(m: &mut Registrar<Mqueue>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("mqueue", |s, v| {
        let queue = Queue::parse(v)?;
        if s.queue(queue.name.as_bytes()).is_some() {
            return Err(format!("there is a queue {} already", queue.name));
        }
        Ok(s.queues.push(queue))
    });
    m.init(|s, loader: &mut Loader| {
        if s.queues.iter().any(|queue| queue.stored != Stored::default()) {
            s.db = loader.db_or_default(s.url.as_deref())?;
            if s.db.is_none() {
                return Err("a queue has a dbmode, and db_url is not set".into());
            }
        }
        Ok(())
    });
    m.function(
        "mq_add",
        Routes::ALL,
        |call: &mut Call<Mqueue>, name: Text, key: Text, value: Text| match call.module.queue(&name) {
            Some(queue) => {
                queue.push(key.0, value.0);
                1
            }
            None => unknown(call.ctx, &name),
        },
    );
    m.function("mq_fetch", Routes::ALL, |call: &mut Call<Mqueue>, name: Text| {
        let Some(queue) = call.module.queue(&name) else { return unknown(call.ctx, &name) };
        let item = queue.items.lock().pop_front();
        let fetched = call.ctx.state.ext.entry::<Fetched>();
        match item {
            Some(item) => {
                fetched.0.insert(name.0, item);
                1
            }
            None => {
                fetched.0.remove(&name.0);
                -2
            }
        }
    });
    m.function("mq_pv_free", Routes::ALL, |call: &mut Call<Mqueue>, name: Text| {
        call.ctx.state.ext.entry::<Fetched>().0.remove(&name.0);
        1
    });
    m.function("mq_size", Routes::ALL, |call: &mut Call<Mqueue>, name: Text| {
        match call.module.queue(&name).map(|queue| queue.items.lock().len()) {
            Some(0) => -1,
            Some(n) => n as i32,
            None => -2,
        }
    });
    m.variable_class("mqk", |spec, _, module| variable(spec, module, What::Key));
    m.variable_class("mqv", |spec, _, module| variable(spec, module, What::Value));
    m.variable_class("mq_size", |spec, _, module| variable(spec, module, What::Size));
    m.command("mqueue:get_size mq_get_size", "how many items a queue has", get_size).takes("name");
    m.command("mqueue:get_sizes mq_get_sizes", "how many items all queues have", |call, _| {
        Ok(json!({"Queue": call.module.queues.iter().map(sized).collect::<Vec<_>>()}))
    })
    .takes("");
    m.command("mqueue:fetch mq_fetch", "takes items out of a queue", fetch).takes("name [limit]");
    m.start(load);
    m.stop(save);
}

fn unknown(ctx: &mut Ctx, name: &Text) -> i32 {
    host::complain!(ctx, "mqueue", "there is no queue {}", name.str());
    -1
}

#[derive(Clone, Copy)]
enum What {
    Key,
    Value,
    Size,
}

struct Reader {
    module: Arc<Mqueue>,
    queue: Bytes,
    what: What,
}

fn variable(spec: &VarSpec, module: &Arc<Mqueue>, what: What) -> Result<VarKind, Diagnostic> {
    let queue = spec.inner.clone().unwrap_or_default();
    if module.queue(&queue).is_none() {
        let text = format!("there is no queue `{}`", String::from_utf8_lossy(&queue));
        return Err(Diagnostic::error(spec.loc, text)
            .hint("modparam(\"mqueue\", \"mqueue\", \"name=...\")".to_owned()));
    }
    Ok(VarKind::Other(Box::new(Reader { module: module.clone(), queue, what })))
}

impl Variable for Reader {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let item = || ctx.state.ext.find::<Fetched>()?.0.get(&self.queue).cloned();
        match self.what {
            What::Size => self
                .module
                .queue(&self.queue)
                .map_or(Value::Null, |queue| Value::Int(queue.items.lock().len() as i64)),
            What::Key => item().map_or(Value::Null, |(key, _)| Value::Str(key)),
            What::Value => item().map_or(Value::Null, |(_, value)| Value::Str(value)),
        }
    }
}

fn sized(queue: &Queue) -> Json {
    json!({"name": queue.name, "size": queue.items.lock().len()})
}

fn named<'a>(module: &'a Mqueue, params: &MiParams) -> Result<&'a Queue, MiError> {
    let name = params.need("name", 0)?;
    module.queue(name.as_bytes()).ok_or_else(|| MiError::new(404, "No such queue"))
}

fn get_size(call: &mut Call<Mqueue>, params: &MiParams) -> MiResult {
    Ok(json!({"Queue": sized(named(call.module, params)?)}))
}

/// One item, or a list of as many as there are, up to `limit`.
fn fetch(call: &mut Call<Mqueue>, params: &MiParams) -> MiResult {
    let queue = named(call.module, params)?;
    let shown = |(key, value): (Bytes, Bytes)| json!({"key": String::from_utf8_lossy(&key), "value": String::from_utf8_lossy(&value)});
    let mut items = queue.items.lock();
    match params.int("limit", 1)? {
        None => match items.pop_front() {
            Some(item) => Ok(json!({"Item": shown(item)})),
            None => Err(MiError::new(404, "Empty queue")),
        },
        Some(limit) if limit >= 1 => {
            let count = items.len().min(limit as usize);
            Ok(items.drain(..count).map(shown).collect())
        }
        Some(_) => Err(MiError::params("limit is above 0")),
    }
}

/// What the tables kept comes before what is there by then, and leaves them.
fn load(call: &mut Call<Mqueue>) {
    let Some(db) = call.module.db.clone().filter(|_| call.ctx.core.worker == 0) else { return };
    for (at, queue) in call.module.queues.iter().enumerate().filter(|(_, queue)| queue.stored.read) {
        let query = Query::select(queue.name.clone()).columns(["key", "val"]).order("id");
        let (module, again) = (call.module.clone(), db.clone());
        db.spawn(call.ctx, "mqueue load", query, move |ctx, rows| {
            let queue = &module.queues[at];
            match rows {
                Err(error) => host::error!("mqueue", "the table {} was not read: {error}", queue.name),
                Ok(rows) => {
                    let text = |row: &host::db::Row<'_>, at| row.text(at).unwrap_or_default();
                    let mut items = queue.items.lock();
                    let newer: Vec<_> = items.drain(..).collect();
                    drop(items);
                    rows.iter().for_each(|row| queue.push(text(&row, 0), text(&row, 1)));
                    newer.into_iter().for_each(|(key, value)| queue.push(key, value));
                    again.spawn(ctx, "mqueue load", Query::delete(queue.name.clone()), |_, done| {
                        if let Err(error) = done {
                            host::error!("mqueue", "a table was read and not cleared: {error}");
                        }
                    });
                }
            }
        });
    }
}

fn save(call: &mut Call<Mqueue>) {
    let Some(db) = call.module.db.clone() else { return };
    let (module, pool) = (call.module.clone(), db.on(call.ctx));
    call.ctx.spawn("mqueue save", SAVE_MS, async move {
        for queue in module.queues.iter().filter(|queue| queue.stored.written) {
            let items: Vec<_> = queue.items.lock().drain(..).collect();
            for (at, (key, value)) in items.iter().enumerate() {
                let row = Query::insert(queue.name.clone()).set("key", key.clone()).set("val", value.clone());
                if let Err(error) = pool.run(row).await {
                    let lost = items.len() - at;
                    host::error!("mqueue", "{lost} items of {} are lost: {error}", queue.name);
                    break;
                }
            }
        }
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Server, refused, run};
    use script::ast::Dialect;

    const LOAD: &str = "loadmodule \"mqueue.so\"\nmodparam(\"mqueue\", \"mqueue\", \"name=q;size=2;\")\n\
                        modparam(\"mqueue\", \"mqueue\", \"name=old;addmode=1\")\nmodparam(\"mqueue\", \"mqueue\", \"name=new;addmode=2\")\n";

    #[test]
    fn a_queue_of_two() {
        let body = r#"
            mq_add("q", "a", "1"); mq_add("q", "b", "2"); mq_add("q", "c", "3"); mq_size("q"); $avp(rc) = $rc;
            while (mq_fetch("q")) { $avp(got) = $mqk(q) + "=" + $mqv(q); }
            mq_fetch("q"); $avp(rc) = $rc; mq_size("q"); $avp(rc) = $rc; mq_size("x"); $avp(rc) = $rc; mq_fetch("x"); $avp(rc) = $rc;
            mq_add("x", "a", "b"); $avp(rc) = $rc; if ($mqk(q) == NULL && $mq_size(q) == 0) $avp(rc) = 0;
        "#;
        let ran = run(LOAD, body, Dialect::V4);
        assert_eq!(ran.avps("got"), ["c=3", "b=2"]);
        assert_eq!(ran.avps("rc"), ["0", "-1", "-1", "-2", "-1", "-2", "2"]);
    }

    #[test]
    fn keys_that_are_there() {
        let body = r#"
            mq_add("old", "a", "1"); mq_add("old", "b", "2"); mq_add("old", "a", "3");
            mq_add("new", "a", "1"); mq_add("new", "b", "2"); mq_add("new", "a", "3");
            while (mq_fetch("old")) { $avp(old) = $mqk(old) + $mqv(old); } while (mq_fetch("new")) { $avp(new) = $mqk(new) + $mqv(new); }
        "#;
        let ran = run(LOAD, body, Dialect::V4);
        assert_eq!(
            (ran.avps("old"), ran.avps("new")),
            (vec!["b2".into(), "a1".into()], vec!["a3".into(), "b2".into()])
        );
    }

    #[test]
    fn management() {
        let config = format!("{LOAD}loadmodule \"sl.so\"\nroute {{ mq_add(\"new\", $rU, \"v\"); exit; }}");
        let mut server = Server::new(&config, Dialect::V4);
        for user in ["a", "b", "c"] {
            let request = format!(
                "OPTIONS sip:{user}@x SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK{user}\nFrom: <sip:a@x>;tag=1\nTo: <sip:b@x>\n\
                 Call-ID: {user}\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n"
            );
            server.receive("127.0.0.2:5060", &request);
        }
        let mut run = |name: &str, params: Json| server.manage(name, params);
        assert_eq!(run("mqueue:get_size", json!(["new"])), Ok(json!({"Queue": {"name": "new", "size": 3}})));
        assert_eq!(run("mq_fetch", json!(["new"])), Ok(json!({"Item": {"key": "a", "value": "v"}})));
        let rest = json!([{"key": "b", "value": "v"}, {"key": "c", "value": "v"}]);
        assert_eq!(run("mqueue:fetch", json!({"name": "new", "limit": 5})), Ok(rest));
        assert_eq!(run("mqueue:fetch", json!(["new"])), Err(MiError::new(404, "Empty queue")));
        assert_eq!(run("mqueue:get_size", json!(["x"])), Err(MiError::new(404, "No such queue")));
        assert_eq!(run("mqueue:get_sizes", json!([])).unwrap()["Queue"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn definitions() {
        for (text, why) in [
            ("size=3", "needs a name"),
            ("name=q;addmode=3", "addmode"),
            ("name=q;dbmode=x", "a number"),
            ("name=q;colour=red", "colour"),
        ] {
            assert!(Queue::parse(text).unwrap_err().contains(why), "{text}");
        }
        let config = "loadmodule \"mqueue.so\"\nmodparam(\"mqueue\", \"mqueue\", \"name=q\")\nmodparam(\"mqueue\", \"mqueue\", \"name=q\")";
        assert!(refused(config, "exit;", Dialect::V4).contains("already"));
        assert!(refused(LOAD, "$var(a) = $mqk(nothing);", Dialect::V4).contains("no queue `nothing`"));
    }
}
