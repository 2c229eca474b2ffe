//! Destinations that requests must not go to (OpenSIPS `dst_blacklist`, `use_blacklist()`).

use crate::context::net::Net;
use parking_lot::RwLock;
use sip::Transport;
use std::net::SocketAddr;
use transaction::Instant;

/// Lists of one configuration; scripts keep which ones they use as bits.
const MAX_LISTS: usize = 64;
/// Destinations that failed and are remembered at a time.
const MAX_FAILED: usize = 1024;
/// How long they are, milliseconds (OpenSIPS `DNS_BL_EXPIRE`).
const FAILED_FOR: u64 = 240_000;
/// Owner of the list of them, which has the same name.
const FAILED: &str = "dns";

/// All lists, shared by the workers. Rules of lists that are not `readonly` change while the server runs.
#[derive(Debug, Default)]
pub struct Blacklists(Vec<Blacklist>);

#[derive(Debug)]
pub struct Blacklist {
    pub name: String,
    /// Who made it: "script", or the module that fills it.
    pub owner: &'static str,
    /// Used without `use_blacklist()`.
    pub default: bool,
    pub readonly: bool,
    /// Its rules may end by themselves.
    pub expire: bool,
    rules: RwLock<Vec<Rule>>,
}

/// `[!](proto, address/mask, port, "pattern")`
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `!`: whatever does not match is blocked.
    pub negated: bool,
    /// `None`: any.
    pub transport: Option<Transport>,
    pub net: Net,
    /// 0: any.
    pub port: u16,
    /// A glob for the message; empty: any.
    pub pattern: String,
    pub until: Option<Instant>,
}

/// What is asked: a destination and the bytes that would go there.
#[derive(Clone, Copy, Debug)]
pub struct Going<'a> {
    /// `None`: only rules for any protocol match.
    pub transport: Option<Transport>,
    pub addr: SocketAddr,
    pub message: &'a [u8],
    pub now: Instant,
}

/// Which lists a message uses besides the default ones, bit by bit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InUse {
    pub on: u64,
    pub off: u64,
}

impl Rule {
    /// `(tcp, 10.0.0.0/8, 5060, "glob")` with or without parentheses; protocol, port and glob may be missing.
    pub fn parse(text: &str) -> Result<Rule, String> {
        let text = text.trim();
        let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim()));
        let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).unwrap_or(text);
        let mut fields = split(inner, ',').into_iter().map(|f| f.trim().trim_matches('"').to_owned());
        let mut first = fields.next().unwrap_or_default();
        let mut transport = None;
        let protocol = first.to_ascii_lowercase();
        if protocol == "any" || Transport::parse(protocol.as_bytes()).is_some() {
            transport = Transport::parse(protocol.as_bytes());
            first = fields.next().unwrap_or_default();
        }
        let (inverse, address) = first.strip_prefix('!').map_or((false, &first[..]), |rest| (true, rest));
        let net = Net::parse(address).ok_or_else(|| format!("`{address}` is no address or network"))?;
        let port = match fields.next().filter(|p| !p.is_empty()) {
            None => 0,
            Some(port) => port.parse().map_err(|_| format!("`{port}` is no port"))?,
        };
        let pattern = fields.next().unwrap_or_default();
        Ok(Rule { negated: negated != inverse, transport, net, port, pattern, until: None })
    }

    /// One address of a destination; port 0 is any.
    pub fn of_address(transport: Option<Transport>, addr: SocketAddr) -> Rule {
        let ip = addr.ip();
        let net = Net::new(ip, if ip.is_ipv4() { 32 } else { 128 }).expect("the whole address");
        let (negated, pattern, until) = (false, String::new(), None);
        Rule { negated, transport, net, port: addr.port(), pattern, until }
    }

    fn blocks(&self, going: &Going<'_>) -> bool {
        let transport = self.transport.is_none_or(|t| going.transport == Some(t));
        let port = self.port == 0 || self.port == going.addr.port();
        let pattern = || self.pattern.is_empty() || glob(self.pattern.as_bytes(), going.message);
        (transport && port && self.net.has(going.addr.ip().to_canonical()) && pattern()) != self.negated
    }

    fn same_place(&self, other: &Rule) -> bool {
        let key = |r: &Rule| (r.negated, r.transport, r.net, r.port, r.pattern.clone());
        key(self) == key(other)
    }
}

