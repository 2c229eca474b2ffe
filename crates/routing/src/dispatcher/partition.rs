//! Partitions: sets of destinations with a table, AVPs and probes of their own.

use super::data::Data;
use crate::destinations::{BlacklistedSets, Probe, avp_of_param};
use host::avp::AvpName;
use host::db::Db;
use host::load::Loader;
use host::{InParam, LoadError};
use modules::cached::Cached;

/// The partition of functions and commands that name none.
pub const DEFAULT: &str = "default";

/// What `partition` and the parameters of the default one say, as text; `None`: not said.
#[derive(Clone, Default)]
pub struct Wish {
    pub name: String,
    pub db_url: Option<String>,
    pub table_name: Option<String>,
    pub dst_avp: Option<String>,
    pub grp_avp: Option<String>,
    pub cnt_avp: Option<String>,
    pub sock_avp: Option<String>,
    pub attrs_avp: Option<String>,
    pub script_attrs_avp: Option<String>,
    pub ping_from: Option<String>,
    pub ping_method: Option<String>,
    pub ping_sock: Option<String>,
    pub persistent_state: Option<String>,
    pub blacklists: Vec<BlacklistedSets>,
}

impl Wish {
    /// Sets one property of `partition`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let slot = match name {
            "db_url" => &mut self.db_url,
            "table_name" => &mut self.table_name,
            "dst_avp" => &mut self.dst_avp,
            "grp_avp" => &mut self.grp_avp,
            "cnt_avp" => &mut self.cnt_avp,
            "sock_avp" => &mut self.sock_avp,
            "attrs_avp" => &mut self.attrs_avp,
            "script_attrs_avp" => &mut self.script_attrs_avp,
            "ping_from" => &mut self.ping_from,
            "ping_method" => &mut self.ping_method,
            "ping_sock" => &mut self.ping_sock,
            "persistent_state" => &mut self.persistent_state,
            "ds_define_blacklist" => {
                self.blacklists.push(BlacklistedSets::parse(value)?);
                return Ok(());
            }
            other => return Err(format!("a partition has no property `{other}`")),
        };
        *slot = Some(value.to_owned());
        Ok(())
    }

    /// Takes what it does not say from the default partition; AVPs get its name at their end.
    fn inherit(&mut self, of: &Wish) {
        let suffix = format!("_{})", self.name);
        let avp = |text: &String| match text.rfind(')') {
            Some(at) => format!("{}{suffix}{}", &text[..at], &text[at + 1..]),
            None => text.clone(),
        };
        for (mine, theirs) in [
            (&mut self.dst_avp, &of.dst_avp),
            (&mut self.grp_avp, &of.grp_avp),
            (&mut self.cnt_avp, &of.cnt_avp),
            (&mut self.sock_avp, &of.sock_avp),
            (&mut self.attrs_avp, &of.attrs_avp),
            (&mut self.script_attrs_avp, &of.script_attrs_avp),
        ] {
            if mine.is_none() {
                *mine = theirs.as_ref().map(avp);
            }
        }
        for (mine, theirs) in [
            (&mut self.db_url, &of.db_url),
            (&mut self.table_name, &of.table_name),
            (&mut self.ping_from, &of.ping_from),
            (&mut self.ping_method, &of.ping_method),
            (&mut self.ping_sock, &of.ping_sock),
            (&mut self.persistent_state, &of.persistent_state),
        ] {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        }
    }

    /// What the manual says for the default partition.
    fn fill(&mut self) {
        let with = |slot: &mut Option<String>, text: &str| {
            slot.get_or_insert_with(|| text.to_owned());
        };
        with(&mut self.table_name, "dispatcher");
        with(&mut self.dst_avp, "$avp(ds_dst_failover)");
        with(&mut self.grp_avp, "$avp(ds_grp_failover)");
        with(&mut self.cnt_avp, "$avp(ds_cnt_failover)");
        with(&mut self.sock_avp, "$avp(ds_sock_failover)");
        with(&mut self.persistent_state, "1");
    }
}

