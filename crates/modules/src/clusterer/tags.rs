//! Sharing tags: a node that has a tag active does the work that goes with it. Other nodes do not hear of a
//! change: whoever makes one node active makes the other one a backup (a script of the floating address).

use super::Clusterer;
use bytes::Bytes;
use host::events::raise;
use host::mi::{MiError, MiParams, MiResult};
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::{Call, Ctx, Registrar, Value};
use parking_lot::RwLock;
use script::ast::AssignOp;
use serde_json::json;
use std::sync::Arc;

const CHANGED: &str = "E_CLUSTERER_SHARING_TAG_CHANGED";

struct Tag {
    name: Bytes,
    cluster: u32,
    active: bool,
}

/// The tags that this node knows.
#[derive(Default)]
pub struct Tags(RwLock<Vec<Tag>>);

impl Tags {
    /// `vip1/2=active`
    pub fn define(&mut self, text: &str) -> Result<(), String> {
        let bad = || format!("`{text}`: a sharing tag is name/cluster=active or name/cluster=backup");
        let (tag, state) = text.split_once('=').ok_or_else(bad)?;
        let (name, cluster) = split(tag.as_bytes()).ok_or_else(bad)?;
        let active = match state.trim() {
            "active" => true,
            "backup" => false,
            _ => return Err(bad()),
        };
        self.0.get_mut().push(Tag { name: Bytes::copy_from_slice(name), cluster, active });
        Ok(())
    }

    /// The tag is active on this node; one that nobody defined is not.
    pub fn is_active(&self, name: &[u8], cluster: u32) -> bool {
        self.0.read().iter().any(|t| t.name == name && t.cluster == cluster && t.active)
    }

    /// The same for `name`, in any cluster, or `name/cluster`.
    pub fn is_active_in_any(&self, text: &[u8]) -> bool {
        let (name, cluster): (&[u8], Option<u32>) = match text.iter().position(|b| *b == b'/') {
            Some(at) => {
                (&text[..at], std::str::from_utf8(&text[at + 1..]).ok().and_then(|c| c.trim().parse().ok()))
            }
            None => (text, None),
        };
        let fits = |t: &Tag| t.name == name && cluster.is_none_or(|c| t.cluster == c) && t.active;
        self.0.read().iter().any(fits)
    }

    /// `name/cluster` of the tags that are active here.
    pub fn active(&self) -> Vec<String> {
        let tags = self.0.read();
        let active = tags.iter().filter(|t| t.active);
        active.map(|t| format!("{}/{}", String::from_utf8_lossy(&t.name), t.cluster)).collect()
    }

    fn set(&self, name: &[u8], cluster: u32, active: bool) -> bool {
        let mut tags = self.0.write();
        match tags.iter_mut().find(|t| t.name == name && t.cluster == cluster) {
            Some(tag) => std::mem::replace(&mut tag.active, active) != active,
            None => {
                tags.push(Tag { name: Bytes::copy_from_slice(name), cluster, active });
                active
            }
        }
    }
}

/// "vip1/2", spaces allowed around its parts.
fn split(tag: &[u8]) -> Option<(&[u8], u32)> {
    let at = tag.iter().rposition(|b| *b == b'/')?;
    let cluster = std::str::from_utf8(&tag[at + 1..]).ok()?.trim().parse().ok().filter(|c| *c > 0)?;
    let name = tag[..at].trim_ascii();
    (!name.is_empty()).then_some((name, cluster))
}

pub fn register(m: &mut Registrar<Clusterer>) {
    m.variable_class("cluster.sh_tag", |spec, loader, module| {
        let name = Name::new(spec, loader, "$cluster.sh_tag(vip/1)")?;
        Ok(VarKind::Other(Box::new(ShTag(name, module.clone()))))
    });
    m.command(
        "clusterer:list_shtags clusterer_list_shtags",
        "sharing tags and whether they are active here",
        list,
    )
    .takes("");
    m.command(
        "clusterer:shtag_set_active clusterer_shtag_set_active",
        "makes a tag active on this node",
        set_active,
    )
    .takes("tag");
    m.command(
        "clusterer:shtag_set_backup clusterer_shtag_set_backup",
        "makes this node a backup for a tag (Fermata's own)",
        set_backup,
    )
    .takes("tag");
    m.ready(|_, hooks, _| hooks.raises([CHANGED]));
}

