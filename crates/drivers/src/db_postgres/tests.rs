use super::*;
use crate::sql::real::{self, Bench, Words};
use crate::sql::server::{self, Server};
use host::db::Query;

fn bench(port: u16, seconds: u64) -> Bench<Postgres> {
    let url = format!("postgres://fermata:secret@127.0.0.1:{port}/postgres");
    let timeout = Duration::from_secs(seconds);
    let driver = Arc::new(PgDriver { timeout, slow_us: 0, tls: false });
    let parsed = DbUrl::parse(&url).expect("a URL");
    Bench::new(&url, driver, Postgres { options: options(&parsed, &Tls::default()), timeout })
}

#[test]
fn a_real_server() {
    let Some(mut server) = Server::new(server::ServerKind::Postgres) else {
        println!("skipped: postgresql is not installed");
        return;
    };
    let b = bench(server.port, 5);
    let words = Words {
        create: "create table t (id serial primary key, name varchar(64) unique, n int, x double precision, \
                 seen timestamp, b bytea, nothing varchar(5))",
        sleep: "select pg_sleep(1000)",
        sleeping: "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep%'",
    };
    real::drive(async {
        real::check(&b, &mut server, &words).await;
        real::tables(&b).await;
        let text = "select true, 2.50::numeric, null, '{1,2}'::int[], 5::bigint, timestamptz '1970-01-01 00:00:10+00'";
        let rows = b.run(Query::raw(text)).await.expect("selects");
        let expected = [
            DbValue::Int(1),
            "2.50".into(),
            DbValue::Null,
            "{1,2}".into(),
            DbValue::Int(5),
            DbValue::Time(10),
        ];
        assert_eq!(rows.first().expect("a row").cells, expected);
    });
}

#[test]
fn a_silent_server_fails_within_its_timeout() {
    real::drive(real::silent(|port| bench(port, 1)));
}
