//! db_flatstore: rows appended to files, `<prefix><table>_<worker><suffix>` (`flatstore:/folder`). Only inserts.

mod writer;

use bytes::Bytes;
use host::db::{Action, TableQuery};
use host::db::{BatchFuture, Db, DbError, DbFuture, DbUrl, DbValue, Driver, Pool, Query, Rows};
use host::mi::{MiParams, MiResult};
use host::registrar::Stage;
use host::{Call, Ctx, Format, Registrar};
use script::Loc;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use writer::{Flush, Writer};

pub struct Flatstore {
    flush: bool,
    delimiter: char,
    prefix: String,
    suffix: String,
    single_file: bool,
    driver: Option<Arc<FlatDriver>>,
}

impl Default for Flatstore {
    fn default() -> Flatstore {
        Flatstore {
            flush: true,
            delimiter: '|',
            prefix: String::new(),
            suffix: ".log".to_string(),
            single_file: false,
            driver: None,
        }
    }
}

pub fn register(m: &mut Registrar<Flatstore>) {
    m.stage(Stage::Driver);
    m.param_int("flush", |m, on| {
        m.flush = on != 0;
        Ok(())
    });
    m.param_text("delimiter", |m, text| {
        let mut chars = text.chars();
        m.delimiter = match (chars.next(), chars.next()) {
            (Some(one), None) => one,
            _ => return Err("delimiter is one character".to_string()),
        };
        Ok(())
    });
    m.param_text("prefix", |m, text| {
        m.prefix = text.to_string();
        Ok(())
    });
    m.param_text("suffix", |m, text| {
        m.suffix = text.to_string();
        Ok(())
    });
    m.param_int("single_file", |m, on| {
        m.single_file = on != 0;
        Ok(())
    });
    m.init(|m, loader| {
        let mut format = |text: &str| {
            Format::new(&Bytes::copy_from_slice(text.as_bytes()), Loc::default(), loader)
                .map_err(|e| format!("`{text}`: {}", e.message))
        };
        let driver = Arc::new(FlatDriver {
            prefix: format(&m.prefix)?,
            suffix: format(&m.suffix)?,
            delimiter: m.delimiter,
            single_file: m.single_file,
            writer: Writer::start(if m.flush { Flush::EachTime } else { Flush::WhenIdle }),
        });
        m.driver = Some(driver.clone());
        loader.db_driver("flatstore", driver);
        Ok(())
    });
    m.command_each(
        "db_flatstore:rotate flat_rotate",
        "closes the files, so that new ones are begun",
        |_| "OK".into(),
        rotate,
    );
}

struct FlatDriver {
    prefix: Format,
    suffix: Format,
    delimiter: char,
    single_file: bool,
    writer: Writer,
}

/// What a worker's files are called: made when they are opened, and again when they are rotated.
#[derive(Default)]
struct Names {
    prefix: String,
    suffix: String,
}

#[derive(Default)]
struct Shared(Option<Rc<RefCell<Names>>>);

impl FlatDriver {
    fn names(&self, ctx: &mut Ctx) -> Names {
        let mut text = |format: &Format| String::from_utf8_lossy(&format.text(ctx)).replace('/', "_");
        Names { prefix: text(&self.prefix), suffix: text(&self.suffix) }
    }
}

impl Driver for FlatDriver {
    fn module(&self) -> &'static str {
        "db_flatstore"
    }

    fn check(&self, url: &DbUrl) -> Result<(), String> {
        match Path::new(&url.database).is_dir() {
            true => Ok(()),
            false => Err(format!("the folder `{}` does not exist", url.database)),
        }
    }

    fn pool(&self, db: &Db, ctx: &mut Ctx) -> Rc<dyn Pool> {
        let names = match &ctx.local::<Shared>().0 {
            Some(names) => names.clone(),
            None => {
                let names = Rc::new(RefCell::new(self.names(ctx)));
                ctx.local::<Shared>().0 = Some(names.clone());
                names
            }
        };
        let worker = (!self.single_file).then_some(ctx.core.worker + 1);
        let (folder, writer) = (PathBuf::from(&db.url().database), self.writer.clone());
        Rc::new(FlatPool { folder, worker, names, writer, delimiter: self.delimiter })
    }
}

struct FlatPool {
    folder: PathBuf,
    worker: Option<u16>,
    names: Rc<RefCell<Names>>,
    writer: Writer,
    delimiter: char,
}

