//! `$rtpstat` and `$rtpquery`: what the engine knows of the call. It is asked once for a message.

use super::Rtpengine;
use super::ask::Target;
use super::bencode::{Bencode, Dict};
use super::functions::query;
use bytes::Bytes;
use host::call::Wait;
use host::format::Format;
use host::var::{Answer, At, VarKind, WaitingVariable};
use host::{Ctx, Finish, Registrar, Suspension, Value};
use script::Diagnostic;
use std::rc::Rc;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Rtpengine>) {
    m.variable_class("rtpstat", |spec, loader, module| {
        let what = match &spec.inner {
            None => What::Line,
            Some(inner) => What::Named(match Format::new(inner, spec.loc, loader)? {
                Format::Constant(name) => Name::Known(Stat::named(&name).ok_or_else(|| {
                    let name = String::from_utf8_lossy(&name);
                    Diagnostic::error(spec.loc, format!("there is no statistic {name} of RTP"))
                        .hint("one of MOS, jitter, roundtrip, packetloss, with -average, -min, -max, -min-at or -max-at")
                })?),
                format => Name::Later(format),
            }),
        };
        let tag = loader.text_index(spec)?;
        Ok(VarKind::Waiting(Box::new(Statistic { module: module.clone(), what, tag })))
    });
    m.variable_class("rtpquery", |_, _, module| {
        Ok(VarKind::Waiting(Box::new(Statistic { module: module.clone(), what: What::All, tag: None })))
    });
}

/// What the engine said of the call of this message; `None` inside: it said nothing.
#[derive(Clone, Default)]
struct Kept(Option<Rc<Option<Dict>>>);

/// Remembers what an engine said of the call.
pub fn keep(ctx: &mut Ctx, dict: Option<Dict>) {
    ctx.state.ext.set(Kept(Some(Rc::new(dict))));
}

struct Statistic {
    module: Arc<Rtpengine>,
    what: What,
    /// The party that is meant.
    tag: Option<Format>,
}

enum What {
    /// Totals as a text.
    Line,
    Named(Name),
    /// All of it, as JSON.
    All,
}

enum Name {
    Known(Stat),
    Later(Format),
}

/// What is wanted, as texts.
enum Wanted {
    Line,
    Stat(Stat, Option<Bytes>),
    All,
    /// A name that means nothing.
    Nothing,
}

impl WaitingVariable for Statistic {
    fn ask(&self, ctx: &mut Ctx, _: At) -> Answer {
        let wanted = self.wanted(ctx);
        if let Some(kept) = ctx.state.ext.find::<Kept>().and_then(|kept| kept.0.clone()) {
            return wanted.of(kept.as_ref().as_ref()).into();
        }
        let Some((asking, command, number, limit_ms)) = query(ctx, &self.module) else {
            keep(ctx, None);
            return Value::Null.into();
        };
        let module = self.module.clone();
        let detail = command.call_id.clone();
        let future = async move {
            let set = module.sets.get().get(number).cloned();
            let answer = asking.run(&command, Target { set, forced: None, known: None }).await;
            let dict = answer.ok().map(|a| a.dict).filter(|d| d.text("result").is_some_and(|r| r == "ok"));
            Box::new(move |ctx: &mut Ctx| {
                let value = wanted.of(dict.as_ref());
                keep(ctx, dict);
                ctx.answer(value)
            }) as Finish
        };
        let (what, wait) = ("rtpengine_query", Wait::Future(Box::pin(future)));
        Answer::Later(Box::new(Suspension { what, detail, wait, limit_ms, on_deadline: -1 }))
    }
}

impl Statistic {
    fn wanted(&self, ctx: &mut Ctx) -> Wanted {
        let stat = match &self.what {
            What::Line => return Wanted::Line,
            What::All => return Wanted::All,
            What::Named(Name::Known(stat)) => *stat,
            What::Named(Name::Later(format)) => match Stat::named(&format.text(ctx)) {
                Some(stat) => stat,
                None => return Wanted::Nothing,
            },
        };
        Wanted::Stat(stat, self.tag.as_ref().map(|tag| tag.text(ctx)))
    }
}

impl Wanted {
    fn of(&self, dict: Option<&Dict>) -> Value {
        let Some(dict) = dict else { return Value::Null };
        match self {
            Wanted::Line => line(dict).map_or(Value::Null, Value::from),
            Wanted::Stat(stat, tag) => stat.of(dict, tag.as_deref()).map_or(Value::Null, Value::Int),
            Wanted::All => Value::from(dict.to_json().to_string()),
            Wanted::Nothing => Value::Null,
        }
    }
}

/// Packets and bytes of the whole call.
fn line(dict: &Dict) -> Option<String> {
    let totals = dict.dict("totals")?;
    let part = |name: &str| {
        let part = totals.dict(name)?;
        let n = |key: &str| part.int(key).unwrap_or(-1);
        Some(format!("{name}: {} bytes, {} packets, {} errors", n("bytes"), n("packets"), n("errors")))
    };
    Some(format!("{}; {}", part("RTP")?, part("RTCP")?))
}

