//! The script functions of rtpproxy that are one command each.

use super::Rtpproxy;
use super::ask::{Asking, Feature, error_in, has};
use super::functions::{EVERYWHERE, Parties, limit};
use crate::bodies;
use crate::nodes::Node;
use crate::sdp::Sdp;
use bytes::Bytes;
use host::arg::AnyVar;
use host::registrar::Since;
use host::var::VarKind;
use host::{Call, Ctx, Finish, Int, OutVar, Outcome, Registrar, Routes, Suspension, Text, Value};
use std::sync::Arc;

/// What `rtpproxy_all_stats` asks for, by command.
const STATISTICS: [&str; 2] =
    [" ttl npkts_ina npkts_ino nrelayed ndropped", " rtpa_nsent rtpa_nrcvd rtpa_ndups rtpa_nlost rtpa_perrs"];
const STATISTICS_IN_ALL: usize = 10;

pub fn register(m: &mut Registrar<Rtpproxy>) {
    let streaming = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::LOCAL);
    m.function("rtpproxy_unforce", EVERYWHERE, unforce);
    m.function("rtpproxy_stream2uac", streaming, stream_to_uac);
    m.function("rtpproxy_stream2uas", streaming, stream_to_uas);
    m.function("rtpproxy_stop_stream2uac", streaming, stop_stream_to_uac);
    m.function("rtpproxy_stop_stream2uas", streaming, stop_stream_to_uas);
    m.function("rtpproxy_start_recording", EVERYWHERE, start_recording);
    m.function("rtpproxy_stats", EVERYWHERE, stats);
    m.function("rtpproxy_all_stats", EVERYWHERE, all_stats);
    m.function_of(Since::V21, "unforce_rtp_proxy", EVERYWHERE, unforce);
    m.function_of(Since::V21, "start_recording", EVERYWHERE, start_recording_old);
}

type Set = Option<Int>;
type Sock = Option<OutVar>;

/// Sends commands to the engine of the call, up to the first one that it refuses or that is answered with words where
/// numbers are wanted; `then` sees the answers. An engine must have the feature.
fn to_engine(
    call: &mut Call<Rtpproxy>,
    what: &'static str,
    (set, sock): (Set, Sock),
    call_id: &Bytes,
    feature: Option<Feature>,
    commands: Vec<Vec<u8>>,
    then: impl FnOnce(&mut Ctx, Vec<Option<Bytes>>) -> i32 + 'static,
) -> Outcome {
    let module = call.module.clone();
    let asking = Asking::new(call.ctx, &module);
    let number = set.map_or(module.default_set, |n| n.0);
    let (call_id, detail) = (call_id.clone(), call_id.clone());
    let limit = limit(&module);
    let mut ready = module.ready.subscribe();
    Suspension::future(what, async move {
        let _ = ready.wait_for(|ready| *ready).await;
        let Some(set) = module.sets.get().get(number).cloned() else {
            host::error!("rtpproxy", "there is no set {number}");
            return Box::new(|_: &mut Ctx| -1) as Finish;
        };
        let Some(node) = asking.choose(&set, &call_id, &[]).await else {
            host::error!("rtpproxy", "{what}: no available proxies");
            return Box::new(|_: &mut Ctx| -1) as Finish;
        };
        let answers = match feature.is_none_or(|feature| has(&node, feature)) {
            true => Some(ask_each(&asking, &node, commands).await),
            false => None,
        };
        Box::new(move |ctx: &mut Ctx| {
            if let Some(sock) = &sock {
                sock.set(ctx, node.url.clone());
            }
            match answers {
                Some(answers) => then(ctx, answers),
                None => {
                    host::error!("rtpproxy", "{what}: {} cannot do that", node.url);
                    -1
                }
            }
        }) as Finish
    })
    .detail(detail)
    .limit(limit, -1)
}

async fn ask_each(asking: &Asking, node: &Arc<Node>, commands: Vec<Vec<u8>>) -> Vec<Option<Bytes>> {
    let mut answers = Vec::new();
    for command in commands {
        let answer = asking.send(node, &command).await;
        let is_error = answer.as_ref().is_none_or(|answer| error_in(answer).is_some() || has_words(answer));
        answers.push(answer);
        if is_error {
            break;
        }
    }
    answers
}

/// Words of a command.
fn line(words: &[&[u8]]) -> Vec<u8> {
    words.join(&b" "[..])
}

fn stream(tag: &[u8], number: usize) -> Vec<u8> {
    [tag, format!(";{number}").as_bytes()].concat()
}

