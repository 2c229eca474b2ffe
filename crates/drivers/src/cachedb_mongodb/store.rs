//! Operations on one collection.

use crate::cachedb::{Backend, Link};
use bytes::Bytes;
use host::Traced;
use host::cachedb::{CacheError, CacheUrl, RawRows, Reply, Store};
use host::outage::Outage;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, ReturnDocument};
use mongodb::{Client, Database};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// For a connection, and for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Fields of the reference's documents.
const VALUE: &str = "opensips";
const COUNTER: &str = "opensips_counter";
/// The fields of a map stand under this one, named as `member` says.
const MAP: &str = "fields";
/// When a map goes: an index on it makes the server remove what is past.
const EXPIRES: &str = "expires_at";
/// A map without end.
const NEVER: DateTime = DateTime::MAX;

/// A URL, prepared.
#[derive(Clone)]
pub struct Place {
    pub(super) name: String,
    /// As the driver wants it.
    uri: String,
    database: String,
    collection: String,
    pub(super) outage: Outage,
}

impl Place {
    /// The error is what a user should read.
    pub fn new(url: &CacheUrl) -> Result<Place, String> {
        let Some((database, collection)) = url.database.split_once('.') else {
            return Err("the end of the URL is database.collection".to_string());
        };
        if url.hosts.is_empty() || database.is_empty() || collection.is_empty() {
            return Err("host, database and collection are wanted".to_string());
        }
        let mut uri = "mongodb://".to_string();
        if let Some(user) = &url.user {
            uri += &escape(user);
            if let Some(password) = &url.password {
                uri += &format!(":{}", escape(password));
            }
            uri.push('@');
        }
        let hosts = url.hosts.iter().map(|h| format!("{}:{}", h.name, h.port.unwrap_or(27017)));
        uri += &hosts.collect::<Vec<_>>().join(",");
        let params = url.params.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        uri += &format!("/{database}?{}", params.join("&"));
        let (database, collection) = (database.to_string(), collection.to_string());
        let uri = uri.trim_end_matches('?').to_string();
        Ok(Place { name: url.to_string(), uri, database, collection, outage: Outage::default() })
    }
}

/// What may not stand in a login as it is.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

struct Server(Place);

impl Backend for Server {
    type Conn = Database;
    const MODULE: &'static str = "cachedb_mongodb";

    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn outage(&self) -> &Outage {
        &self.0.outage
    }

    async fn connect(&self) -> Result<Database, String> {
        let attempt = async {
            let mut options = ClientOptions::parse(&self.0.uri).await?;
            options.connect_timeout.get_or_insert(LIMIT);
            options.server_selection_timeout.get_or_insert(LIMIT);
            options.app_name.get_or_insert_with(|| "fermata".to_string());
            let database = Client::with_options(options)?.database(&self.0.database);
            database.run_command(doc! {"ping": 1}).await?;
            Ok::<_, Error>(database)
        };
        match tokio::time::timeout(LIMIT * 2, attempt).await {
            Ok(Ok(database)) => Ok(database),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_string()),
        }
    }
}

#[derive(Clone)]
pub struct MongoStore {
    link: Link<Server>,
    collection: String,
    /// The connection whose server was asked for the index on `EXPIRES`.
    indexed: Rc<Cell<Option<u64>>>,
    /// Unix seconds.
    now: Rc<Cell<u64>>,
}

fn unusable(error: &Error) -> bool {
    matches!(
        *error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::Authentication { .. }
    )
}

impl MongoStore {
    pub fn new(place: Place) -> MongoStore {
        let collection = place.collection.clone();
        MongoStore { collection, link: Link::new(Server(place)), indexed: Rc::default(), now: Rc::default() }
    }