/// A statistic: which value, and which of the values that were measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    /// The key in what engines say.
    key: &'static str,
    kind: Kinds,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kinds {
    Average,
    /// Of the time with the lowest MOS.
    Min,
    MinAt,
    /// Of the time with the highest MOS.
    Max,
    MaxAt,
}

impl Stat {
    fn named(name: &[u8]) -> Option<Stat> {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let (value, kind) = name.split_once('-')?;
        let key = match value {
            "mos" => "MOS",
            "jitter" => "jitter",
            "roundtrip" => "round-trip time",
            "packetloss" => "packet loss",
            _ => return None,
        };
        let kind = match kind {
            "average" => Kinds::Average,
            "min" => Kinds::Min,
            "min-at" => Kinds::MinAt,
            "max" => Kinds::Max,
            "max-at" => Kinds::MaxAt,
            _ => return None,
        };
        Some(Stat { key, kind })
    }

    /// Over all streams, or those that a party sends.
    fn of(self, dict: &Dict, tag: Option<&[u8]>) -> Option<i64> {
        let created = match self.kind {
            Kinds::MinAt | Kinds::MaxAt => dict.int("created")?,
            _ => 0,
        };
        let party = match tag {
            Some(tag) => Some(party(dict, tag)?),
            None => None,
        };
        let report = match self.kind {
            Kinds::Average => "average MOS",
            Kinds::Min | Kinds::MinAt => "lowest MOS",
            Kinds::Max | Kinds::MaxAt => "highest MOS",
        };
        let streams = dict.dict("SSRC")?.0.iter();
        let own = streams.filter(|(ssrc, _)| party.is_none_or(|party| sends(party, ssrc)));
        let reports = own.filter_map(|(_, stream)| match stream {
            Bencode::Dict(stream) => stream.dict(report),
            _ => None,
        });
        let values: Vec<(i64, &Dict)> =
            reports.filter_map(|report| Some((report.int(self.key)?, report))).collect();
        let first_best = |better: fn(i64, i64) -> bool| {
            values.iter().copied().reduce(|best, one| if better(one.0, best.0) { one } else { best })
        };
        let at =
            |found: Option<(i64, &Dict)>| Some(found?.1.int("reported at")? - created).filter(|at| *at >= 0);
        match self.kind {
            Kinds::Average if values.is_empty() => None,
            Kinds::Average => Some(values.iter().map(|(n, _)| n).sum::<i64>() / values.len() as i64),
            Kinds::Min => first_best(|a, b| a < b).map(|(n, _)| n),
            Kinds::Max => first_best(|a, b| a > b).map(|(n, _)| n).filter(|n| *n >= 0),
            Kinds::MinAt => at(first_best(|a, b| a < b)),
            Kinds::MaxAt => at(first_best(|a, b| a > b)),
        }
    }
}

fn party<'a>(dict: &'a Dict, tag: &[u8]) -> Option<&'a Dict> {
    let (_, found) = dict.dict("tags")?.0.iter().find(|(name, _)| &name[..] == tag)?;
    match found {
        Bencode::Dict(party) => Some(party),
        _ => None,
    }
}

/// Whether a stream of this party has the SSRC.
fn sends(party: &Dict, ssrc: &[u8]) -> bool {
    let list = |dict: &Bencode, key: &str| match dict {
        Bencode::Dict(dict) => dict.list(key).map(<[Bencode]>::to_vec).unwrap_or_default(),
        _ => Vec::new(),
    };
    let medias = party.list("medias").unwrap_or_default();
    medias.iter().flat_map(|media| list(media, "streams")).any(|stream| match stream {
        Bencode::Dict(stream) => stream.int("SSRC").is_some_and(|n| n.to_string().as_bytes() == ssrc),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtpengine::bencode::decode;

    #[test]
    fn statistics_by_name() {
        let text = b"d7:createdi1000e4:SSRCd1:1d11:average MOSd3:MOSi43e6:jitteri5ee10:lowest MOSd3:MOSi40e11:reported ati1030eee\
                     1:2d11:average MOSd3:MOSi36e6:jitteri8ee10:lowest MOSd3:MOSi20e11:reported ati1045eeee\
                     4:tagsd1:ad6:mediasld7:streamsld4:SSRCi1eeeeeeee";
        let dict = decode(&Bytes::from_static(text)).unwrap();
        for (name, tag, want) in [
            ("MOS-average", None, Some(39)),
            ("jitter-average", Some("a"), Some(5)),
            ("MOS-min", None, Some(20)),
            ("mos-MIN-at", None, Some(45)),
            ("MOS-min-at", Some("a"), Some(30)),
            ("MOS-max", None, None),
            ("roundtrip-min", None, None),
            ("MOS-average", Some("b"), None),
        ] {
            let stat = Stat::named(name.as_bytes()).unwrap();
            assert_eq!(stat.of(&dict, tag.map(str::as_bytes)), want, "{name} {tag:?}");
        }
        assert!(Stat::named(b"MOS").is_none() && Stat::named(b"MOS-mean").is_none());
        assert_eq!(line(&dict), None);
    }
}
