//! Rules of a user (RFC 4745, 5025, OMA presence rules): which one is about a watcher, and what it says.

use super::Style;
use super::transform;
use crate::presence::documents::{Handling, Rules, Watcher};
use crate::presence::subscription::uri_of;
use crate::xcap::normalized;
use crate::xml::Element;
use bytes::Bytes;

/// A document of rules, read.
pub struct Ruleset {
    root: Element,
    style: Style,
    /// Lists that conditions name, by their addresses.
    lists: Vec<(String, Vec<String>)>,
}

/// What a rule of the OMA style goes by; the kinds further up win.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ground {
    Other,
    List,
    Identity,
    Anonymous,
}

impl Ruleset {
    pub fn new(root: Element, style: Style) -> Ruleset {
        Ruleset { root, style, lists: Vec::new() }
    }

    /// Addresses of the lists that conditions name.
    pub fn anchors(&self) -> Vec<String> {
        if self.style != Style::Oma {
            return Vec::new();
        }
        let mut all = Vec::new();
        for rule in self.rules() {
            let lists = rule.first("conditions").and_then(|c| c.first("external-list"));
            let entries = lists.into_iter().flat_map(Element::elements).filter(|e| e.is("entry"));
            all.extend(entries.filter_map(|e| e.get("anc")).map(str::to_string));
        }
        all.sort();
        all.dedup();
        all
    }

    pub fn add_list(&mut self, anchor: String, uris: Vec<String>) {
        self.lists.push((anchor, uris));
    }

    fn rules(&self) -> impl Iterator<Item = &Element> {
        self.root.find("ruleset").into_iter().flat_map(Element::elements)
    }

    /// The rule that decides.
    fn rule_for(&self, watcher: &Watcher) -> Option<(&Element, Handling)> {
        let uri = uri_of(&watcher.user, &watcher.domain);
        match self.style {
            Style::Ietf => {
                let rule = self.ietf(watcher, &uri)?;
                Some((rule, handling_of(rule)?))
            }
            Style::Oma => self.oma(watcher, &uri),
        }
    }

    /// The first that fits. A rule that cannot be read ends the search: nobody gets more than was meant.
    fn ietf(&self, watcher: &Watcher, uri: &str) -> Option<&Element> {
        for rule in self.rules() {
            let conditions = rule.first("conditions")?;
            let is_now = conditions.first("validity").is_none_or(|v| is_valid(v, watcher.now));
            let is_there = conditions.first("sphere").is_none_or(|wanted| {
                let wanted = wanted.get("value").map_or_else(|| wanted.content(), str::to_string);
                watcher.sphere.as_deref().is_some_and(|sphere| sphere.eq_ignore_ascii_case(wanted.trim()))
            });
            if is_now && is_there && means(conditions.first("identity")?, watcher, uri, str::to_string) {
                return Some(rule);
            }
        }
        None
    }

    /// Of those that fit on the strongest ground the most generous.
    fn oma(&self, watcher: &Watcher, uri: &str) -> Option<(&Element, Handling)> {
        let fits = |rule: &Element| {
            let conditions = rule.first("conditions")?;
            conditions.elements().find_map(|condition| {
                let (ground, fits) = if condition.is("identity") {
                    (Ground::Identity, means(condition, watcher, uri, normalized))
                } else if condition.is("external-list") {
                    (Ground::List, self.lists(condition, uri))
                } else if condition.is("anonymous-request") {
                    let is_anonymous = watcher.user == "anonymous" && watcher.domain == "anonymous.invalid";
                    (Ground::Anonymous, is_anonymous)
                } else if condition.is("other-identity") {
                    (Ground::Other, true)
                } else {
                    return None;
                };
                Some((ground, fits))
            })
        };
        let ground = |rule: &Element| fits(rule).filter(|(_, fits)| *fits).map(|(ground, _)| ground);
        let strongest = self.rules().filter_map(ground).max()?;
        let mut best: Option<(&Element, Handling)> = None;
        for rule in self.rules().filter(|rule| ground(rule) == Some(strongest)) {
            if let Some(handling) = handling_of(rule)
                && best.is_none_or(|(_, known)| handling > known)
            {
                best = Some((rule, handling));
            }
        }
        best
    }

    fn lists(&self, condition: &Element, uri: &str) -> bool {
        let mut anchors = condition.elements().filter(|e| e.is("entry")).filter_map(|e| e.get("anc"));
        anchors.any(|anchor| {
            let list = self.lists.iter().find(|(known, _)| known == anchor);
            list.is_some_and(|(_, uris)| uris.iter().any(|entry| entry == uri))
        })
    }
}

/// Is the watcher among those of an identity condition?
fn means(identity: &Element, watcher: &Watcher, uri: &str, form: fn(&str) -> String) -> bool {
    let is_watcher = |e: &Element| e.get("id").is_some_and(|id| form(id) == uri);
    let in_domain = |e: &Element| {
        e.get("domain").is_some_and(|domain| domain.as_bytes().eq_ignore_ascii_case(&watcher.domain))
    };
    identity.elements().any(|e| {
        if e.is("one") {
            return is_watcher(e);
        }
        let excepted = || e.elements().any(|x| x.is("except") && (is_watcher(x) || in_domain(x)));
        e.is("many") && (e.get("domain").is_none() || in_domain(e)) && !excepted()
    })
}

/// Is it now in one of the pairs of from and until?
fn is_valid(validity: &Element, now: i64) -> bool {
    let mut from = None;
    for element in validity.elements() {
        let moment = moment(&element.content());
        if element.is("from") {
            from = moment;
        } else if element.is("until")
            && let (Some(start), Some(end)) = (from.take(), moment)
            && (start..=end).contains(&now)
        {
            return true;
        }
    }
    false
}

