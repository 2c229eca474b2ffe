//! What sqlops and avpops share: databases by number, results into variables, and the table of user
//! preferences (AVPs kept per user or domain).

mod prefs;
mod result;
mod spec;

pub use prefs::{delete, load, store};
pub use result::{Nulls, Reading, into_avps, into_first};
pub use spec::{AvpSpec, DbId, Source, TableSpec, not_an_avp};

use bytes::Bytes;
use host::Registrar;
use host::db::{Db, Name};
use host::load::Loader;
use host::registrar::ParamFn;
use script::ast::ParamValue;

/// Columns of the table of preferences.
#[derive(Clone)]
pub struct Columns {
    pub uuid: Name,
    pub username: Name,
    pub domain: Name,
    pub attribute: Name,
    pub value: Name,
    pub kind: Name,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            uuid: "uuid".into(),
            username: "username".into(),
            domain: "domain".into(),
            attribute: "attribute".into(),
            value: "value".into(),
            kind: "type".into(),
        }
    }
}

/// `db_scheme`: another table that holds one attribute a row.
#[derive(Clone)]
pub struct Scheme {
    pub name: Bytes,
    pub table: Option<Name>,
    pub columns: Columns,
    pub integers: bool,
}

/// The databases of a module and where its preferences are.
#[derive(Default)]
pub struct UserDb {
    urls: Vec<(u32, String)>,
    dbs: Vec<(u32, Db)>,
    table: Option<Name>,
    use_domain: bool,
    columns: Columns,
    schemes: Vec<Scheme>,
    /// Numbers beyond 32 bits become texts.
    pub big_as_text: bool,
}

/// Modules that have one.
pub trait HasUserDb: Default + Send + Sync + 'static {
    /// For messages.
    const MODULE: &'static str;
    fn user_db(&self) -> &UserDb;
    fn user_db_mut(&mut self) -> &mut UserDb;
}

/// Names a column parameter.
fn column<M: HasUserDb>(
    m: &mut Registrar<M>,
    name: &'static str,
    set: fn(&mut M, &str) -> Result<(), String>,
) {
    m.param_text(name, set);
}

/// The parameters that both modules have.
pub fn register<M: HasUserDb>(m: &mut Registrar<M>) {
    m.param_text("db_url", |m, text| m.user_db_mut().add_url(text));
    m.param_text("db_scheme", |m, text| {
        let scheme = Scheme::parse(text, &m.user_db().columns)?;
        m.user_db_mut().schemes.push(scheme);
        Ok(())
    });
    m.param(
        "use_domain",
        ParamFn::Any(|m, value| {
            m.user_db_mut().use_domain = truth(value)?;
            Ok(())
        }),
    );
    column(m, "uuid_column", |m, v| put(&mut m.user_db_mut().columns.uuid, v));
    column(m, "username_column", |m, v| put(&mut m.user_db_mut().columns.username, v));
    column(m, "domain_column", |m, v| put(&mut m.user_db_mut().columns.domain, v));
    column(m, "attribute_column", |m, v| put(&mut m.user_db_mut().columns.attribute, v));
    column(m, "value_column", |m, v| put(&mut m.user_db_mut().columns.value, v));
    column(m, "type_column", |m, v| put(&mut m.user_db_mut().columns.kind, v));
    m.init(|m, loader| m.user_db_mut().open(loader));
}

fn put(name: &mut Name, text: &str) -> Result<(), String> {
    *name = text.to_string().into();
    Ok(())
}

fn truth(value: &ParamValue) -> Result<bool, String> {
    match value {
        ParamValue::Int(n) => Ok(*n != 0),
        ParamValue::Text(t) => match &t.to_ascii_lowercase()[..] {
            b"1" | b"yes" | b"true" | b"on" => Ok(true),
            b"0" | b"no" | b"false" | b"off" => Ok(false),
            _ => Err("this takes 0 or 1".to_string()),
        },
    }
}

