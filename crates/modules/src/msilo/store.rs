//! m_store: a message goes into the table, its sender may be told.

use super::{Msilo, Notice};
use crate::subjects::Subject;
use bytes::Bytes;
use host::db::{DbValue, Query};
use host::tm::NewRequest;
use host::{Call, Ctx, Finish, Outcome, Suspension, Text};
use sip::HeaderName;
use std::sync::Arc;

/// m_store([owner]): 1 stored, -1 not (no owner, no content type, too many, database down).
pub fn store(call: &mut Call<Msilo>, owner: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let Some(db) = &module.db else { return (-1).into() };
    let owner = owner.map_or_else(|| call.state.current_uri(), |o| o.0);
    let Some(owner) = Subject::of_uri(&owner) else {
        host::error!("msilo", "m_store: the owner {} has no user", String::from_utf8_lossy(&owner));
        return (-1).into();
    };
    let msg = call.state.msg.clone();
    let (Some(to), Some(from)) = (msg.to(), msg.from()) else { return (-1).into() };
    let Some(content_type) = msg.value(HeaderName::ContentType) else {
        host::error!("msilo", "m_store: the message has no Content-Type");
        return (-1).into();
    };
    let now = (call.core.wall_us / 1_000_000) as i64;
    let asked = msg.expires().filter(|e| *e > 0).unwrap_or(module.expire_time);
    let body = msg.text(msg.body());
    let c = &module.columns;
    let send_at = send_at(call.ctx, &module);
    let insert = Query::insert(&module.table)
        .set(&c.user, owner.user.clone())
        .set(&c.host, owner.domain.clone())
        .set(&c.to, to.uri)
        .set(&c.from, from.uri)
        .set(&c.body, if body.is_empty() { DbValue::Null } else { DbValue::Blob(body) })
        .set(&c.content_type, content_type)
        .set(&c.expires, now + i64::from(asked.min(module.expire_time)))
        .set(&c.came, now)
        .set(&c.send, send_at);
    let count = Query::select(&module.table)
        .column(&c.came)
        .eq(&c.user, owner.user.clone())
        .eq(&c.host, owner.domain);
    let pool = db.on(call.ctx);
    let kept = module.clone();
    Suspension::future("m_store", async move {
        let most = kept.max_messages;
        let full = most > 0 && pool.run(count.limit(most as u64)).await.is_ok_and(|rows| rows.len() >= most);
        let stored = match full {
            true => Err("there are max_messages already".to_string()),
            false => pool.run(insert).await.map(|_| ()).map_err(|e| e.to_string()),
        };
        Box::new(move |ctx: &mut Ctx| match stored {
            Ok(()) => {
                ctx.shared().stats.counter("msilo", "stored_messages").up();
                if let Some(notice) = &kept.notice {
                    tell_sender(ctx, &kept, notice);
                }
                1
            }
            Err(why) => {
                host::error!("msilo", "a message was not stored: {why}");
                -1
            }
        }) as Finish
    })
    .detail(owner.user)
    .limit(host::db::LIMIT_MS, -1)
}

/// Unix seconds from "YYYYMMDDHHMMSS" in the configured variable; 0: at once.
fn send_at(ctx: &mut Ctx, module: &Msilo) -> i64 {
    let Some(text) = module.send_time_var.as_ref().and_then(|var| var.get(ctx).text()) else { return 0 };
    moment(&text).unwrap_or_else(|| {
        host::warn!("msilo", "{} is not a time YYYYMMDDHHMMSS", String::from_utf8_lossy(&text));
        0
    })
}

fn moment(text: &[u8]) -> Option<i64> {
    let text =
        std::str::from_utf8(text).ok().filter(|t| t.len() == 14 && t.bytes().all(|b| b.is_ascii_digit()))?;
    let (date, time) = text.split_at(8);
    let in_range =
        |part: &str, least: u32, most: u32| part.parse().is_ok_and(|n: u32| (least..=most).contains(&n));
    if !in_range(&date[4..6], 1, 12) || !in_range(&date[6..], 1, 31) || !in_range(&time[..2], 0, 23) {
        return None;
    }
    host::clock::from_sql(&format!(
        "{}-{}-{} {}:{}:{}",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..]
    ))
}

/// A line of headers as a parameter gives it, ended once.
fn line(text: &Bytes) -> Vec<u8> {
    [text.trim_ascii(), b"\r\n"].concat()
}

fn tell_sender(ctx: &mut Ctx, module: &Arc<Msilo>, notice: &Notice) {
    let msg = ctx.state.msg.clone();
    let Some(sender) = msg.from() else { return };
    let contact = msg.addresses(HeaderName::Contact).ok().and_then(|list| list.into_iter().next());
    let contact =
        contact.filter(|c| module.use_contact && c.uri.len() > 5 && c.uri[..4].eq_ignore_ascii_case(b"sip:"));
    let uri = contact.map_or_else(|| sender.uri.clone(), |c| c.uri);
    let mut headers = notice.contact.as_ref().map(|c| line(&c.text(ctx))).unwrap_or_default();
    headers.extend(line(&notice.content_type.text(ctx)));
    let from = format!("<{}>", String::from_utf8_lossy(&notice.from.text(ctx)));
    let to = format!("<{}>", String::from_utf8_lossy(&sender.uri));
    let mut request = NewRequest::new("MESSAGE", uri, &from, &to);
    request.headers = headers.into();
    request.body = notice.body.text(ctx);
    request.next_hop = module.proxy.clone().map(Bytes::from);
    host::tm::send_new(ctx, request, None);
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn moments() {
        assert_eq!(moment(b"20231114221320"), Some(1_700_000_000));
        for bad in ["2023", "2023111422132x", "20231314221320"] {
            assert_eq!(moment(bad.as_bytes()), None, "{bad}");
        }
    }
}
