//! `federation-cachedb`: contacts stay on the server they registered at; a store says for each address which
//! servers know it, so that the others can send calls there.
//!
//! An address is a map in the store (`location:alice@example.com`) with a field for each server that has
//! contacts of it: the server's SIP address, and as value when the last of them expires. The store forgets
//! the map when nobody renews it.

use super::Usrloc;
use super::cdb;
use super::contact::{Contact, Field};
use crate::clusterer::Clusterer;
use bytes::Bytes;
use host::cachedb::{Cache, CacheError, Store};
use host::load::Loader;
use serde_json::{Value as Json, json};
use std::rc::Rc;
use std::sync::Arc;

/// What the configuration says about it.
#[derive(Default)]
pub struct Settings {
    pub wanted: bool,
    pub location_cluster: u32,
    pub ha_cluster: u32,
    pub ha_tag: String,
}

/// The part of this server in a federation.
pub struct Federation {
    pub cache: Cache,
    clusterer: Arc<Clusterer>,
    cluster: u32,
    /// Only while this tag of this cluster is active here the store is written.
    tag: Option<(Bytes, u32)>,
}

/// Another server that has contacts of an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    pub aor: Bytes,
    /// Its SIP address, `host` or `host:port`.
    pub home: Bytes,
}

impl Federation {
    /// Checks at load what can be checked.
    pub fn new(settings: &Settings, url: Option<&str>, loader: &mut Loader) -> Result<Federation, String> {
        let url = url.ok_or("a federation publishes its addresses in a store: set cachedb_url")?;
        let cache = loader.cache(url)?;
        let what = "a federation needs module clusterer, which says what this server is called (my_node_id, my_node_info with a sip_addr)";
        let clusterer = loader.module::<Clusterer>().ok_or(what)?;
        let cluster = settings.location_cluster;
        if cluster == 0 {
            return Err("a federation needs location_cluster, the cluster_id of its servers".into());
        }
        clusterer.check_addr(cluster)?;
        let tag = match (settings.ha_cluster, settings.ha_tag.as_str()) {
            (0, _) | (_, "") => None,
            (cluster, tag) => Some((Bytes::from(tag.to_string()), cluster)),
        };
        Ok(Federation { cache, clusterer, cluster, tag })
    }

    /// The SIP address of this server; `None` while module clusterer has not read its table.
    fn home(&self) -> Option<Bytes> {
        self.clusterer.sip_addr(self.cluster).map(Bytes::from)
    }

    /// This server is the active one of its pair, or has none.
    fn writes(&self) -> bool {
        self.tag.as_ref().is_none_or(|(name, cluster)| self.clusterer.tags.is_active(name, *cluster))
    }

    /// Says in the store that this server has contacts of an address until a Unix second (0: for ever), or
    /// that it has none.
    pub async fn publish(
        &self,
        store: &Rc<dyn Store>,
        table: &str,
        aor: &[u8],
        until: Option<u32>,
        now: u32,
    ) -> Result<(), CacheError> {
        if !self.writes() {
            return Ok(());
        }
        let home = self.home().ok_or(CacheError::Busy)?;
        let key = cdb::key(table, aor);
        match until {
            Some(until) => {
                let home_ip = String::from_utf8_lossy(&home);
                let value = json!({"home_ip": home_ip, "node_id": self.clusterer.my_id(), "expires": until});
                let life = if until == 0 { 0 } else { until.saturating_sub(now).max(1) };
                cdb::write(store, key, vec![(home, value.to_string().into())], Vec::new(), life).await
            }
            None => cdb::write(store, key, Vec::new(), vec![home], 1).await,
        }
    }

    /// The other servers that have contacts of an address.
    pub async fn remotes(
        &self,
        store: &Rc<dyn Store>,
        table: &str,
        aor: &Bytes,
        now: u32,
    ) -> Result<Vec<Remote>, CacheError> {
        let home = self.home();
        let fields = cdb::read(store, cdb::key(table, aor)).await?;
        let other = |(name, value): &(Bytes, Bytes)| {
            let json: Json = serde_json::from_slice(value).ok()?;
            let until = json["expires"].as_u64()?;
            let there = json["home_ip"].is_string() && (until == 0 || until > u64::from(now));
            (there && home.as_ref() != Some(name)).then(|| Remote { aor: aor.clone(), home: name.clone() })
        };
        let mut found: Vec<Remote> = fields.iter().filter_map(other).collect();
        found.sort_by(|a, b| a.home.cmp(&b.home));
        Ok(found)
    }
}

impl Usrloc {
    /// This server pings the contact: it has no sharing tag, or one that is active here (`pinging_mode`
    /// ownership).
    pub fn owns(&self, shared: &host::Shared, contact: &Contact) -> bool {
        let tag = contact.text(Field::Tag);
        tag.is_empty()
            || shared
                .module::<Clusterer>()
                .is_none_or(|clusterer| clusterer.tags.is_active(tag, self.federated.location_cluster))
    }
}

impl Remote {
    /// Request URI and next hop of a branch that goes to this server.
    pub fn uris(&self, usrloc: &Usrloc) -> (Bytes, Bytes) {
        let hop: Bytes = [b"sip:", &self.home[..]].concat().into();
        let uri = if usrloc.use_domain {
            [b"sip:", &self.aor[..]].concat()
        } else {
            [b"sip:", &self.aor[..], b"@", &self.home].concat()
        };
        (uri.into(), hop)
    }
}
