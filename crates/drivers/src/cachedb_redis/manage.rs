//! Management: what the servers behind the connections of one worker say of themselves.
#![expect(
    clippy::disallowed_methods,
    reason = "connections to servers are real I/O: they live outside the worker"
)]

use super::CachedbRedis;
use super::connect::Conn;
use super::store::{RedisStore, Seen};
use futures_util::future::join_all;
use host::cachedb::Cache;
use host::mi::{MiAnswer, MiParams};
use host::stats::Counter;
use host::{Call, Ctx, Finish, Registrar};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, Value, cmd};
use serde_json::{Value as Json, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longest that one server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT_MS: u64 = 30_000;

/// A connection of this worker.
#[derive(Clone)]
struct Known {
    cache: Cache,
    store: RedisStore,
    refreshes: Counter,
    /// Times that its topology was asked for by command, and when last (Unix time).
    refreshed: Rc<Cell<(u64, i64)>>,
}

#[derive(Default)]
struct Connections(Vec<Known>);

/// The store of a cache was made on this worker.
pub fn remember(ctx: &mut Ctx, cache: &Cache, store: &RedisStore, refreshes: Counter) {
    let (cache, store, refreshed) = (cache.clone(), store.clone(), Rc::default());
    ctx.local::<Connections>().0.push(Known { cache, store, refreshes, refreshed });
}

pub fn register(m: &mut Registrar<CachedbRedis>) {
    m.command_late("redis_cluster_info", "connections and their nodes", |call, p, a| {
        each(call, p, a, |known, _| async move { info(&known).await });
    })
    .takes("[group]");
    m.command_late("redis_cluster_refresh", "asks Clusters for their nodes", |call, p, a| {
        each(call, p, a, |known, now| async move { refresh(&known, now).await });
    })
    .takes("[group]");
    m.command_late("redis_ping_nodes", "asks every node for an answer", |call, p, a| {
        each(call, p, a, |known, _| async move { ping(&known).await });
    })
    .takes("[group]");
}

/// Does something with each connection, of one group if the parameters say so, and gives the list.
fn each<F: Future<Output = Json> + 'static>(
    call: &mut Call<CachedbRedis>,
    params: &MiParams,
    answer: MiAnswer,
    what: fn(Known, i64) -> F,
) {
    let group = params.text("group", 0);
    let wanted = |cache: &Cache| group.as_deref().is_none_or(|group| cache.url().group == group);
    // A worker that has not used one yet connects now.
    for cache in call.module.caches.clone().iter().filter(|cache| wanted(cache)) {
        cache.on(call.ctx);
    }
    let now = (call.core.wall_us / 1_000_000) as i64;
    let list = call.local::<Connections>().0.iter().filter(|known| wanted(&known.cache));
    let asked: Vec<_> = list.map(|known| what(known.clone(), now)).collect();
    call.spawn("redis command", LIMIT_MS, async move {
        let list = join_all(asked).await;
        Box::new(move |_: &mut Ctx| {
            answer.give(Ok(Json::Array(list)));
            1
        }) as Finish
    });
}

/// One node as a Cluster describes it.
struct Node {
    ip: String,
    port: u16,
    slots: i64,
}

/// `CLUSTER SLOTS`: the masters and how many slots each has.
async fn masters(conn: &mut Conn) -> Vec<Node> {
    let Ok(Ok(Value::Array(ranges))) = timeout(PATIENCE, conn.run(cmd("CLUSTER").arg("SLOTS"))).await else {
        return Vec::new();
    };
    let mut nodes: Vec<Node> = Vec::new();
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = &parts[..] else { continue };
        let [Value::BulkString(ip), Value::Int(port), ..] = &node[..] else { continue };
        let (ip, port) = (String::from_utf8_lossy(ip).into_owned(), *port as u16);
        let slots = last - first + 1;
        match nodes.iter_mut().find(|n| n.ip == ip && n.port == port) {
            Some(node) => node.slots += slots,
            None => nodes.push(Node { ip, port, slots }),
        }
    }
    nodes
}

/// The round trip of a PING, microseconds.
async fn round_trip(conn: &mut Conn, node: Option<&Node>) -> Option<u64> {
    let since = Instant::now();
    let ping = cmd("PING");
    let asked = async {
        match (conn, node) {
            (Conn::Cluster(conn), Some(node)) => {
                let at = SingleNodeRoutingInfo::ByAddress { host: node.ip.clone(), port: node.port };
                conn.route_command(Cmd::clone(&ping), RoutingInfo::SingleNode(at)).await
            }
            (conn, _) => conn.run(&ping).await,
        }
    };
    timeout(PATIENCE, asked).await.ok()?.ok()?;
    Some(since.elapsed().as_micros() as u64)
}