impl FlatPool {
    fn path(&self, table: &str) -> PathBuf {
        let names = self.names.borrow();
        let worker = self.worker.map_or(String::new(), |n| format!("_{n}"));
        self.folder.join(format!("{}{}{worker}{}", names.prefix, table.replace('/', "_"), names.suffix))
    }
}

impl Pool for FlatPool {
    fn run(&self, query: Query) -> DbFuture {
        let lines = match query {
            Query::Table(query) if query.action == Action::Insert => {
                Ok((self.path(&query.table), lines(&query, self.delimiter)))
            }
            _ => Err(DbError::Unsupported("anything but inserts")),
        };
        let writer = self.writer.clone();
        Box::pin(async move {
            let (path, (text, rows)) = lines?;
            writer.append(path, text).await?;
            Ok(Rows::changed(rows, 0))
        })
    }

    fn run_all(&self, queries: Vec<Query>) -> BatchFuture {
        let all: Vec<DbFuture> = queries.into_iter().map(|query| self.run(query)).collect();
        Box::pin(async move {
            let mut results = Vec::with_capacity(all.len());
            for one in all {
                results.push(one.await?);
            }
            Ok(results)
        })
    }
}

/// The rows of an insert as lines, and how many.
fn lines(query: &TableQuery, delimiter: char) -> (Vec<u8>, u64) {
    let mut out = Vec::with_capacity(128);
    let first: Vec<&DbValue> = query.values.iter().map(|(_, value)| value).collect();
    line(&mut out, first.into_iter(), delimiter);
    for row in &query.rows {
        line(&mut out, row.iter(), delimiter);
    }
    (out, 1 + query.rows.len() as u64)
}

fn line<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a DbValue>, delimiter: char) {
    let mut sign = [0; 4];
    let sign = delimiter.encode_utf8(&mut sign).as_bytes();
    for (i, value) in values.enumerate() {
        if i > 0 {
            out.extend_from_slice(sign);
        }
        match value {
            DbValue::Real(x) => out.extend_from_slice(format!("{x:.6}").as_bytes()),
            value => {
                for byte in value.text().unwrap_or_default() {
                    // Whatever could end a field or a line is written as \xHH.
                    match byte {
                        b' '..=b'~' if byte != b'\\' && !sign.contains(&byte) => out.push(byte),
                        _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
                    }
                }
            }
        }
    }
    out.push(b'\n');
}

fn rotate(call: &mut Call<Flatstore>, _: &MiParams) -> MiResult {
    if let Some(driver) = call.module.driver.clone() {
        let new = driver.names(call.ctx);
        if let Some(names) = &call.ctx.local::<Shared>().0 {
            names.replace(new);
        }
        driver.writer.reopen();
    }
    Ok("OK".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, refused, run};
    use script::ast::Dialect;

    #[test]
    fn fields_cannot_end_lines() {
        let check = |values: &[DbValue], expected: &str| {
            let mut out = Vec::new();
            line(&mut out, values.iter(), '|');
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(&["a".into(), 5.into(), DbValue::Null, DbValue::Time(7)], "a|5||7\n");
        check(&["a|b\n\\".into(), DbValue::Real(1.5)], "a\\x7cb\\x0a\\x5c|1.500000\n");
    }

    #[test]
    fn rows_are_appended() {
        let folder = Folder::new("flatstore");
        let config = format!(
            "loadmodule \"sqlops.so\"\nloadmodule \"db_flatstore.so\"\n\
             modparam(\"sqlops\", \"db_url\", \"flatstore:{}\")\nmodparam(\"db_flatstore\", \"prefix\", \"p-\")\n",
            folder.0.display()
        );
        let body = r#"sql_insert("acc", '[{"a": "x|y"}, {"b": 5}]'); sql_insert("acc", '[{"a": null}, {"b": 6}]');
            $var(x) = sql_query("select 1"); $avp(r) = $var(x);"#;
        let ran = run(&config, body, Dialect::V4);
        assert_eq!(ran.avps("r"), ["-1"]);
        let text = std::fs::read_to_string(folder.0.join("p-acc_1.log")).expect("the file is there");
        assert_eq!(text, "x\\x7cy|5\n|6\n");
        let error = refused(&config.replace("flatstore:/", "flatstore:/absent/"), "", Dialect::V4);
        assert!(error.contains("does not exist"), "{error}");
        let error =
            refused(&format!("{config}modparam(\"db_flatstore\", \"delimiter\", \"ab\")\n"), "", Dialect::V4);
        assert!(error.contains("one character"), "{error}");
    }
}
