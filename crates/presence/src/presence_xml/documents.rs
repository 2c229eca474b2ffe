//! Documents of users from the table of `xcap`.

use super::Style;
use super::rules::Ruleset;
use crate::presence::documents::{Answer, Documents, Policy, Reader};
use crate::xcap::{Address, DocumentKind, Xcap, select};
use crate::xml::{self, Element};
use bytes::Bytes;
use host::Ctx;
use host::db::Pool;
use std::rc::Rc;
use std::sync::Arc;

/// Lists that rules of one user may name; further ones count as empty, and are logged.
pub const MAX_LISTS: usize = 16;

/// Where documents of this server's users are.
#[derive(Clone)]
pub struct Source {
    /// Nobody is asked (`force_active`).
    pub everybody: bool,
    /// Users may have a permanent state (`pidf_manipulation`).
    pub permanent: bool,
    pub style: Style,
    pub xcap: Arc<Xcap>,
}

impl Documents for Source {
    fn open(&self, ctx: &mut Ctx) -> Rc<dyn Reader> {
        Rc::new(Open { source: self.clone(), pool: self.xcap.pool(ctx) })
    }
}

struct Open {
    source: Source,
    pool: Option<Rc<dyn Pool>>,
}

/// A document; `None`: the user has none.
async fn read(
    xcap: &Xcap,
    pool: &dyn Pool,
    owner: (&Bytes, &Bytes),
    kind: DocumentKind,
    file: Option<&Bytes>,
) -> Result<Option<Bytes>, String> {
    let rows = pool.run(xcap.query(owner.0, owner.1, kind, file)).await.map_err(|error| error.to_string())?;
    Ok(rows.first().and_then(|row| row.text(0)).filter(|text| !text.is_empty()))
}

impl Reader for Open {
    fn policy(&self, user: &Bytes, domain: &Bytes) -> Answer<Policy> {
        let (source, user, domain) = (self.source.clone(), user.clone(), domain.clone());
        let pool = match (source.everybody, &self.pool) {
            (true, _) => return Box::pin(std::future::ready(Ok(Policy::Everybody))),
            (false, None) => return Box::pin(std::future::ready(Ok(Policy::Unsaid))),
            (false, Some(pool)) => pool.clone(),
        };
        Box::pin(async move {
            let owner = (&user, &domain);
            let kind = match source.style {
                Style::Ietf => DocumentKind::PresRules,
                Style::Oma => DocumentKind::OmaPresRules,
            };
            let Some(text) = read(&source.xcap, &*pool, owner, kind, None).await? else {
                return Ok(Policy::Unsaid);
            };
            let root = xml::parse(&text).map_err(|why| format!("the rules of the user: {why}"))?;
            let mut rules = Ruleset::new(root, source.style);
            for (n, anchor) in rules.anchors().into_iter().enumerate() {
                if n >= MAX_LISTS {
                    host::warn!(
                        "presence_xml",
                        "rules name more than {MAX_LISTS} lists: the others count as empty"
                    );
                    break;
                }
                let entries = list(&source.xcap, &*pool, owner, &anchor).await?;
                rules.add_list(anchor, entries);
            }
            Ok(Policy::Rules(Arc::new(rules)))
        })
    }

    fn permanent(&self, user: &Bytes, domain: &Bytes) -> Answer<Option<Bytes>> {
        let (source, user, domain) = (self.source.clone(), user.clone(), domain.clone());
        let Some(pool) = self.pool.clone().filter(|_| source.permanent) else {
            return Box::pin(std::future::ready(Ok(None)));
        };
        Box::pin(async move {
            read(&source.xcap, &*pool, (&user, &domain), DocumentKind::PidfManipulation, None).await
        })
    }
}

/// The URIs of a list of the user's own.
async fn list(
    xcap: &Xcap,
    pool: &dyn Pool,
    owner: (&Bytes, &Bytes),
    anchor: &str,
) -> Result<Vec<String>, String> {
    let Some(address) = Address::parse(anchor) else { return Ok(Vec::new()) };
    let file = Bytes::from(address.file);
    let Some(text) = read(xcap, pool, owner, DocumentKind::ResourceLists, Some(&file)).await? else {
        return Ok(Vec::new());
    };
    let root = xml::parse(&text).map_err(|why| format!("a list of the user: {why}"))?;
    let entries = |list: &Element| {
        let uris = list.elements().filter(|e| e.is("entry")).filter_map(|e| e.get("uri"));
        uris.map(crate::xcap::normalized).collect()
    };
    Ok(address.selector.and_then(|selector| select(&root, &selector).map(entries)).unwrap_or_default())
}
