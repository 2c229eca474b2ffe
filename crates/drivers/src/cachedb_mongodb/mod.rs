//! cachedb_mongodb: documents of MongoDB as a key-value store, and raw commands in JSON.

mod store;

use host::cachedb::{Cache, CacheUrl, Engine, Store};
use host::registrar::Stage;
use host::{Ctx, Registrar};
use std::rc::Rc;
use std::sync::Arc;
use store::{MongoStore, Place};

#[derive(Default)]
pub struct CachedbMongodb {
    urls: Vec<String>,
    slow_us: u64,
}

pub fn register(m: &mut Registrar<CachedbMongodb>) {
    m.stage(Stage::Driver);
    m.param_text("cachedb_url", |m, url| Ok(m.urls.push(url.to_string())));
    m.param_int("exec_threshold", |m, us| Ok(m.slow_us = us.max(0) as u64));
    m.ignored(&["op_timeout", "slave_ok", "write_concern"], "URLs say it: readPreference, w, wtimeoutMS ...");
    m.ignored(&["compat_mode_2.4", "compat_mode_3.0"], "the driver speaks to servers of 4.0 and later");
    m.init(|m, loader| {
        crate::tls::install_provider();
        loader.cache_engine("mongodb", Arc::new(Mongo { slow_us: m.slow_us }));
        m.urls.iter().try_for_each(|url| loader.named_cache(url).map(drop))
    });
}

struct Mongo {
    slow_us: u64,
}

impl Engine for Mongo {
    fn module(&self) -> &'static str {
        "cachedb_mongodb"
    }

    fn check(&self, url: &CacheUrl) -> Result<(), String> {
        Place::new(url).map(drop)
    }

    fn connect(&self, cache: &Cache, ctx: &mut Ctx) -> Rc<dyn Store> {
        let place = Place::new(cache.url()).expect("checked at load");
        // Each worker has an outage of its own here: the first one's is shown.
        ctx.shared().tell_backend("cachedb_mongodb", place.name.clone(), place.outage.clone());
        Rc::new(MongoStore::new(place))
    }

    fn slow_us(&self) -> u64 {
        self.slow_us
    }
}

#[cfg(test)]
mod tests;