impl UserDb {
    pub fn new(use_domain: bool, table: Option<&'static str>) -> UserDb {
        UserDb { use_domain, table: table.map(Name::from), ..UserDb::default() }
    }

    pub fn set_table(&mut self, table: &str) {
        self.table = Some(table.to_string().into());
    }

    /// "url" or "number url".
    pub fn add_url(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let (id, url) = match text.split_once(char::is_whitespace) {
            Some((id, url)) if id.bytes().all(|b| b.is_ascii_digit()) => {
                (id.parse().map_err(|_| format!("db_url: {id} is too large"))?, url.trim())
            }
            _ => (0, text),
        };
        self.urls.retain(|(i, _)| *i != id);
        self.urls.push((id, url.to_string()));
        Ok(())
    }

    fn open(&mut self, loader: &mut Loader) -> Result<(), String> {
        for (id, url) in &self.urls {
            self.dbs.push((*id, loader.db(url)?));
        }
        if self.db(0).is_none()
            && let Some(db) = loader.db_or_default(None)?
        {
            self.dbs.push((0, db));
        }
        Ok(())
    }

    pub fn db(&self, id: u32) -> Option<&Db> {
        self.dbs.iter().find(|(i, _)| *i == id).map(|(_, db)| db)
    }

    fn scheme(&self, name: &[u8]) -> Option<&Scheme> {
        self.schemes.iter().find(|s| s.name.eq_ignore_ascii_case(name))
    }
}

impl Scheme {
    /// "name:element;element..." The columns that are not named are those set so far.
    fn parse(text: &str, columns: &Columns) -> Result<Scheme, String> {
        let (name, elements) = text
            .split_once(':')
            .ok_or("db_scheme is written name:element;element, as in s1:table=subscriber;value_col=name")?;
        let mut scheme = Scheme {
            name: Bytes::from(name.trim().to_string()),
            table: None,
            columns: columns.clone(),
            integers: false,
        };
        for element in elements.split(';').map(str::trim).filter(|e| !e.is_empty()) {
            let (key, value) = element.split_once('=').unwrap_or((element, ""));
            let value = value.trim();
            let name = || Name::from(value.to_string());
            match &*key.trim().to_ascii_lowercase() {
                "uuid_col" => scheme.columns.uuid = name(),
                "username_col" => scheme.columns.username = name(),
                "domain_col" => scheme.columns.domain = name(),
                "value_col" => scheme.columns.value = name(),
                "table" => scheme.table = Some(name()),
                "value_type" if value == "integer" => scheme.integers = true,
                "value_type" if value == "string" => scheme.integers = false,
                "value_type" => return Err("db_scheme: value_type is integer or string".to_string()),
                other => return Err(format!("db_scheme has no element `{other}`")),
            }
        }
        Ok(scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_numbers() {
        let mut db = UserDb::default();
        for text in ["mysql://u:p@h/d", "1 postgres://u:p@h/d", " 12  sqlite:///x ", "sqlite:///second"] {
            db.add_url(text).expect(text);
        }
        let expected = [
            (1, "postgres://u:p@h/d".to_string()),
            (12, "sqlite:///x".to_string()),
            (0, "sqlite:///second".to_string()),
        ];
        assert_eq!(db.urls, expected);
    }

    #[test]
    fn schemes() {
        let scheme = Scheme::parse("s1:table=subscriber;uuid_col=id;value_type=integer", &Columns::default());
        let scheme = scheme.expect("a scheme");
        assert_eq!(scheme.table.as_deref(), Some("subscriber"));
        assert_eq!((&*scheme.columns.uuid, &*scheme.columns.value, scheme.integers), ("id", "value", true));
        for bad in ["s1", "s1:color=red", "s1:value_type=float"] {
            assert!(Scheme::parse(bad, &Columns::default()).is_err(), "{bad}");
        }
    }
}