/// Everything that `partition` and the parameters of the default one said.
#[derive(Default)]
pub struct Wishes {
    pub default: Wish,
    /// As they were defined.
    pub others: Vec<Wish>,
    /// `default: name`
    pub stands_for_default: Option<String>,
}

impl Wishes {
    /// `name: property = value; ...`, or `default: name`.
    pub fn define(&mut self, text: &str) -> Result<(), String> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) if !rest.is_empty() && !rest.starts_with('/') => {
                (name.trim(), rest.trim_start())
            }
            _ => ("", text),
        };
        let rest = rest.trim().trim_end_matches(';').trim_end();
        let is_default = name.is_empty() || name == DEFAULT;
        if is_default && !rest.contains('=') {
            self.stands_for_default = Some(rest.to_owned()).filter(|name| !name.is_empty());
            return Ok(());
        }
        let wish = if is_default { &mut self.default } else { named(&mut self.others, name) };
        // A value may hold `=` (a blacklist does), a property ends at `;`.
        for pair in rest.split(';').filter(|pair| pair.contains('=')) {
            let (property, value) = pair.split_once('=').expect("it has one");
            let (property, value) = (property.trim(), value.trim());
            if property.is_empty() || value.is_empty() {
                return Err(format!("partition {name}: `{}` has no name or no value", pair.trim()));
            }
            wish.set(property, value).map_err(|why| format!("partition {name}: {why}"))?;
        }
        Ok(())
    }

    /// The partitions in the order of lists: as defined, the default one last.
    pub fn build(&mut self, loader: &mut Loader, probe: &Probe) -> Result<Vec<Partition>, LoadError> {
        if self.default.db_url.is_none() {
            self.default.db_url = loader.globals.core.db_default_url.clone();
        }
        self.default.fill();
        let mut wishes: Vec<(bool, Wish)> = Vec::new();
        for mut wish in std::mem::take(&mut self.others) {
            wish.inherit(&self.default);
            let stands = self.stands_for_default.as_ref() == Some(&wish.name);
            wishes.push((stands, wish));
        }
        match &self.stands_for_default {
            None => wishes.push((true, Wish { name: DEFAULT.into(), ..std::mem::take(&mut self.default) })),
            Some(name) if !wishes.iter().any(|(stands, _)| *stands) => {
                let why = format!("{name}, which is to be the default one, is not defined");
                return Err(LoadError::from(why).in_param("partition"));
            }
            Some(_) => {}
        }
        let partition = |(default, wish)| {
            let made = Partition::new(wish, default, loader, probe);
            if default { made.map_err(LoadError::from) } else { made.in_param("partition") }
        };
        wishes.into_iter().map(partition).collect()
    }
}

/// The partition of a name, made when there is none. As in the reference a name that begins the name of one that was
/// defined before means that one.
fn named<'a>(others: &'a mut Vec<Wish>, name: &str) -> &'a mut Wish {
    let at = match others.iter().rposition(|wish| wish.name.starts_with(name)) {
        Some(at) => at,
        None => {
            others.push(Wish { name: name.to_owned(), ..Wish::default() });
            others.len() - 1
        }
    };
    if others[at].name != name {
        host::warn!(
            "dispatcher",
            "partition {name} is taken for {}, whose name begins with it: choose other names",
            others[at].name
        );
    }
    &mut others[at]
}

/// Where a transaction keeps what it must remember.
pub struct Avps {
    pub dst: AvpName,
    pub grp: AvpName,
    pub cnt: AvpName,
    pub sock: AvpName,
    pub attrs: Option<AvpName>,
    pub script_attrs: Option<AvpName>,
}

