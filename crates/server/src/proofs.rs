//! What must stand in databases is looked at before anything listens (`host::db::Proof`).

use drivers::{Session, dialect_of};
use host::Shared;
use host::db::{DbError, DbUrl, Dialect, Proof, literal};
use std::time::Duration;

/// How long one database gets to answer all that is asked of it; one that is late is taken as one that is down.
const PATIENCE: Duration = Duration::from_secs(3);

/// The error ends the start.
pub fn hold(shared: &Shared) -> Result<(), String> {
    let proofs = &shared.proofs().0;
    if proofs.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let mut asked: Vec<&DbUrl> = Vec::new();
    for proof in proofs {
        let url = proof.db.url();
        if asked.contains(&url) {
            continue;
        }
        asked.push(url);
        let of_this: Vec<&Proof> = proofs.iter().filter(|other| other.db.url() == url).collect();
        let ask = async { tokio::time::timeout(PATIENCE, all(url, &of_this)).await };
        let answer = tokio::task::LocalSet::new().block_on(&runtime, ask);
        answer.unwrap_or(Ok(()))?;
    }
    Ok(())
}

async fn all(url: &DbUrl, proofs: &[&Proof]) -> Result<(), String> {
    let Ok(dialect) = dialect_of(url) else { return Ok(()) };
    if dialect == Dialect::Sqlite && !std::path::Path::new(&url.database).exists() {
        let module = proofs.first().map_or("", |proof| proof.module);
        return Err(format!("{module}: {url}: there is no such file; `fermata db create {url}` makes it"));
    }
    let Ok(mut session) = Session::connect(url).await else { return Ok(()) };
    for proof in proofs {
        let text = literal(&proof.query, dialect).map_err(|e| e.to_string())?;
        let judged = match session.run(&text).await {
            Ok(rows) => (proof.check)(&rows),
            Err(error @ DbError::Refused { .. }) => Err(error.to_string()),
            Err(_) => Ok(()),
        };
        judged.map_err(|why| format!("{}: {url}: {why}", proof.module))?;
    }
    Ok(())
}
