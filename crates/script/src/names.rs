//! Where routes are named: for editors, which go to a route and give it another name.

use crate::ast::{ArgKind, Config, RouteKind, RouteRef};
use crate::diagnostic::{Loc, Sources};
use crate::walk::{Met, body};
use bytes::Bytes;

/// One place where the name of a route stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteName {
    /// Kind of the route.
    pub kind: RouteKind,
    /// Its name.
    pub name: Bytes,
    /// Of the name itself, without brackets and quotes.
    pub loc: Loc,
    /// The route stands here; else it is run or armed here.
    pub is_definition: bool,
}

/// Every place where a route is named, in no order. Names that are put together at run time are not among them.
pub fn route_names(config: &Config, sources: &Sources) -> Vec<RouteName> {
    let mut found = Vec::new();
    let mut add = |kind, name: &Bytes, around: Loc, is_definition| {
        if let Some(loc) = inside(sources, around, name) {
            found.push(RouteName { kind, name: name.clone(), loc, is_definition });
        }
    };
    for route in &config.routes {
        if let Some(name) = &route.name {
            // The head of a route ends where its body begins.
            let around = Loc { end: route.loc.end.max(route.loc.start + 200), ..route.loc };
            add(route.kind, name, around, true);
        }
        body(&route.body, &mut |met| match met {
            Met::Route(RouteRef::Name(name, loc), _) => add(RouteKind::Request, name, *loc, false),
            Met::Call(call, _) => {
                let kind = match &call.name[..] {
                    b"t_on_failure" => RouteKind::Failure,
                    b"t_on_branch" => RouteKind::Branch,
                    b"t_on_reply" => RouteKind::OnReply,
                    _ => return,
                };
                if let Some(arg) = call.args.first()
                    && let ArgKind::Text(name) | ArgKind::Word(name) = &arg.kind
                {
                    add(kind, name, arg.loc, false);
                }
            }
            _ => {}
        });
    }
    found
}

/// The place of a name inside a larger one: as a whole word.
fn inside(sources: &Sources, around: Loc, name: &[u8]) -> Option<Loc> {
    let text = sources.text(around);
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let whole = |at: usize| {
        let before = at == 0 || !is_word(text[at - 1]);
        before && text.get(at + name.len()).is_none_or(|b| !is_word(*b))
    };
    let at = memchr::memmem::find_iter(text, name).find(|at| {
        // The keyword of the route itself is no name: `route[route]`.
        whole(*at) && (*at > 0 || text.get(name.len()).is_none_or(|b| !matches!(b, b'[' | b' ')))
    })?;
    let start = around.start + at as u32;
    Some(Loc { file: around.file, start, end: start + name.len() as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{Options, parse_text};

    #[test]
    fn names_stand_where_they_are_written() {
        let text = "route { route(relay); t_on_failure(\"relay\"); async(f(), relay); }\nroute[relay] { exit; }\nfailure_route[relay] { route(relay, 1); }\nroute[\"route\"] { exit; }\n";
        let mut sources = Sources::default();
        let (config, _) = parse_text("t", text, &mut sources, Options::default());
        let mut shown: Vec<(u32, String)> = route_names(&config, &sources)
            .iter()
            .map(|n| {
                let word = &text[n.loc.start as usize..n.loc.end as usize];
                assert_eq!(word.as_bytes(), &n.name[..]);
                (n.loc.start, format!("{:?} {word} {}", n.kind, n.is_definition))
            })
            .collect();
        shown.sort();
        let shown: Vec<&str> = shown.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            shown,
            [
                "Request relay false",
                "Failure relay false",
                "Request relay false",
                "Request relay true",
                "Failure relay true",
                "Request relay false",
                "Request route true",
            ]
        );
    }
}