    /// Runs `f` on the collection's database; what goes wrong on the way ends the connection.
    async fn run<T, F>(self, f: impl FnOnce(Database, String) -> F) -> Result<T, CacheError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let _place = self.link.enter()?;
        let (database, number) = self.link.conn().await?;
        match tokio::time::timeout(LIMIT, f(database, self.collection.clone())).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if unusable(&error) => {
                self.link.lost(number, &error.to_string());
                Err(CacheError::Down(error.to_string()))
            }
            Ok(Err(error)) => Err(CacheError::Refused(error.to_string())),
            Err(_) => {
                self.link.lost(number, "no answer in time");
                Err(CacheError::TimedOut)
            }
        }
    }

    /// Asks each server once to remove maps that have ended; one that refuses keeps them.
    async fn index(&self) -> Result<(), CacheError> {
        let (_, number) = self.link.conn().await?;
        if self.indexed.replace(Some(number)) == Some(number) {
            return Ok(());
        }
        let made = self.clone().run(|db, name| async move {
            let index = doc! {"key": {EXPIRES: 1}, "name": EXPIRES, "expireAfterSeconds": 0};
            db.run_command(doc! {"createIndexes": name, "indexes": [index]}).await
        });
        if let Err(CacheError::Refused(why)) = made.await {
            host::warn!(
                "cachedb_mongodb",
                "no index on {EXPIRES}, so what has ended stays in the database: {why}"
            );
        }
        Ok(())
    }

    /// The moment that is some seconds from now.
    fn moment(&self, seconds: u64) -> DateTime {
        DateTime::from_millis((self.now.get() + seconds) as i64 * 1000)
    }

    async fn find(self, key: Bytes) -> Result<Option<Document>, CacheError> {
        let id = text(&key);
        self.run(|db, name| async move { db.collection::<Document>(&name).find_one(doc! {"_id": id}).await })
            .await
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Store for MongoStore {
    fn at(&self, _: transaction::Instant, unix_s: u64) {
        self.now.set(unix_s);
    }

    fn connect(&self) -> Reply<()> {
        let link = self.link.clone();
        Reply::later(async move { link.conn().await.map(drop) })
    }

    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>> {
        let found = self.clone().find(key);
        Reply::later(async move {
            Ok(match found.await?.and_then(|d| d.get(VALUE).cloned()) {
                Some(Bson::String(text)) => Some(Bytes::from(text)),
                Some(Bson::Int32(n)) => Some(Bytes::from(n.to_string())),
                Some(Bson::Int64(n)) => Some(Bytes::from(n.to_string())),
                Some(other) => {
                    return Err(CacheError::Refused(format!("the value is a {:?}", other.element_type())));
                }
                None => None,
            })
        })
    }

    /// Documents do not expire, as in the reference.
    fn store(&self, key: Bytes, value: Bytes, _: u32) -> Reply<()> {
        let (id, change) = (text(&key), doc! {"$set": {VALUE: text(&value)}});
        Reply::later(self.clone().run(|db, name| async move {
            db.collection::<Document>(&name).update_one(doc! {"_id": id}, change).upsert(true).await.map(drop)
        }))
    }

    fn remove(&self, key: Bytes) -> Reply<()> {
        let id = text(&key);
        Reply::later(self.clone().run(|db, name| async move {
            db.collection::<Document>(&name).delete_one(doc! {"_id": id}).await.map(drop)
        }))
    }

    fn add(&self, key: Bytes, by: i64, _: u32) -> Reply<i64> {
        let (id, change) = (text(&key), doc! {"$inc": {COUNTER: by}});
        let after = self.clone().run(|db, name| async move {
            let collection = db.collection::<Document>(&name);
            let change = collection.find_one_and_update(doc! {"_id": id}, change);
            change.upsert(true).return_document(ReturnDocument::After).await
        });
        Reply::later(async move { after.await?.as_ref().and_then(count).ok_or(CacheError::NotANumber) })
    }

    fn counter(&self, key: Bytes) -> Reply<Option<i64>> {
        let found = self.clone().find(key);
        Reply::later(async move {
            match found.await? {
                Some(document) if document.contains_key(COUNTER) => {
                    count(&document).map(Some).ok_or(CacheError::NotANumber)
                }
                _ => Ok(None),
            }
        })
    }

    fn map_get(&self, key: Bytes) -> Reply<Vec<(Bytes, Bytes)>> {
        let (found, now) = (self.clone().find(key), self.moment(0));
        Reply::later(async move {
            let Some(document) = found.await? else { return Ok(Vec::new()) };
            // The server removes what has ended once a minute.
            if document.get_datetime(EXPIRES).is_ok_and(|end| *end <= now) {
                return Ok(Vec::new());
            }
            let fields = document.get_document(MAP).cloned().unwrap_or_default();
            let pair = |(name, value): (String, Bson)| {
                Some((unmember(&name), Bytes::from(value.as_str()?.to_string())))
            };
            Ok(fields.into_iter().filter_map(pair).collect())
        })
    }

    /// One update for all fields: servers that change different ones do not undo one another's work.
    fn map_change(
        &self,
        key: Bytes,
        set: Vec<(Bytes, Bytes)>,
        unset: Vec<Bytes>,
        expires_s: u32,
    ) -> Reply<()> {
        let store = self.clone();
        Reply::later(async move {
            store.index().await?;
            let end = if expires_s == 0 { NEVER } else { store.moment(u64::from(expires_s)) };
            let path = |name: &Bytes| format!("{MAP}.{}", member(name));
            let set: Document =
                set.iter().map(|(name, value)| (path(name), Bson::from(text(value)))).collect();
            let unset: Document = unset.iter().map(|name| (path(name), Bson::from(""))).collect();
            let (id, grows) = (text(&key), !set.is_empty());
            let mut change = doc! {"$max": {EXPIRES: end}};
            for (operator, fields) in [("$set", set), ("$unset", unset)] {
                if !fields.is_empty() {
                    change.insert(operator, fields);
                }
            }
            let update = store.clone().run(|db, name| async move {
                db.collection::<Document>(&name).update_one(doc! {"_id": id}, change).upsert(grows).await
            });
            update.await?;
            if grows {
                return Ok(());
            }
            let empty = doc! {"_id": text(&key), MAP: {}};
            store.run(|db, name| async move { db.collection::<Document>(&name).delete_one(empty).await.map(drop) }).await
        })
    }

    /// One row: the server's answer to the command.
    fn raw(&self, query: Traced, _: usize) -> Reply<Option<RawRows>> {
        let query = host::db::filled_json(&query);
        let command = serde_json::from_slice::<serde_json::Value>(&query).map_err(|e| e.to_string());
        let command = command.and_then(|json| match Bson::try_from(json) {
            Ok(Bson::Document(document)) => Ok(document),
            Ok(_) => Err("a command is a JSON object".to_string()),
            Err(error) => Err(error.to_string()),
        });
        let command = match command {
            Ok(command) => command,
            Err(error) => return Reply::Now(Err(CacheError::Refused(format!("{error}: {}", text(&query))))),
        };
        let answer = self.clone().run(|db, _| async move { db.run_command(command).await });
        Reply::later(async move {
            let json = Bson::Document(answer.await?).into_relaxed_extjson();
            Ok(Some(vec![vec![host::Value::from(json.to_string())]]))
        })
    }
}

/// The name of a map's field as a member of a document, which may hold no dots, dollars or zeros.
fn member(name: &[u8]) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && !b"%.$".contains(&b);
    name.iter().map(|&b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn unmember(member: &str) -> Bytes {
    let mut name = Vec::with_capacity(member.len());
    let mut rest = member.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match hex.filter(|_| first == b'%') {
            Some(byte) => {
                name.push(byte);
                rest = &tail[2..];
            }
            None => {
                name.push(first);
                rest = tail;
            }
        }
    }
    name.into()
}

fn count(document: &Document) -> Option<i64> {
    match document.get(COUNTER)? {
        Bson::Int32(n) => Some(i64::from(*n)),
        Bson::Int64(n) => Some(*n),
        _ => None,
    }
}