pub struct Partition {
    pub name: String,
    pub is_default: bool,
    pub db: Db,
    pub table: String,
    pub avps: Avps,
    pub probe: Probe,
    /// States are read from the table, and written back.
    pub persistent: bool,
    pub blacklists: Vec<BlacklistedSets>,
    pub data: Cached<Data>,
    /// "name;events", the identifier of reports about states.
    pub events: String,
}

impl Partition {
    fn new(wish: Wish, is_default: bool, loader: &mut Loader, probe: &Probe) -> Result<Partition, String> {
        let name = wish.name;
        let url = wish.db_url.filter(|url| !url.is_empty());
        let url = url.ok_or_else(|| format!("partition {name} has no database: set db_url"))?;
        let avp = |what: &str, text: &Option<String>| avp_of_param(what, text.as_deref().unwrap_or_default());
        let optional = |what: &str, text: &Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => avp_of_param(what, text).map(Some),
        };
        let avps = Avps {
            dst: avp("dst_avp", &wish.dst_avp)?,
            grp: avp("grp_avp", &wish.grp_avp)?,
            cnt: avp("cnt_avp", &wish.cnt_avp)?,
            sock: avp("sock_avp", &wish.sock_avp)?,
            attrs: optional("attrs_avp", &wish.attrs_avp)?,
            script_attrs: optional("script_attrs_avp", &wish.script_attrs_avp)?,
        };
        let mut probe = probe.clone();
        if let Some(from) = wish.ping_from.filter(|from| !from.is_empty()) {
            if sip::Uri::parse(&from.clone().into()).is_err() {
                return Err(format!("ping_from: {from} is no SIP URI"));
            }
            probe.from = from;
        }
        if let Some(method) = wish.ping_method.filter(|method| !method.is_empty()) {
            probe.method = method;
        }
        if let Some(socket) = wish.ping_sock.filter(|socket| !socket.is_empty()) {
            let found = host::shared::socket_named(&loader.globals.sockets, &socket);
            probe.socket =
                Some(found.ok_or_else(|| format!("ping_sock: {socket} is no socket of this server"))?);
        }
        let mut blacklists = wish.blacklists;
        for list in &mut blacklists {
            list.declare(loader, "dispatcher")?;
        }
        Ok(Partition {
            db: loader.db(&url)?,
            table: wish.table_name.unwrap_or_default(),
            avps,
            probe,
            persistent: !matches!(wish.persistent_state.as_deref(), Some("0" | "no" | "off")),
            blacklists,
            data: Cached::default(),
            events: format!("{name};events"),
            is_default,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions() {
        let mut wishes = Wishes::default();
        wishes.define("trunks: table_name = t; attrs_avp = $avp(at);").expect("one");
        wishes.define("vm:\n db_url = sqlite:///d; ds_define_blacklist = l = 4,6").expect("another");
        wishes.define("default: trunks").expect("the default one");
        assert_eq!(wishes.stands_for_default.as_deref(), Some("trunks"));
        let names: Vec<_> = wishes.others.iter().map(|wish| wish.name.as_str()).collect();
        assert_eq!(names, ["trunks", "vm"]);
        assert_eq!(wishes.others[0].table_name.as_deref(), Some("t"));
        assert_eq!(wishes.others[1].blacklists[0].sets, [4, 6]);
        for wrong in ["x: table_name = ", "x: colour = red", "x: = 1"] {
            assert!(wishes.define(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_inherited() {
        let mut default = Wish { db_url: Some("u".into()), ..Wish::default() };
        default.fill();
        let mut wish = Wish { name: "p".into(), grp_avp: Some("$avp(g)".into()), ..Wish::default() };
        wish.inherit(&default);
        assert_eq!(wish.dst_avp.as_deref(), Some("$avp(ds_dst_failover_p)"));
        assert_eq!((wish.grp_avp.as_deref(), wish.db_url.as_deref()), (Some("$avp(g)"), Some("u")));
        assert_eq!(wish.attrs_avp, None);
    }
}