impl Blacklist {
    /// `id [/flags] [: rules]`
    pub fn parse(text: &str) -> Result<Blacklist, String> {
        let (head, rules) = match text.split_once(':') {
            Some((head, rules)) => (head, rules.trim()),
            None => (text, ""),
        };
        let (name, flags) = match head.split_once('/') {
            Some((name, flags)) => (name, Some(flags)),
            None => (head, None),
        };
        let name = name.trim().trim_matches('"').to_owned();
        if name.is_empty() {
            return Err("a blacklist needs a name".into());
        }
        let (mut default, mut readonly, mut expire) = (false, flags.is_none(), false);
        for flag in flags.unwrap_or_default().split(',').map(str::trim).filter(|f| !f.is_empty()) {
            match flag {
                "default" => default = true,
                "readonly" => readonly = true,
                "expire" => expire = true,
                other => {
                    return Err(format!("`{other}` is no flag of a blacklist (expire, default, readonly)"));
                }
            }
        }
        let body = rules.strip_prefix('{').and_then(|r| r.strip_suffix('}')).unwrap_or(rules);
        let rules: Result<Vec<Rule>, String> =
            split(body, ',').iter().filter(|r| !r.trim().is_empty()).map(|r| Rule::parse(r)).collect();
        let rules = RwLock::new(rules?);
        Ok(Blacklist { name, owner: "script", default, readonly, expire, rules })
    }

    /// An empty list that a module fills.
    pub fn of_module(name: &str, owner: &'static str) -> Blacklist {
        let rules = RwLock::default();
        Blacklist { name: name.to_owned(), owner, default: false, readonly: false, expire: false, rules }
    }

    /// The list of destinations that failed (OpenSIPS `disable_dns_blacklist = no`): every message uses it unless it says
    /// `unuse_blacklist("dns")`.
    pub fn of_failed() -> Blacklist {
        Blacklist { default: true, expire: true, ..Blacklist::of_module(FAILED, FAILED) }
    }

    /// Puts these rules in the place of all others.
    pub fn refill(&self, rules: Vec<Rule>) {
        *self.rules.write() = rules;
    }

    pub fn blocks(&self, going: &Going<'_>) -> bool {
        let alive = |rule: &&Rule| rule.until.is_none_or(|until| until > going.now);
        self.rules.read().iter().filter(alive).any(|rule| rule.blocks(going))
    }

    pub fn rules(&self, now: Instant) -> Vec<Rule> {
        self.rules.read().iter().filter(|rule| rule.until.is_none_or(|until| until > now)).cloned().collect()
    }

    /// One more rule that ends; of more than `most` the oldest is given up.
    fn add_within(&self, rule: Rule, now: Instant, most: usize) {
        if self.add(rule, now) {
            let mut rules = self.rules.write();
            let surplus = rules.len().saturating_sub(most);
            rules.drain(..surplus);
        }
    }

    /// False: the list is read-only, or the rule ends and the list has no such rules.
    pub fn add(&self, rule: Rule, now: Instant) -> bool {
        if self.readonly || (rule.until.is_some() && !self.expire) {
            return false;
        }
        let mut rules = self.rules.write();
        rules.retain(|old| !old.same_place(&rule) && old.until.is_none_or(|until| until > now));
        rules.push(rule);
        true
    }

    /// False: there is no such rule, or the list is read-only.
    pub fn remove(&self, rule: &Rule) -> bool {
        if self.readonly {
            return false;
        }
        let mut rules = self.rules.write();
        let before = rules.len();
        rules.retain(|old| !old.same_place(rule));
        rules.len() < before
    }
}

impl Blacklists {
    /// False: there are too many, or one of that name.
    pub fn push(&mut self, list: Blacklist) -> bool {
        let fits = self.0.len() < MAX_LISTS && self.find(&list.name).is_none();
        if fits {
            self.0.push(list);
        }
        fits
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|list| list.name == name)
    }

    pub fn get(&self, at: usize) -> Option<&Blacklist> {
        self.0.get(at)
    }

    pub fn all(&self) -> impl Iterator<Item = &Blacklist> {
        self.0.iter()
    }

    /// A destination gave no answer, or said 503 (RFC 3263 §4.3): for four minutes it is left out. Nothing happens where
    /// `disable_dns_blacklist` is on.
    pub fn remember_failed(&self, transport: Transport, addr: SocketAddr, now: Instant) {
        if let Some(list) = self.all().find(|list| list.owner == FAILED) {
            let rule = Rule { until: Some(now.after(FAILED_FOR)), ..Rule::of_address(Some(transport), addr) };
            list.add_within(rule, now, MAX_FAILED);
        }
    }

    /// Whether a list in use blocks it.
    pub fn block(&self, used: InUse, going: &Going<'_>) -> bool {
        let in_use = |(at, list): &(usize, &Blacklist)| {
            let bit = 1u64 << at;
            used.on & bit != 0 || (list.default && used.off & bit == 0)
        };
        self.0.iter().enumerate().filter(in_use).any(|(_, list)| list.blocks(going))
    }
}

