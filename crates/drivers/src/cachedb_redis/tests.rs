//! Scripts and stores against real servers: one, behind Sentinel, in a Cluster, over TLS.

use super::connect::Target;
use super::store::RedisStore;
use super::{Settings, ms};
use crate::testing::{Folder, Ran, run};
use bytes::Bytes;
use host::cachedb::{CacheError, CacheUrl, Reply, Store};
use host::stats::Counter;
use rcgen::{CertificateParams, KeyPair};
use script::ast::Dialect;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A private server; `None` where Redis is not installed.
struct Redis {
    child: Option<Child>,
    port: u16,
    args: Vec<String>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

impl Redis {
    fn start(folder: &Path, more: &[&str]) -> Redis {
        let port = free_port();
        let mut args: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--dir"].map(str::to_string).into();
        args.push(folder.display().to_string());
        args.extend(more.iter().map(|a| a.replace("PORT", &port.to_string())));
        if !more.contains(&"--port") {
            args.extend(["--port".to_string(), port.to_string()]);
        }
        let mut server = Redis { child: None, port, args };
        server.again();
        server
    }

    fn again(&mut self) {
        let child = Command::new("redis-server").args(&self.args).stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server is installed"));
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(25));
        }
        panic!("redis-server does not listen");
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn script(url: &str, params: &str, body: &str) -> Ran {
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"tls_mgm.so\"\nloadmodule \"cachedb_redis.so\"\nmodparam(\"cachedb_redis\", \"cachedb_url\", \"{url}\")\n{params}"
    );
    run(&config, body, Dialect::V4)
}

#[track_caller]
fn check(url: &str, params: &str, body: &str, expected: &[&str]) {
    let mut found = script(url, params, body).avps("r");
    found.reverse();
    assert_eq!(found, expected, "{url} {body}");
}

const BASICS: &str = r#"cache_store("redis:g", "k", "a value"); cache_fetch("redis:g", "k", $avp(r));
    cache_add("redis:g", "n", 5, 0, $avp(r)); cache_sub("redis:g", "n", 7, 0, $avp(r)); cache_counter_fetch("redis:g", "n", $avp(r));
    cache_remove("redis:g", "k"); $avp(r) = $rc; cache_fetch("redis:g", "k", $var(x)); $avp(r) = $rc; cache_remove("redis:g", "n");"#;
const BASICS_GIVE: &[&str] = &["a value", "5", "-2", "-2", "1", "-2"];

