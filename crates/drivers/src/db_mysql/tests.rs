use super::*;
use crate::sql::real::{self, Bench, Words};
use crate::sql::server::{self, Server};
use host::db::Query;

fn bench(port: u16, seconds: u64) -> Bench<MySql> {
    let url = format!("mysql://root@127.0.0.1:{port}/mysql");
    let timeout = Duration::from_secs(seconds);
    let driver = Arc::new(MySqlDriver { timeout, slow_us: 0, tls: false });
    let parsed = DbUrl::parse(&url).expect("a URL");
    Bench::new(&url, driver, MySql { options: options(&parsed, &Tls::default()), timeout })
}

#[test]
fn a_real_server() {
    let Some(mut server) = Server::new(server::ServerKind::MariaDb) else {
        println!("skipped: mariadb-server is not installed");
        return;
    };
    let b = bench(server.port, 5);
    let words = Words {
        create: "create table t (id int auto_increment primary key, name varchar(64) unique, n int, x double, \
                 seen datetime, b blob, nothing varchar(5))",
        sleep: "select sleep(1000)",
        sleeping: "select count(*) from information_schema.processlist where info like 'select sleep(1%'",
    };
    real::drive(async {
        real::check(&b, &mut server, &words).await;
        real::tables(&b).await;
        let text = "select cast(2 as unsigned), 18446744073709551615, b'101', 2.50, '0000-00-00 00:00:00'";
        let rows = b.run(Query::raw(text)).await.expect("selects");
        let expected = [
            DbValue::Int(2),
            "18446744073709551615".into(),
            DbValue::Int(5),
            "2.50".into(),
            "0000-00-00 00:00:00".into(),
        ];
        assert_eq!(rows.first().expect("a row").cells[0], expected[0]);
        assert_eq!(rows.first().expect("a row").cells[1], expected[1]);
        assert_eq!(rows.first().expect("a row").cells[3..], expected[3..]);
        b.run(Query::raw("select 1; select 2")).await.expect_err("several statements");
        let done = b.run(Query::insert("t").set("name", "next")).await.expect("inserts");
        assert!(done.insert_id > 0);
    });
}

#[test]
fn a_silent_server_fails_within_its_timeout() {
    real::drive(real::silent(|port| bench(port, 1)));
}
