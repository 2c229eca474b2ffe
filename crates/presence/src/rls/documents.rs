//! Whom a list holds, by documents of its owner (RFC 4826).

use crate::xcap::{Address, DocumentKind, Xcap, normalized, select};
use crate::xml::{self, Element};
use bytes::Bytes;
use host::db::Pool;
use sip::Uri;
use std::pin::Pin;

/// Users that a list may hold; further ones are left out, and logged.
const MAX_USERS: usize = 1_000;
/// Lists inside one another, and lists that name others.
const MAX_DEPTH: usize = 8;

/// The users of the list with this URI, as they stand in it. `None`: the owner has no such list. The error is a
/// database's, or of a document that cannot be read.
pub async fn users(
    xcap: &Xcap,
    pool: &dyn Pool,
    (user, domain): (&Bytes, &Bytes),
    list: &Bytes,
) -> Result<Option<Vec<String>>, String> {
    let Some(text) = document(xcap, pool, (user, domain), DocumentKind::RlsServices, None).await? else {
        return Ok(None);
    };
    let root = xml::parse(&text).map_err(|why| format!("the rls-services of a user: {why}"))?;
    let Some(service) = root.elements().find(|e| e.is("service") && is_of(e, list)) else { return Ok(None) };
    let mut found = Vec::new();
    let owner = Owner { xcap, pool, user, domain };
    owner.collect(service, &mut found, 0).await?;
    if found.len() > MAX_USERS {
        host::warn!("rls", "a list has more than {MAX_USERS} users: the others are left out");
        found.truncate(MAX_USERS);
    }
    Ok(Some(found))
}

async fn document(
    xcap: &Xcap,
    pool: &dyn Pool,
    (user, domain): (&Bytes, &Bytes),
    kind: DocumentKind,
    file: Option<&Bytes>,
) -> Result<Option<Bytes>, String> {
    let rows = pool.run(xcap.query(user, domain, kind, file)).await.map_err(|error| error.to_string())?;
    Ok(rows.first().and_then(|row| row.text(0)).filter(|text| !text.is_empty()))
}

/// Does a service have this URI, "sip:user@domain"?
fn is_of(service: &Element, list: &Bytes) -> bool {
    let Some(uri) = service.get("uri").map(|uri| Bytes::from(normalized(uri))) else { return false };
    let plain = |uri: Uri| crate::presence::subscription::uri_of(&uri.user.unwrap_or_default(), &uri.host);
    Uri::parse(&uri).is_ok_and(|uri| plain(uri).as_bytes() == &list[..])
}

struct Owner<'a> {
    xcap: &'a Xcap,
    pool: &'a dyn Pool,
    user: &'a Bytes,
    domain: &'a Bytes,
}

type Walk<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

impl<'a> Owner<'a> {
    /// The users below an element: entries, those of lists in it, and what is named elsewhere.
    fn collect<'b>(&'b self, element: &'b Element, found: &'b mut Vec<String>, depth: usize) -> Walk<'b> {
        Box::pin(async move {
            if depth >= MAX_DEPTH {
                host::warn!(
                    "rls",
                    "lists of a user are more than {MAX_DEPTH} deep: the inner ones count as empty"
                );
                return Ok(());
            }
            for child in element.elements() {
                if found.len() > MAX_USERS {
                    return Ok(());
                }
                match child.name.to_ascii_lowercase().as_str() {
                    "entry" => found.extend(child.get("uri").map(normalized)),
                    "list" => self.collect(child, found, depth + 1).await?,
                    "resource-list" => self.elsewhere(&child.content(), found, depth + 1).await?,
                    "external" => {
                        if let Some(anchor) = child.get("anchor") {
                            self.elsewhere(anchor, found, depth + 1).await?;
                        }
                    }
                    "entry-ref" => {
                        if let Some(path) = child.get("ref") {
                            self.elsewhere(&format!("/{path}"), found, depth + 1).await?;
                        }
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// A list or an entry of the owner's that stands in another document.
    fn elsewhere<'b>(&'b self, address: &'b str, found: &'b mut Vec<String>, depth: usize) -> Walk<'b> {
        Box::pin(async move {
            let Some(address) = Address::parse(address.trim()) else {
                return Err(format!("`{}` is no address of a list", address.trim()));
            };
            let (file, owner) = (Bytes::from(address.file), (self.user, self.domain));
            let text =
                document(self.xcap, self.pool, owner, DocumentKind::ResourceLists, Some(&file)).await?;
            let Some(text) = text else { return Ok(()) };
            let root = xml::parse(&text).map_err(|why| format!("a list of a user: {why}"))?;
            match address.selector.as_deref().map_or(Some(&root), |selector| select(&root, selector)) {
                Some(entry) if entry.is("entry") => {
                    found.extend(entry.get("uri").map(normalized));
                    Ok(())
                }
                Some(list) => self.collect(list, found, depth).await,
                None => Ok(()),
            }
        })
    }
}
