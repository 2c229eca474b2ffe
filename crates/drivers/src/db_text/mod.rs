//! db_text: tables in text files (`text:///folder`). They are kept in memory and written back when the
//! server ends or is told to (`dbt_dump`).
//!
//! Inside it is SQLite in memory, so raw queries work too, which the reference's own engine has few of.

mod file;
mod store;

use crate::db_sqlite::SqlitePool;
use crate::db_sqlite::thread::{Handle, Settings};
use host::call::Finish;
use host::db::{Db, DbUrl, Driver, Pool};
use host::mi::{MiError, MiParams, MiResult};
use host::registrar::Stage;
use host::stats::Stats;
use host::{Call, Ctx, Registrar};
use parking_lot::Mutex;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use store::{Reading, Tables};

/// Longest the last write may take, ms.
const SAVE_MS: u64 = 20_000;

#[derive(Default)]
pub struct DbText {
    each_time: bool,
    driver: Option<Arc<TextDriver>>,
}

pub fn register(m: &mut Registrar<DbText>) {
    m.stage(Stage::Driver);
    m.param_int("db_mode", |m, mode| {
        m.each_time = mode != 0;
        Ok(())
    });
    m.ignored(&["buffer_size"], "files are read whole");
    m.init(|m, loader| {
        let reading = if m.each_time { Reading::WhenChanged } else { Reading::Once };
        let driver = Arc::new(TextDriver { reading, open: Mutex::default() });
        m.driver = Some(driver.clone());
        loader.db_driver("text", driver);
        Ok(())
    });
    m.stop(save_all);
    m.command("db_text:dump dbt_dump", "writes changed tables back to their files", dump);
    m.command("db_text:reload dbt_reload", "reads tables again", reload).takes("[folder] [table]");
}

/// A folder that is open.
struct Open {
    folder: String,
    tables: Arc<Tables>,
    handle: Handle,
}

struct TextDriver {
    reading: Reading,
    open: Mutex<Vec<Open>>,
}

impl TextDriver {
    fn handle(&self, folder: &str, stats: &Stats) -> Handle {
        let mut open = self.open.lock();
        if let Some(one) = open.iter().find(|one| one.folder == folder) {
            return one.handle.clone();
        }
        let tables = Arc::new(Tables::new(folder, self.reading));
        let settings = Settings { store: Some(tables.clone()), ..Settings::default() };
        let handle = Handle::start(folder, Arc::new(settings), stats);
        open.push(Open { folder: folder.to_string(), tables, handle: handle.clone() });
        handle
    }
}

impl Driver for TextDriver {
    fn module(&self) -> &'static str {
        "db_text"
    }

    fn check(&self, url: &DbUrl) -> Result<(), String> {
        match Path::new(&url.database).is_dir() {
            true => Ok(()),
            false => Err(format!("the folder `{}` does not exist", url.database)),
        }
    }

    fn pool(&self, db: &Db, ctx: &mut Ctx) -> Rc<dyn Pool> {
        Rc::new(SqlitePool(self.handle(&db.url().database, &ctx.shared().stats)))
    }
}

fn save_all(call: &mut Call<DbText>) {
    let Some(driver) = call.module.driver.clone() else { return };
    let handles: Vec<Handle> = driver.open.lock().iter().map(|one| one.handle.clone()).collect();
    for handle in handles {
        call.ctx.spawn("db_text", SAVE_MS, async move {
            // What went wrong is in the log.
            let _ = handle.run(Vec::new()).await;
            Box::new(|_: &mut Ctx| 1) as Finish
        });
    }
}

fn dump(call: &mut Call<DbText>, _: &MiParams) -> MiResult {
    save_all(call);
    Ok("OK".into())
}

fn reload(call: &mut Call<DbText>, params: &MiParams) -> MiResult {
    let (folder, table) = (params.text("db_name", 0), params.text("table_name", 1));
    let Some(driver) = &call.module.driver else { return Ok("OK".into()) };
    let open = driver.open.lock();
    let chosen: Vec<_> =
        open.iter().filter(|one| folder.as_deref().is_none_or(|f| f == one.folder)).collect();
    if chosen.is_empty() && folder.is_some() {
        return Err(MiError::params("this folder is not in use"));
    }
    chosen.iter().for_each(|one| one.tables.read_again(table.as_deref()));
    Ok("OK".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, refused, run};
    use host::db::Query;
    use script::ast::Dialect;

    const USERS: &str =
        "id(int,auto) name(str) flag(double) desc(str,null)\n1:nick:0.34:a\\tgood\\: friend\n2:cole:-3.75:\n";

    #[test]
    fn tables_in_files() {
        let folder = Folder::new("db-text");
        std::fs::write(folder.0.join("users"), USERS).expect("written");
        let config = format!(
            "loadmodule \"sqlops.so\"\nloadmodule \"db_text.so\"\nmodparam(\"sqlops\", \"db_url\", \"text://{}\")\n",
            folder.0.display()
        );
        let body = r#"sql_select('["desc"]', "users", '[{"name": "nick"}]', , "$avp(d)");
            sql_select('["name"]', "users", '[{"desc": null}]', , "$avp(n)");
            sql_insert("users", '[{"name": "a:b"}, {"flag": 1}]');
            sql_query("select id, name from users where name like 'a%'", "$avp(id);$avp(name)");
            $var(x) = sql_select('["x"]', "absent"); $avp(r) = $var(x);"#;
        let ran = run(&config, body, Dialect::V4);
        for (name, expected) in
            [("d", "a\tgood: friend"), ("n", "cole"), ("id", "3"), ("name", "a:b"), ("r", "-1")]
        {
            assert_eq!(ran.avps(name), [expected], "{name}");
        }
        let error = refused(&config.replace("text:///", "text:///absent/"), "", Dialect::V4);
        assert!(error.contains("does not exist"), "{error}");
    }

    #[test]
    fn files_are_read_again_and_written_back() {
        let folder = Folder::new("db-text-files");
        let path = folder.0.join("users");
        std::fs::write(&path, USERS).expect("written");
        let driver = TextDriver { reading: Reading::WhenChanged, open: Mutex::default() };
        let handle = driver.handle(&folder.0.display().to_string(), &Stats::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let count = || {
            let query = Query::raw("select count(*) from users");
            let rows = runtime.block_on(handle.run(vec![query])).expect("counts").pop().expect("a result");
            rows.first().and_then(|row| row.int(0))
        };
        assert_eq!(count(), Some(2));
        std::fs::write(&path, "name(str)\nonly\n").expect("written");
        assert_eq!(count(), Some(1), "the file is another one");
        std::fs::write(&path, "name(str) n(int\nbad\n").expect("written");
        assert_eq!(count(), Some(1), "a bad file changes nothing");
        std::fs::write(&path, USERS).expect("written");
        let query = Query::insert("users").set("name", "x\ny").set("flag", 2);
        runtime.block_on(handle.run(vec![query])).expect("inserts");
        runtime.block_on(handle.run(Vec::new())).expect("saves");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(text, format!("{USERS}3:x\\ny:2.00:\n"));
    }
}