/// The words for both tags; the second one only when it is there.
fn tags(first: &Bytes, second: &Bytes) -> Vec<Vec<u8>> {
    let mut words = vec![stream(first, 1)];
    if !second.is_empty() {
        words.push(stream(second, 1));
    }
    words
}

/// rtpproxy_unforce([set], [engine])
fn unforce(call: &mut Call<Rtpproxy>, set: Set, sock: Sock) -> Outcome {
    let Some(who) = Parties::of(call.ctx) else { return (-1).into() };
    let command = delete(&who.call_id, &who.from, &who.to);
    to_engine(call, "rtpproxy_unforce", (set, sock), &who.call_id, None, vec![command], |_, _| 1)
}

/// The end of a session.
pub fn delete(call_id: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match to {
        b"" => line(&[b"D", call_id, from]),
        to => line(&[b"D", call_id, from, to]),
    }
}

/// Which party hears something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hears {
    Uac,
    Uas,
}

fn streaming(
    call: &mut Call<Rtpproxy>,
    what: &'static str,
    hears: Hears,
    play: Option<(Text, Int)>,
    to: (Set, Sock),
) -> Outcome {
    let Some(who) = Parties::of(call.ctx) else { return (-1).into() };
    let tags = match hears {
        Hears::Uac => tags(&who.from, &who.to),
        Hears::Uas if who.to.is_empty() => return (-1).into(),
        Hears::Uas => tags(&who.to, &who.from),
    };
    let first = match &play {
        Some((_, count)) => format!("P{}", count.0),
        None => "S".to_string(),
    };
    let mut words = vec![first.as_bytes(), &who.call_id[..]];
    if let Some((name, _)) = &play {
        words.extend([&name.0[..], b"session"]);
    }
    words.extend(tags.iter().map(|tag| &tag[..]));
    to_engine(call, what, to, &who.call_id, Some(Feature::Codecs), vec![line(&words)], |_, _| 1)
}

/// rtpproxy_stream2uac(name, count, [set], [engine])
fn stream_to_uac(call: &mut Call<Rtpproxy>, name: Text, count: Int, set: Set, sock: Sock) -> Outcome {
    streaming(call, "rtpproxy_stream2uac", Hears::Uac, Some((name, count)), (set, sock))
}

/// rtpproxy_stream2uas(name, count, [set], [engine])
fn stream_to_uas(call: &mut Call<Rtpproxy>, name: Text, count: Int, set: Set, sock: Sock) -> Outcome {
    streaming(call, "rtpproxy_stream2uas", Hears::Uas, Some((name, count)), (set, sock))
}

/// rtpproxy_stop_stream2uac([set], [engine])
fn stop_stream_to_uac(call: &mut Call<Rtpproxy>, set: Set, sock: Sock) -> Outcome {
    streaming(call, "rtpproxy_stop_stream2uac", Hears::Uac, None, (set, sock))
}

/// rtpproxy_stop_stream2uas([set], [engine])
fn stop_stream_to_uas(call: &mut Call<Rtpproxy>, set: Set, sock: Sock) -> Outcome {
    streaming(call, "rtpproxy_stop_stream2uas", Hears::Uas, None, (set, sock))
}

/// rtpproxy_start_recording([set], [engine], [flags], [destination], [stream])
fn start_recording(
    call: &mut Call<Rtpproxy>,
    set: Set,
    sock: Sock,
    flags: Option<Text>,
    destination: Option<Text>,
    media: Option<Int>,
) -> Outcome {
    let Some(mut who) = Parties::of(call.ctx) else { return (-1).into() };
    if !call.ctx.state.msg.is_request() {
        if who.to.is_empty() {
            return (-1).into();
        }
        std::mem::swap(&mut who.from, &mut who.to);
    }
    let flags = flags.map(|text| text.0).unwrap_or_default();
    let commands = match destination.filter(|to| !to.is_empty()) {
        None => {
            let first = [b"R", &flags[..]].concat();
            let words = [&first[..], &who.call_id, &who.from, &who.to];
            let known = if who.to.is_empty() { 3 } else { 4 };
            vec![line(&words[..known])]
        }
        Some(to) => {
            let streams = match media.map(|n| n.0).filter(|n| *n > 0) {
                Some(n) => n as usize..=n as usize,
                None => 1..=streams_of(call.ctx),
            };
            let first = [b"C", &flags[..]].concat();
            let command = |n| {
                let (from, to_tag) = (stream(&who.from, n), stream(&who.to, n));
                let words = [&first[..], &who.call_id, &to.0, &from, &to_tag];
                let known = if who.to.is_empty() { 4 } else { 5 };
                line(&words[..known])
            };
            streams.map(command).collect()
        }
    };
    let feature = Some(Feature::Record);
    to_engine(call, "rtpproxy_start_recording", (set, sock), &who.call_id, feature, commands, |_, _| 1)
}

