//! Domains in a database (`db_url`): read when the server starts and by `tls_reload`.

use super::{Domain, HasDomains, Pem, TlsMgm, list};
use host::db::{Db, Name, Query, Row, Rows};
use host::load::Loader;
use host::mi::{MiAnswer, MiError, MiParams};
use host::{Call, Registrar};
use serde_json::json;
use std::sync::Arc;

/// A table that was not read at start is tried again this often.
const RETRY_MS: u64 = 5_000;
/// `type` of a server's domain; 1 is a client's.
const SERVER: i64 = 2;

/// Where the rows are.
pub struct Table {
    url: Option<String>,
    db: Option<Db>,
    name: Name,
    columns: Columns,
}

/// In the order in which they are read.
struct Columns([Name; 12]);

impl Default for Table {
    fn default() -> Table {
        let columns = [
            "domain",
            "match_ip_address",
            "match_sip_domain",
            "type",
            "method",
            "verify_cert",
            "require_cert",
            "certificate",
            "private_key",
            "crl_dir",
            "ca_list",
            "ca_dir",
        ];
        Table { url: None, db: None, name: "tls_mgm".into(), columns: Columns(columns.map(Name::from)) }
    }
}

pub fn register(m: &mut Registrar<TlsMgm>) {
    macro_rules! columns {
        ($($name:literal $at:literal),* $(,)?) => {
            $(m.param_text($name, |m, v| Ok(m.domains().table.columns.0[$at] = v.to_string().into()));)*
        };
    }
    m.param_text("db_url", |m, v| Ok(m.table.url = Some(v.into())));
    m.asks_for(|m| m.table.url.as_deref().and_then(host::db::driver_of));
    m.param_text("db_table", |m, v| Ok(m.table.name = v.to_string().into()));
    columns!(
        "domain_col" 0, "match_ip_address_col" 1, "match_sip_domain_col" 2, "type_col" 3, "tls_method_col" 4,
        "verify_cert_col" 5, "require_cert_col" 6, "certificate_col" 7, "private_key_col" 8, "crl_dir_col" 9,
        "ca_list_col" 10, "ca_dir_col" 11,
    );
    m.ignored(
        &["crl_check_all_col", "cipher_list_col", "dh_params_col", "ec_curve_col"],
        "what these columns hold has no effect",
    );
    for name in ["tls_reload", "tls_mgm:reload"] {
        m.command_late(name, "reads all TLS domains and their files again", reload).takes("");
    }
    m.start(|call| {
        if call.core.worker == 0 {
            load(call, None);
        }
    });
    m.timer(RETRY_MS, |call| {
        if !call.module.live.is_read() {
            load(call, None);
        }
    });
}

impl Table {
    /// The error is what a user should read.
    pub fn open(&mut self, loader: &mut Loader) -> Result<(), String> {
        self.db = self.url.as_deref().map(|url| loader.db(url)).transpose()?;
        Ok(())
    }

    pub fn is_used(&self) -> bool {
        self.db.is_some()
    }
}

fn reload(call: &mut Call<TlsMgm>, _: &MiParams, answer: MiAnswer) {
    load(call, Some(answer));
}

/// Reads the rows, if there are some to be read, and all files.
fn load(call: &mut Call<TlsMgm>, answer: Option<MiAnswer>) {
    let module = call.module.clone();
    let Some(db) = &module.table.db else {
        if answer.is_some() {
            build(module.clone(), answer);
        }
        return;
    };
    let query = Query::select(&module.table.name).columns(&module.table.columns.0);
    let module = module.clone();
    db.spawn(call.ctx, "load", query, move |_, rows| match rows {
        Ok(rows) => {
            module.live.keep(read(&rows));
            build(module, answer);
        }
        Err(error) => {
            host::error!("tls_mgm", "the domains were not read: {error}");
            if let Some(answer) = answer {
                answer.give(Err(MiError::new(500, error.to_string())));
            }
        }
    });
}

/// Files are read beside the workers.
fn build(module: Arc<TlsMgm>, answer: Option<MiAnswer>) {
    std::thread::spawn(move || {
        let result = module.read_files();
        if let Err(error) = &result {
            host::error!("tls_mgm", "the domains stay as they were: {error}");
        }
        if let Some(answer) = answer {
            answer.give(result.map(|()| json!("OK")).map_err(|e| MiError::new(500, e)));
        }
    });
}

/// (is a server's, domain) of each row.
fn read(rows: &Rows) -> Vec<(bool, Domain)> {
    rows.iter().map(|row| (row.int(3) == Some(SERVER), domain(&row))).collect()
}

fn domain(row: &Row<'_>) -> Domain {
    let path = |at: usize| {
        row.text(at).filter(|t| !t.is_empty()).map(|t| String::from_utf8_lossy(&t).as_ref().into())
    };
    let switch = |at: usize| row.int(at).map(|n| n != 0);
    Domain {
        name: row.string(0),
        match_ip_address: list(&row.string(1)),
        match_sip_domain: list(&row.string(2)),
        tls_method: row.text(4).map(|t| String::from_utf8_lossy(&t).into_owned()),
        verify_cert: switch(5),
        require_cert: switch(6),
        pem: Some(Pem {
            certificate: row.text(7).unwrap_or_default(),
            private_key: row.text(8).unwrap_or_default(),
            ca_list: row.text(10).unwrap_or_default(),
        }),
        crl_dir: path(9),
        ca_dir: path(11),
        ..Domain::default()
    }
}