/// The server of a connection that leads to one.
fn address(known: &Known) -> (Json, Json) {
    let url = known.cache.url();
    match (url.param("socket"), url.hosts.first()) {
        (Some(path), _) => (json!(path), json!(0)),
        (None, Some(host)) => (json!(host.name), json!(host.port.unwrap_or(6379))),
        (None, None) => (json!(""), json!(0)),
    }
}

fn counts(seen: &Seen) -> (Json, Json, Json) {
    let idle = seen.last.get().map_or(-1, |at| at.elapsed().as_secs() as i64);
    (json!(seen.queries.get()), json!(seen.errors.get()), json!(idle))
}

async fn info(known: &Known) -> Json {
    let url = known.cache.url();
    let (queries, errors, idle) = counts(&known.store.seen);
    let conn =
        timeout(PATIENCE, known.store.link.conn()).await.ok().and_then(Result::ok).map(|(conn, _)| conn);
    let Some(Conn::Cluster(cluster)) = conn else {
        let (ip, port) = address(known);
        let status = if conn.is_some() { "connected" } else { "disconnected" };
        let transport = if url.param("socket").is_some() { "unix" } else { "tcp" };
        return json!({"group": url.group, "url": known.store.link.name(), "mode": "single", "nodes": [{
            "ip": ip, "port": port, "transport": transport, "status": status, "queries": queries,
            "errors": errors, "last_activity": idle,
        }]});
    };
    let mut conn = Conn::Cluster(cluster);
    let nodes = masters(&mut conn).await;
    let total: i64 = nodes.iter().map(|node| node.slots).sum();
    let mut list = Vec::new();
    for node in &nodes {
        let there = round_trip(&mut conn, Some(node)).await.is_some();
        let status = if there { "connected" } else { "disconnected" };
        list.push(json!({"ip": node.ip, "port": node.port, "status": status, "slots_assigned": node.slots}));
    }
    let (refreshes, last) = known.refreshed.get();
    json!({
        "group": url.group, "url": known.store.link.name(), "mode": "cluster", "cluster_command": "SLOTS",
        "topology_refreshes": refreshes, "last_topology_refresh": last, "queries": queries, "errors": errors,
        "last_activity": idle, "nodes": list, "total_slots_mapped": total,
    })
}

async fn refresh(known: &Known, now: i64) -> Json {
    let link = &known.store.link;
    let status = match timeout(PATIENCE, link.conn()).await {
        Ok(Ok((Conn::Cluster(_), _))) => {
            known.refreshes.up();
            known.refreshed.set((known.refreshed.get().0 + 1, now));
            match timeout(PATIENCE, link.renew()).await {
                Ok(Ok(())) => "ok",
                _ => "error",
            }
        }
        Ok(Ok(_)) => "skipped (not cluster mode)",
        _ => "error",
    };
    json!({"group": known.cache.url().group, "status": status})
}

async fn ping(known: &Known) -> Json {
    let group = &known.cache.url().group;
    let shown = |ip: Json, port: Json, took: Option<u64>| {
        let status = if took.is_some() { "reachable" } else { "unreachable" };
        json!({"ip": ip, "port": port, "status": status, "latency_us": took.map_or(-1, |us| us as i64)})
    };
    let (ip, port) = address(known);
    let link = &known.store.link;
    let Ok(Ok((mut conn, number))) = timeout(PATIENCE, link.conn()).await else {
        let nodes = [json!({"ip": ip, "port": port, "status": "disconnected", "latency_us": -1})];
        return json!({"group": group, "nodes": nodes});
    };
    if let Conn::One(_) = conn {
        let took = round_trip(&mut conn, None).await;
        if took.is_none() {
            link.lost(number, "no answer to PING");
        }
        return json!({"group": group, "nodes": [shown(ip, port, took)]});
    }
    let mut list = Vec::new();
    for node in masters(&mut conn).await {
        let took = round_trip(&mut conn, Some(&node)).await;
        list.push(shown(json!(node.ip), json!(node.port), took));
    }
    json!({"group": group, "nodes": list})
}
