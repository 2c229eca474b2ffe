//! Operations on one collection.

use crate::cachedb::{Backend, Link};
use bytes::Bytes;
use host::cachedb::{CacheError, CacheUrl, RawRows, Reply, Store};
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, ReturnDocument};
use mongodb::{Client, Database};
use std::time::Duration;

/// For a connection, and for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Fields of the reference's documents.
const VALUE: &str = "opensips";
const COUNTER: &str = "opensips_counter";

/// A URL, prepared.
#[derive(Clone)]
pub struct Place {
    name: String,
    /// As the driver wants it.
    uri: String,
    database: String,
    collection: String,
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
        Ok(Place { name: url.to_string(), uri: uri.trim_end_matches('?').to_string(), database, collection })
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
        MongoStore { collection: place.collection.clone(), link: Link::new(Server(place)) }
    }

    /// Runs `f` on the collection's database; what goes wrong on the way ends the connection.
    async fn run<T, F>(self, f: impl FnOnce(Database, String) -> F) -> Result<T, CacheError>
    where
        F: Future<Output = Result<T, Error>>,
    {
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

    async fn find(self, key: Bytes) -> Result<Option<Document>, CacheError> {
        let id = text(&key);
        self.run(|db, name| async move { db.collection::<Document>(&name).find_one(doc! {"_id": id}).await }).await
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Store for MongoStore {
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
                Some(other) => return Err(CacheError::Refused(format!("the value is a {:?}", other.element_type()))),
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

    /// One row: the server's answer to the command.
    fn raw(&self, query: Bytes, _: usize) -> Reply<Option<RawRows>> {
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

fn count(document: &Document) -> Option<i64> {
    match document.get(COUNTER)? {
        Bson::Int32(n) => Some(i64::from(*n)),
        Bson::Int64(n) => Some(*n),
        _ => None,
    }
}