/// Splits outside of parentheses and quotes.
fn split(text: &str, by: char) -> Vec<&str> {
    let (mut depth, mut quoted, mut from) = (0i32, false, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            c if c == by && depth == 0 && !quoted => {
                parts.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// `*` and `?`, over the whole text (fnmatch(3)).
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, to: &str, message: &str, blocked: bool) {
        let list = Blacklist::parse(list).unwrap();
        let (transport, addr) = to.split_once(':').unwrap();
        let transport = Transport::parse(transport.as_bytes());
        let going =
            Going { transport, addr: addr.parse().unwrap(), message: message.as_bytes(), now: Instant(5) };
        assert_eq!(list.blocks(&going), blocked, "{} {to}", list.name);
    }

    #[test]
    fn rules_of_the_manual() {
        let gw = "gw:{(tcp, 192.168.4.100, 5060, \"\"), (any, 192.168.4.101, 0, \"\")}";
        check(gw, "tcp:192.168.4.100:5060", "", true);
        check(gw, "udp:192.168.4.100:5060", "", false);
        check(gw, "udp:192.168.4.101:99", "", true);
        check("net:{(any, 192.168.1.120/255.255.255.0, 0, \"\")}", "udp:192.168.1.7:5060", "", true);
        let words = "words:{(any, 192.168.20.0/255.255.255.0, 0, \"MESSAGE*ugly_word\")}";
        check(words, "udp:192.168.20.1:5060", "MESSAGE sip:a@b\r\n\r\nugly_word", true);
        check(words, "udp:192.168.20.1:5060", "INVITE sip:a@b\r\n\r\nugly_word", false);
        let not = "not:{!(any, 194.168.30.0/255.255.255.0, 0, \"\")}";
        check(not, "udp:194.168.30.9:5060", "", false);
        check(not, "udp:10.0.0.1:5060", "", true);
        check("one: 10.0.0.1", "udp:10.0.0.1:5060", "", true);
        check("one/expire: !10.0.0.0/8", "udp:10.0.0.1:5060", "", false);
        for wrong in ["", "a/b", "a:{(any, x, 0)}", "a:{(any, 10.0.0.1, 70000)}"] {
            assert!(Blacklist::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rules_that_end() {
        let list = Blacklist::parse("net_dynamic/expire").unwrap();
        let mut rule = Rule::parse("udp,10.0.0.1,5060").unwrap();
        rule.until = Some(Instant(100));
        assert!(list.add(rule.clone(), Instant(0)) && list.add(rule.clone(), Instant(0)));
        assert_eq!(list.rules(Instant(99)).len(), 1);
        assert_eq!(list.rules(Instant(100)).len(), 0);
        assert!(list.remove(&rule) && !list.remove(&rule));
        assert!(!Blacklist::parse("fixed").unwrap().add(rule, Instant(0)));
    }

    #[test]
    fn destinations_that_failed() {
        let going = |port: u16, transport, now| Going {
            transport: Some(transport),
            addr: SocketAddr::from(([10, 0, 0, 1], port)),
            message: b"",
            now: Instant(now),
        };
        let mut lists = Blacklists::default();
        let dead = going(5060, Transport::Udp, 0).addr;
        lists.remember_failed(Transport::Udp, dead, Instant(0));
        let used = InUse::default();
        assert!(
            !lists.block(used, &going(5060, Transport::Udp, 1)),
            "nothing is remembered without the list"
        );
        assert!(lists.push(Blacklist::parse("own: 10.9.9.9").unwrap()) && lists.push(Blacklist::of_failed()));
        lists.remember_failed(Transport::Udp, dead, Instant(0));
        assert!(lists.block(used, &going(5060, Transport::Udp, FAILED_FOR - 1)));
        assert!(!lists.block(used, &going(5060, Transport::Udp, FAILED_FOR)), "it ends");
        assert!(!lists.block(used, &going(5061, Transport::Udp, 1)), "another port");
        assert!(!lists.block(used, &going(5060, Transport::Tcp, 1)), "another protocol");
        assert!(!lists.block(InUse { on: 0, off: 2 }, &going(5060, Transport::Udp, 1)), "unuse_blacklist");
        // A second failure begins the time anew; many push the oldest out.
        lists.remember_failed(Transport::Udp, dead, Instant(FAILED_FOR - 1));
        assert!(lists.block(used, &going(5060, Transport::Udp, FAILED_FOR)));
        let many = (0..MAX_FAILED).map(|n| 10_000 + n as u16);
        for port in many {
            lists.remember_failed(Transport::Udp, going(port, Transport::Udp, 0).addr, Instant(FAILED_FOR));
        }
        assert!(!lists.block(used, &going(5060, Transport::Udp, FAILED_FOR)));
        assert_eq!(lists.get(1).unwrap().rules(Instant(FAILED_FOR)).len(), MAX_FAILED);
    }
}
