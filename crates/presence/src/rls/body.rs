//! What a watcher of a list is told: rlmi (RFC 4662 §5), and the state of each user behind it.

use crate::xml::Element;
use bytes::Bytes;
use host::Ctx;

const NAMESPACE: &str = "urn:ietf:params:xml:ns:rlmi";

/// State of the subscription to a user, with the numbers of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubscriptionState {
    Active = 1 << 1,
    Pending = 1 << 2,
    Terminated = 1 << 3,
}

impl SubscriptionState {
    pub fn of_number(number: i64) -> Option<SubscriptionState> {
        [SubscriptionState::Active, SubscriptionState::Pending, SubscriptionState::Terminated]
            .into_iter()
            .find(|state| *state as i64 == number)
    }

    /// Of Subscription-State.
    pub fn of_word(word: &[u8]) -> Option<SubscriptionState> {
        let words = [SubscriptionState::Active, SubscriptionState::Pending, SubscriptionState::Terminated];
        words.into_iter().find(|state| state.word().as_bytes().eq_ignore_ascii_case(word))
    }

    pub fn word(self) -> &'static str {
        match self {
            SubscriptionState::Active => "active",
            SubscriptionState::Pending => "pending",
            SubscriptionState::Terminated => "terminated",
        }
    }
}

/// What a user told last.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub uri: String,
    pub state: SubscriptionState,
    pub reason: String,
    pub content_type: Bytes,
    pub body: Bytes,
}

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All users of the list.
    Full,
    /// Only those that changed.
    Partial,
}

/// A whole body and its Content-Type.
pub struct Body {
    pub content_type: String,
    pub bytes: Bytes,
}

/// Names that nobody else makes.
fn unique(ctx: &mut Ctx) -> String {
    format!("{:016x}{:08x}", ctx.core.rng.next_u64(), ctx.core.rng.next_u64() >> 32)
}

/// `users`: those that the list holds, or of them those that changed.
pub fn build(
    ctx: &mut Ctx,
    (list, version): (&str, u32),
    extent: Extent,
    users: &[String],
    instances: &[Instance],
) -> Body {
    let full = if extent == Extent::Full { "true" } else { "false" };
    let mut rlmi = Element::new("list", NAMESPACE)
        .attribute("uri", list)
        .attribute("version", version.to_string())
        .attribute("fullState", full);
    let boundary = unique(ctx);
    let mut parts = Vec::new();
    for user in users {
        let mut resource = Element::new("resource", NAMESPACE).attribute("uri", user.as_str());
        for instance in instances.iter().filter(|instance| instance.uri == *user) {
            let id = unique(ctx)[..8].to_owned();
            let mut element = Element::new("instance", NAMESPACE)
                .attribute("id", id)
                .attribute("state", instance.state.word());
            match instance.state {
                SubscriptionState::Active if !instance.body.is_empty() => {
                    let cid = format!("{}@fermata", unique(ctx));
                    part(&mut parts, &boundary, &cid, &instance.content_type, &instance.body);
                    element.set("cid", cid);
                }
                SubscriptionState::Terminated => element.set("reason", instance.reason.as_str()),
                SubscriptionState::Active | SubscriptionState::Pending => {}
            }
            resource = resource.child(element);
        }
        rlmi = rlmi.child(resource);
    }
    let start = format!("{}@fermata", unique(ctx));
    let mut bytes = Vec::new();
    let head = |name: &str, value: &str| format!("{name}: {value}\r\n");
    bytes.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
    bytes.extend_from_slice(head("Content-Transfer-Encoding", "binary").as_bytes());
    bytes.extend_from_slice(head("Content-ID", &format!("<{start}>")).as_bytes());
    bytes.extend_from_slice(head("Content-Type", "application/rlmi+xml;charset=\"UTF-8\"").as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&rlmi.document());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&parts);
    bytes.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Body {
        content_type: format!(
            "multipart/related;type=\"application/rlmi+xml\";start=\"<{start}>\";boundary=\"{boundary}\""
        ),
        bytes: bytes.into(),
    }
}

fn part(out: &mut Vec<u8>, boundary: &str, cid: &str, content_type: &[u8], body: &[u8]) {
    out.extend_from_slice(format!("--{boundary}\r\nContent-Transfer-Encoding: binary\r\n").as_bytes());
    out.extend_from_slice(format!("Content-ID: <{cid}>\r\nContent-Type: ").as_bytes());
    out.extend_from_slice(content_type);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body.trim_ascii());
    out.extend_from_slice(b"\r\n\r\n");
}