/// start_recording([set], [engine]), as it was called before 3.0.
fn start_recording_old(call: &mut Call<Rtpproxy>, set: Set, sock: Sock) -> Outcome {
    start_recording(call, set, sock, None, None, None)
}

/// How many streams the message describes; one when it does not.
fn streams_of(ctx: &Ctx) -> usize {
    let Some(body) = bodies::sdp(&ctx.state) else { return 1 };
    match Sdp::parse(&body) {
        Ok(sdp) => sdp.sessions.iter().map(|session| session.media.len()).sum(),
        Err(_) => 1,
    }
}

/// The command that asks for numbers of the first stream.
fn query(ctx: &Ctx) -> Option<(Bytes, Vec<u8>)> {
    let mut who = Parties::of(ctx)?;
    if !ctx.state.msg.is_request() {
        std::mem::swap(&mut who.from, &mut who.to);
    }
    let command = line(&[b"Q", &who.call_id, &stream(&who.from, 1), &stream(&who.to, 1)]);
    Some((who.call_id, command))
}

fn numbers(answer: &[u8]) -> Option<Vec<i64>> {
    let words = answer.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
    words.map(|word| std::str::from_utf8(word).ok()?.parse().ok()).collect()
}

fn has_words(answer: &[u8]) -> bool {
    numbers(answer).is_none()
}

/// rtpproxy_stats(up, down, sent, failed, [set], [engine]): -8 the engine does not know the call.
fn stats(
    call: &mut Call<Rtpproxy>,
    up: OutVar,
    down: OutVar,
    sent: OutVar,
    lost: OutVar,
    set: Set,
    sock: Sock,
) -> Outcome {
    let Some((call_id, command)) = query(call.ctx) else { return (-1).into() };
    let vars = [up, down, sent, lost];
    let then = move |ctx: &mut Ctx, answers: Vec<Option<Bytes>>| {
        let Some(answer) = answers.into_iter().next().flatten() else { return -1 };
        if let Some(error) = error_in(&answer) {
            host::error!("rtpproxy", "rtpproxy_stats: error E{error}");
            return i32::try_from(error.abs()).map_or(-1, |error| -error.max(1));
        }
        let found = numbers(&answer).unwrap_or_default();
        // The first one is the time that is left.
        let found = found.get(1..).unwrap_or_default();
        for (var, number) in vars.iter().zip(found) {
            var.set(ctx, Value::Int(*number));
        }
        if found.len() < vars.len() {
            host::error!("rtpproxy", "rtpproxy_stats: an answer that cannot be read");
            return -2;
        }
        1
    };
    let to = (set, sock);
    to_engine(call, "rtpproxy_stats", to, &call_id, Some(Feature::Stats), vec![command], then)
}

/// rtpproxy_all_stats(avp, [set], [engine]): the AVP gets ten values.
fn all_stats(call: &mut Call<Rtpproxy>, avp: AnyVar, set: Set, sock: Sock) -> Outcome {
    let VarKind::Avp(name) = avp.0.kind else {
        host::error!("rtpproxy", "rtpproxy_all_stats: the first argument is no AVP");
        return (-1).into();
    };
    call.ctx.state.avps.borrow_mut().remove_all(name);
    let Some((call_id, command)) = query(call.ctx) else { return (-1).into() };
    let commands = STATISTICS.map(|asked| [&command[..], asked.as_bytes()].concat()).to_vec();
    let then = move |ctx: &mut Ctx, answers: Vec<Option<Bytes>>| {
        let mut count = 0;
        for answer in answers {
            let answer = answer.filter(|answer| error_in(answer).is_none());
            let Some(found) = answer.and_then(|answer| numbers(&answer)) else {
                host::error!("rtpproxy", "rtpproxy_all_stats: the engine has no numbers for it");
                return -2;
            };
            count += found.len();
            let mut avps = ctx.state.avps.borrow_mut();
            found.into_iter().for_each(|n| avps.add_last(name, Value::Int(n)));
        }
        if count == STATISTICS_IN_ALL { 1 } else { -2 }
    };
    let to = (set, sock);
    to_engine(call, "rtpproxy_all_stats", to, &call_id, Some(Feature::AllStats), commands, then)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_numbers() {
        assert_eq!(numbers(b"60 1 2\n"), Some(vec![60, 1, 2]));
        assert_eq!(numbers(b"60 x"), None);
        assert_eq!(delete(b"id", b"a", b""), b"D id a");
        assert_eq!(delete(b"id", b"a", b"b"), b"D id a b");
    }
}