/// Unix seconds of an XML dateTime ("2026-01-31T10:00:00+01:00"); without a zone it is UTC.
fn moment(text: &str) -> Option<i64> {
    let text = text.trim();
    let (day, rest) = text.split_once(['T', 't'])?;
    let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone);
    let time = time.split('.').next()?;
    let mut day = day.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (day.next()??, day.next()??, day.next()??);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u32>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 25 && minute < 60 && second < 61;
    if !in_range {
        return None;
    }
    let offset = match zone.as_bytes().first() {
        None | Some(b'Z' | b'z') => 0,
        Some(sign) => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let seconds = (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
    };
    let days = host::clock::days_of(i64::from(year), month, day);
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(days * 86_400 + seconds - offset)
}

fn handling_of(rule: &Element) -> Option<Handling> {
    let content = rule.first("actions")?.first("sub-handling")?.content();
    Some(match content.trim() {
        "block" => Handling::Block,
        "confirm" => Handling::Confirm,
        "polite-block" => Handling::PoliteBlock,
        "allow" => Handling::Allow,
        _ => return None,
    })
}

impl Rules for Ruleset {
    fn handling(&self, watcher: &Watcher) -> Option<Handling> {
        self.rule_for(watcher).map(|(_, handling)| handling)
    }

    fn shown(&self, watcher: &Watcher, body: &Bytes) -> Option<Bytes> {
        let (rule, _) = self.rule_for(watcher)?;
        transform::apply(rule.first("transformations")?, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    fn rules(conditions: &[(&str, &str)], style: Style) -> Ruleset {
        let rule = |(condition, handling): &(&str, &str)| {
            format!(
                "<rule><conditions>{condition}</conditions><actions><pr:sub-handling>{handling}</pr:sub-handling></actions></rule>"
            )
        };
        let all: String = conditions.iter().map(rule).collect();
        let text = format!("<ruleset xmlns:pr='urn:ietf:params:xml:ns:pres-rules'>{all}</ruleset>");
        Ruleset::new(xml::parse(text.as_bytes()).unwrap(), style)
    }

    fn watcher(user: &'static str, domain: &'static str) -> Watcher {
        Watcher { user: user.into(), domain: domain.into(), sphere: None, now: 1_700_000_000 }
    }

    #[test]
    fn whom_a_rule_means() {
        let alice = watcher("alice", "example.com");
        for (condition, wanted) in [
            ("<identity><one id='sip:alice@example.com'/></identity>", true),
            ("<identity><one id='sip:alice@example.co'/></identity>", false),
            ("<identity><many/></identity>", true),
            ("<identity><many domain='example.com'/></identity>", true),
            ("<identity><many domain='example.net'/></identity>", false),
            ("<identity><many><except id='sip:alice@example.com'/></many></identity>", false),
            ("<identity><many><except domain='EXAMPLE.com'/></many></identity>", false),
            ("<identity><many/></identity><sphere>work</sphere>", false),
            (
                "<identity><many/></identity><validity><from>2023-01-01T00:00:00Z</from><until>2024-01-01T00:00:00+01:00\
                 </until></validity>",
                true,
            ),
            (
                "<identity><many/></identity><validity><from>2024-01-01T00:00:00Z</from><until>2025-01-01T00:00:00Z</until>\
                 </validity>",
                false,
            ),
            ("", false),
        ] {
            let found = rules(&[(condition, "allow")], Style::Ietf).handling(&alice);
            assert_eq!(found, wanted.then_some(Handling::Allow), "{condition}");
        }
        let at_work = Watcher { sphere: Some("Work".into()), ..alice };
        let rules =
            rules(&[("<identity><many/></identity><sphere>work</sphere>", "polite-block")], Style::Ietf);
        assert_eq!(rules.handling(&at_work), Some(Handling::PoliteBlock));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let two = [("<identity><many/></identity>", "block"), ("<identity><many/></identity>", "allow")];
        assert_eq!(rules(&two, Style::Ietf).handling(&watcher("a", "x")), Some(Handling::Block));
        let odd = [("<identity><many/></identity>", "maybe")];
        assert_eq!(rules(&odd, Style::Ietf).handling(&watcher("a", "x")), None);
    }

    #[test]
    fn the_strongest_ground_decides() {
        let all = [
            ("<other-identity/>", "confirm"),
            ("<external-list><entry anc='/rl/users/b/index/~~/l'/></external-list>", "polite-block"),
            ("<identity><one id='alice%40x'/></identity>", "block"),
            ("<identity><many domain='x'/></identity>", "allow"),
            ("<anonymous-request/>", "block"),
        ];
        let mut rules = rules(&all, Style::Oma);
        assert_eq!(rules.anchors(), ["/rl/users/b/index/~~/l"]);
        rules.add_list("/rl/users/b/index/~~/l".into(), vec!["sip:carol@y".into()]);
        for (user, domain, wanted) in [
            ("alice", "x", Handling::Allow),
            ("carol", "y", Handling::PoliteBlock),
            ("dave", "z", Handling::Confirm),
            ("anonymous", "anonymous.invalid", Handling::Block),
        ] {
            assert_eq!(rules.handling(&watcher(user, domain)), Some(wanted), "{user}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!(moment("2023-11-14T22:13:20Z"), Some(1_700_000_000));
        assert_eq!(moment("2023-11-14T23:13:20.5+01:00"), Some(1_700_000_000));
        for bad in ["", "2023-11-14", "2023-13-14T22:13:20Z", "x-y-zT1:2:3"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