#[test]
fn one_server() {
    let folder = Folder::new("redis-one");
    let server = Redis::start(&folder.0, &["--requirepass", "p@ss/word"]);
    let url = format!("redis:g://:p@ss/word@127.0.0.1:{}/3", server.port);
    check(&url, "", BASICS, BASICS_GIVE);
    check(
        &url,
        "",
        r#"cache_store("redis:g", "t", "x", 100); cache_raw_query("redis:g", "TTL t", "$avp(r)");
            cache_store("redis:g", "t", "x"); cache_counter_fetch("redis:g", "t", $var(x)); $avp(r) = $rc;
            cache_add("redis:g", "t", 1, 0); $avp(r) = $rc; cache_add("redis:g", "m", 1, 50); cache_raw_query("redis:g", "TTL m", "$avp(r)");"#,
        &["100", "-3", "-1", "50"],
    );
    check(
        &url,
        "",
        r#"cache_raw_query("redis:g", "HSET h one 'the first' two 2"); $avp(r) = $rc;
            cache_raw_query("redis:g", "HGET h none", "$avp(x)"); $avp(r) = $rc;
            cache_raw_query("redis:g", "HMGET h one none two", "$avp(y)"); $avp(r) = $rc; $avp(r) = $(avp(y)[0]); $avp(r) = $(avp(y)[2]);
            cache_raw_query("redis:g", "HGETALL empty", "$avp(z)"); $avp(r) = $rc;
            cache_raw_query("redis:g", "NOSUCH h", "$avp(z)"); $avp(r) = $rc;
            cache_raw_query("redis:g", "PING", "$avp(z)"); $avp(r) = $rc;"#,
        &["1", "-2", "1", "the first", "2", "1", "-1", "-1"],
    );
    let wrong = format!("redis:g://:wrong@127.0.0.1:{}/3", server.port);
    check(&wrong, "", r#"cache_fetch("redis:g", "k", $var(x)); $avp(r) = $rc;"#, &["-1"]);
    check("redis:g://127.0.0.1:1/", "", r#"cache_fetch("redis:g", "k", $var(x)); $avp(r) = $rc;"#, &["-1"]);
    let next = format!("redis:g://:p@ss/word@127.0.0.1:1,127.0.0.1:{}/3", server.port);
    check(&next, "", BASICS, BASICS_GIVE);
}

#[test]
fn a_unix_socket() {
    let folder = Folder::new("redis-unix");
    let path = folder.0.join("s").display().to_string();
    let _server = Redis::start(&folder.0, &["--unixsocket", &path]);
    check(&format!("redis:g://localhost/?socket={path}"), "", BASICS, BASICS_GIVE);
}

#[test]
fn a_cluster() {
    let folder = Folder::new("redis-cluster");
    let servers: Vec<Redis> = (0..2)
        .map(|i| {
            let nodes = format!("nodes-{i}.conf");
            Redis::start(
                &folder.0,
                &["--cluster-enabled", "yes", "--cluster-config-file", &nodes, "--appendonly", "no"],
            )
        })
        .collect();
    let cli = |port: u16, args: &[&str]| {
        let out =
            Command::new("redis-cli").args(["-p", &port.to_string()]).args(args).output().expect("redis-cli");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    cli(servers[0].port, &["cluster", "addslotsrange", "0", "8191"]);
    cli(servers[1].port, &["cluster", "addslotsrange", "8192", "16383"]);
    cli(servers[0].port, &["cluster", "meet", "127.0.0.1", &servers[1].port.to_string()]);
    let ready = || {
        servers.iter().all(|s| {
            let info = cli(s.port, &["cluster", "info"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
    };
    for _ in 0..400 {
        if ready() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let url = format!("redis:g://127.0.0.1:{}/", servers[0].port);
    check(&url, "", BASICS, BASICS_GIVE);
    // Keys that live on different nodes.
    check(
        &url,
        "",
        r#"$var(i) = 0; while ($var(i) < 20) { cache_store("redis:g", "key$var(i)", "v"); $var(i) = $var(i) + 1; }
            $var(i) = 0; $var(n) = 0; while ($var(i) < 20) { if (cache_fetch("redis:g", "key$var(i)", $var(x))) $var(n) = $var(n) + 1; $var(i) = $var(i) + 1; }
            $avp(r) = $var(n); cache_raw_query("redis:g", "GET key7", "$avp(r)");"#,
        &["20", "v"],
    );
    let sizes: Vec<String> = servers.iter().map(|s| cli(s.port, &["dbsize"])).collect();
    assert!(sizes.iter().all(|n| n.trim() != "0"), "{sizes:?}");
}

#[test]
fn behind_sentinel() {
    let folder = Folder::new("redis-sentinel");
    let master = Redis::start(&folder.0, &[]);
    let conf = folder.0.join("sentinel.conf");
    std::fs::write(&conf, format!("sentinel monitor main 127.0.0.1 {} 1\n", master.port)).expect("a file");
    let port = free_port();
    let mut sentinel =
        Redis { child: None, port, args: vec![conf.display().to_string(), "--sentinel".to_string()] };
    sentinel.args.extend([
        "--port".to_string(),
        port.to_string(),
        "--bind".to_string(),
        "127.0.0.1".to_string(),
    ]);
    sentinel.again();
    check(&format!("redis:g://127.0.0.1:{port}/?sentinel=main"), "", BASICS, BASICS_GIVE);
}

#[test]
fn over_tls() {
    let folder = Folder::new("redis-tls");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_string()]).expect("parameters");
    let cert = params.self_signed(&key).expect("a certificate");
    let file = |name: &str, text: String| {
        let path = folder.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (cert, key) = (file("cert.pem", cert.pem()), file("key.pem", key.serialize_pem()));
    let server = Redis::start(
        &folder.0,
        &[
            "--port",
            "0",
            "--tls-port",
            "PORT",
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &cert,
        ],
    );
    let url = format!("redis:g://127.0.0.1:{}/?tls_domain=redis", server.port);
    let domain = format!(
        "modparam(\"cachedb_redis\", \"use_tls\", 1)\nmodparam(\"tls_mgm\", \"client_domain\", \"redis\")\nmodparam(\"tls_mgm\", \"ca_list\", \"[redis]{cert}\")\nmodparam(\"tls_mgm\", \"certificate\", \"[redis]{cert}\")\nmodparam(\"tls_mgm\", \"private_key\", \"[redis]{key}\")\n"
    );
    check(&url, &domain, BASICS, BASICS_GIVE);
    let distrusted =
        domain.replacen(&format!("[redis]{cert}"), "[redis]/etc/ssl/certs/ca-certificates.crt", 1);
    if Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        check(&url, &distrusted, r#"cache_fetch("redis:g", "k", $var(x)); $avp(r) = $rc;"#, &["-1"]);
    }
}

/// Runs on a runtime as a worker's.
fn drive(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn store(port: u16) -> RedisStore {
    let url = CacheUrl::parse(&format!("redis://127.0.0.1:{port}/")).expect("a URL");
    let settings = Settings { connect: ms(300), query: ms(300), tls: false, keepalive: 10 };
    let target = Target::new(&url, &settings, &[]).expect("a target");
    RedisStore::new(Arc::new(target), Counter::default(), Counter::default())
}

fn fetch(store: &RedisStore) -> Reply<Option<Bytes>> {
    store.fetch(Bytes::from_static(b"k"))
}

#[test]
fn a_restart_is_survived() {
    let folder = Folder::new("redis-restart");
    let mut server = Redis::start(&folder.0, &[]);
    drive(async {
        let store = store(server.port);
        assert_eq!(fetch(&store).get().await, Ok(None));
        // Lost between two operations: the second one goes over a new connection.
        server.kill();
        server.again();
        assert_eq!(fetch(&store).get().await, Ok(None));
        server.kill();
        let error = fetch(&store).get().await;
        assert!(matches!(error, Err(CacheError::Down(_))), "{error:?}");
        server.again();
        let back = async {
            while fetch(&store).get().await != Ok(None) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), back).await.expect("it is back");
    });
}

#[test]
fn a_server_that_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    drive(async {
        let store = store(silent.local_addr().expect("bound").port());
        let error = fetch(&store).get().await;
        assert!(matches!(error, Err(CacheError::Down(_))), "{error:?}");
    });
    // It stops answering after it was fine.
    let folder = Folder::new("redis-stopped");
    let server = Redis::start(&folder.0, &[]);
    let pid = server.child.as_ref().expect("it runs").id().to_string();
    let signal = |name: &str| Command::new("kill").args([name, &pid]).status().expect("kill");
    drive(async {
        let store = store(server.port);
        assert_eq!(fetch(&store).get().await, Ok(None));
        signal("-STOP");
        assert_eq!(fetch(&store).get().await, Err(CacheError::TimedOut));
        let error = fetch(&store).get().await;
        assert!(matches!(error, Err(CacheError::Down(_))), "{error:?}");
        signal("-CONT");
        let back = async {
            while fetch(&store).get().await != Ok(None) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), back).await.expect("it is back");
    });
}