/// `$cluster.sh_tag(vip/1)`: "active" or "backup"; assigning "active" or 1 makes it active.
struct ShTag(Name, Arc<Clusterer>);

impl ShTag {
    fn is_active(&self, ctx: &mut Ctx) -> Option<bool> {
        let name = self.0.text(ctx)?;
        let (name, cluster) = split(&name)?;
        Some(self.1.tags.is_active(name, cluster))
    }
}

impl Variable for ShTag {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        match self.is_active(ctx) {
            Some(active) => Value::from(Bytes::from_static(if active { b"active" } else { b"backup" })),
            None => Value::Null,
        }
    }

    fn equals(&self, ctx: &mut Ctx, left: &Value) -> Option<bool> {
        let active = self.is_active(ctx)?;
        left.int().filter(|n| matches!(n, 0 | 1)).map(|n| (n == 1) == active)
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let active =
            value.int() == Some(1) || value.text().is_some_and(|t| t.eq_ignore_ascii_case(b"active"));
        let Some(name) = self.0.text(ctx).filter(|_| active) else { return false };
        let Some((name, cluster)) = split(&name) else { return false };
        change(ctx, &self.1, name, cluster, true, "script variable");
        true
    }

    fn writable(&self) -> bool {
        true
    }
}

fn change(ctx: &mut Ctx, module: &Clusterer, name: &[u8], cluster: u32, active: bool, reason: &'static str) {
    if !module.tags.set(name, cluster, active) {
        return;
    }
    let state = if active { "active" } else { "backup" };
    host::notice!(
        "clusterer",
        "tag {}, cluster {cluster}, became {state} ({reason})",
        String::from_utf8_lossy(name)
    );
    let text = |t: &'static str| Value::from(Bytes::from_static(t.as_bytes()));
    let params = [
        ("name", Value::from(Bytes::copy_from_slice(name))),
        ("cluster", Value::from(i64::from(cluster))),
        ("state", text(state)),
        ("reason", text(reason)),
    ];
    raise(ctx, CHANGED, params.into_iter().collect());
    let tag = format!("{}/{cluster}", String::from_utf8_lossy(name));
    ctx.on_worker(0, move |ctx: &mut Ctx| {
        let listeners = ctx.local::<Listeners>().0.clone();
        listeners.iter().for_each(|listener| listener(ctx, &tag, active));
    });
}

/// Hears of tags (`name/cluster`) that became active here, or backup.
pub type Listener = std::rc::Rc<dyn Fn(&mut Ctx, &str, bool)>;

#[derive(Default)]
struct Listeners(Vec<Listener>);

/// Adds a listener, on worker 0.
pub fn listen(ctx: &mut Ctx, listener: Listener) {
    ctx.local::<Listeners>().0.push(listener);
}

fn list(call: &mut Call<Clusterer>, _: &MiParams) -> MiResult {
    let tags = call.module.tags.0.read();
    let shown = |t: &Tag| {
        let state = if t.active { "active" } else { "backup" };
        json!({"Tag": String::from_utf8_lossy(&t.name), "Cluster": t.cluster, "State": state})
    };
    Ok(tags.iter().map(shown).collect())
}

fn set_active(call: &mut Call<Clusterer>, params: &MiParams) -> MiResult {
    set(call, params, true)
}

fn set_backup(call: &mut Call<Clusterer>, params: &MiParams) -> MiResult {
    set(call, params, false)
}

fn set(call: &mut Call<Clusterer>, params: &MiParams, active: bool) -> MiResult {
    let tag = params.need("tag", 0)?;
    let bad = || MiError::new(400, "Bad tag format, must be \"tag/cluster_id\"");
    let (name, cluster) = split(tag.as_bytes()).ok_or_else(bad)?;
    let module = call.module.clone();
    change(call.ctx, &module, name, cluster, active, "MI command");
    Ok(json!("OK"))
}
