//! What a configuration does, as a picture: its routes, who runs whom, and where a call may wait.

use crate::ast::{Arg, ArgKind, Call, Config, Route, RouteKind, RouteRef, VarSpec};
use crate::diagnostic::{Loc, Sources};
use crate::format::{FormatPiece, parse_format};
use crate::host::Waits;
use crate::walk::{Met, Target, body};
use ahash::AHashSet;
use bytes::Bytes;
use std::fmt::Write as _;

/// Routes and how they reach each other.
#[derive(Clone, Debug)]
pub struct RouteGraph {
    /// In the order of the text.
    pub nodes: Vec<RouteNode>,
    /// Who leads to whom.
    pub edges: Vec<RouteEdge>,
}

/// One route.
#[derive(Clone, Debug)]
pub struct RouteNode {
    /// What runs it.
    pub kind: RouteKind,
    /// As it is written: `route[relay]`.
    pub title: String,
    /// Where it is written.
    pub loc: Loc,
    /// Functions of its own body that may wait, in the order of the text.
    pub waits: Vec<Waiting>,
    /// Something reaches it: a message, a timer, an event, or another route that is reached.
    pub reached: bool,
}

/// A call that may suspend the script.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its name.
    pub function: Bytes,
    /// How it waits.
    pub how: Waits,
    /// Where the call stands.
    pub loc: Loc,
}

/// One route leads to another.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteEdge {
    /// Indices in `RouteGraph::nodes`.
    pub from: usize,
    /// The same.
    pub to: usize,
    /// How it comes there.
    pub kind: EdgeKind,
    /// Where it is written.
    pub loc: Loc,
}

/// How one route leads to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EdgeKind {
    /// `route(x)`
    Call,
    /// `async(f(), x)`: the script ends here and goes on there.
    Resume,
    /// `launch(f(), x)`: runs beside.
    Report,
    /// `t_on_failure("x")` and its like: runs later, when it comes to that.
    Armed,
}

impl EdgeKind {
    fn label(self) -> &'static str {
        match self {
            EdgeKind::Call => "calls",
            EdgeKind::Resume => "resumes in",
            EdgeKind::Report => "reports to",
            EdgeKind::Armed => "arms",
        }
    }
}

fn title(route: &Route) -> String {
    let kind = match route.kind {
        RouteKind::Request => "route",
        RouteKind::OnReply => "onreply_route",
        RouteKind::Failure => "failure_route",
        RouteKind::Branch => "branch_route",
        RouteKind::Local => "local_route",
        RouteKind::Error => "error_route",
        RouteKind::Startup => "startup_route",
        RouteKind::Timer => "timer_route",
        RouteKind::Event => "event_route",
    };
    match (&route.name, route.interval) {
        (None, _) => kind.to_string(),
        (Some(name), None) => format!("{kind}[{}]", String::from_utf8_lossy(name)),
        (Some(name), Some(n)) => format!("{kind}[{}, {n}]", String::from_utf8_lossy(name)),
    }
}

/// The route that a function arms, when it does that.
fn armed(call: &Call) -> Option<(RouteKind, &Bytes)> {
    let kind = match &call.name[..] {
        b"t_on_failure" => RouteKind::Failure,
        b"t_on_branch" => RouteKind::Branch,
        b"t_on_reply" => RouteKind::OnReply,
        _ => return None,
    };
    match &call.args.first()?.kind {
        ArgKind::Text(name) | ArgKind::Word(name) => Some((kind, name)),
        _ => None,
    }
}

/// What of a variable may wait: `$name` or `{class.name}`, as `can_wait` is asked.
fn waiting_part(var: &VarSpec, can_wait: &dyn Fn(&[u8]) -> bool) -> Option<Bytes> {
    let name = Bytes::from([b"$", &var.name[..]].concat());
    if can_wait(&name) {
        return Some(name);
    }
    let trans =
        var.transformations.iter().map(|t| Bytes::from([b"{", &t.class[..], b".", &t.name, b"}"].concat()));
    let mut trans = trans.map(|t| Bytes::from(t.to_ascii_lowercase()));
    trans.find(|t| can_wait(t))
}

/// The graph of a configuration. `can_wait` says of a function's name, of `$variable` and of `{transformation}`
/// whether it may suspend.
pub fn explain(config: &Config, can_wait: &dyn Fn(&[u8]) -> bool) -> RouteGraph {
    let find = |kind: RouteKind, name: &[u8]| {
        config.routes.iter().position(|r| r.kind == kind && r.name.as_deref() == Some(name))
    };
    let mut nodes = Vec::with_capacity(config.routes.len());
    let mut edges: Vec<RouteEdge> = Vec::new();
    for (from, route) in config.routes.iter().enumerate() {
        let mut waits = Vec::new();
        let mut add = |to: Option<usize>, kind: EdgeKind, loc: Loc| {
            let Some(to) = to else { return };
            if !edges.iter().any(|e| e.from == from && e.to == to && e.kind == kind) {
                edges.push(RouteEdge { from, to, kind, loc });
            }
        };
        let variable = |var: &VarSpec, waits: &mut Vec<Waiting>| {
            if let Some(function) = waiting_part(var, can_wait) {
                waits.push(Waiting { function, how: Waits::Plain, loc: var.loc });
            }
        };
        body(&route.body, &mut |met| match met {
            Met::Read(var) => variable(var, &mut waits),
            Met::Arg(Arg { kind: ArgKind::Text(text), loc }) => {
                for piece in parse_format(text, *loc).unwrap_or_default() {
                    if let FormatPiece::Var(var) = piece {
                        variable(&var, &mut waits);
                    }
                }
            }
            Met::Call(call, how) => {
                if how != Waits::Plain || can_wait(&call.name) {
                    waits.push(Waiting { function: call.name.clone(), how, loc: call.loc });
                }
                if let Some((kind, name)) = armed(call) {
                    add(find(kind, name), EdgeKind::Armed, call.loc);
                }
            }
            Met::Route(RouteRef::Name(name, loc), target) => {
                let kind = match target {
                    Target::Call => EdgeKind::Call,
                    Target::Resume => EdgeKind::Resume,
                    Target::Report => EdgeKind::Report,
                };
                add(find(RouteKind::Request, name), kind, *loc);
            }
            _ => {}
        });
        nodes.push(RouteNode {
            kind: route.kind,
            title: title(route),
            loc: route.loc,
            waits,
            reached: false,
        });
    }
    let mut graph = RouteGraph { nodes, edges };
    graph.mark_reached(config);
    graph
}

impl RouteGraph {
    /// Routes that something outside of the script starts: main routes, timers, events.
    fn mark_reached(&mut self, config: &Config) {
        let entry = |r: &Route| match r.kind {
            RouteKind::Request | RouteKind::OnReply | RouteKind::Failure | RouteKind::Branch => {
                r.name.is_none()
            }
            _ => true,
        };
        let mut open: Vec<usize> = (0..self.nodes.len()).filter(|&i| entry(&config.routes[i])).collect();
        while let Some(i) = open.pop() {
            if !std::mem::replace(&mut self.nodes[i].reached, true) {
                open.extend(self.edges.iter().filter(|e| e.from == i).map(|e| e.to));
            }
        }
    }

    /// Routes to start from: those that nothing else runs, then what is left over in circles.
    fn roots(&self) -> Vec<usize> {
        let mut roots: Vec<usize> =
            (0..self.nodes.len()).filter(|&i| !self.edges.iter().any(|e| e.to == i && e.from != i)).collect();
        let mut seen: AHashSet<usize> = AHashSet::new();
        roots.iter().for_each(|&r| self.collect(r, &mut seen));
        for i in 0..self.nodes.len() {
            if !seen.contains(&i) {
                roots.push(i);
                self.collect(i, &mut seen);
            }
        }
        roots
    }

    fn collect(&self, from: usize, seen: &mut AHashSet<usize>) {
        let mut open = vec![from];
        while let Some(i) = open.pop() {
            if seen.insert(i) {
                open.extend(self.edges.iter().filter(|e| e.from == i).map(|e| e.to));
            }
        }
    }

    /// For a terminal: a tree from each route that the outside starts. A route shown before is only
    /// named again.
    pub fn to_text(&self, sources: &Sources) -> String {
        let mut out = String::new();
        let mut shown = AHashSet::new();
        for root in self.roots() {
            let node = &self.nodes[root];
            let unused = if node.reached { "" } else { "  (nothing runs it)" };
            let _ = writeln!(out, "{}  {}{unused}", node.title, place(sources, node.loc));
            shown.insert(root);
            self.branches(root, "", sources, &mut shown, &mut out);
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        if !out.is_empty() {
            out.push('\n');
        }
        out
    }

    /// What hangs below a node: waits and edges in the order of the text.
    fn branches(
        &self,
        node: usize,
        indent: &str,
        sources: &Sources,
        shown: &mut AHashSet<usize>,
        out: &mut String,
    ) {
        enum Item<'a> {
            Wait(&'a Waiting),
            Edge(&'a RouteEdge),
        }
        let mut items: Vec<((u16, u32), Item)> = Vec::new();
        items.extend(self.nodes[node].waits.iter().map(|w| ((w.loc.file, w.loc.start), Item::Wait(w))));
        items.extend(
            self.edges.iter().filter(|e| e.from == node).map(|e| ((e.loc.file, e.loc.start), Item::Edge(e))),
        );
        items.sort_by_key(|(at, _)| *at);
        let count = items.len();
        for (i, (_, item)) in items.into_iter().enumerate() {
            let (branch, below) = if i + 1 == count { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            match item {
                Item::Wait(w) => {
                    let line = sources.line_col(w.loc).0;
                    let _ = writeln!(out, "{indent}{branch}{}  :{line}", wait_text(w));
                }
                Item::Edge(e) => {
                    let target = &self.nodes[e.to];
                    let again = !shown.insert(e.to);
                    let above = if again && self.has_branches(e.to) { "  (see above)" } else { "" };
                    let line = sources.line_col(e.loc).0;
                    let _ =
                        writeln!(out, "{indent}{branch}{} {}  :{line}{above}", e.kind.label(), target.title);
                    if !again {
                        self.branches(e.to, &format!("{indent}{below}"), sources, shown, out);
                    }
                }
            }
        }
    }

    fn has_branches(&self, node: usize) -> bool {
        !self.nodes[node].waits.is_empty() || self.edges.iter().any(|e| e.from == node)
    }

    /// For Graphviz.
    pub fn to_dot(&self) -> String {
        let mut out = String::from(
            "digraph routes {\n  rankdir=LR;\n  node [shape=box, fontname=\"monospace\", fontsize=11];\n  edge [fontsize=9];\n",
        );
        for (i, node) in self.nodes.iter().enumerate() {
            let mut label = quoted(&node.title);
            for wait in &node.waits {
                let _ = write!(label, "\\n{}", quoted(&wait_text(wait)));
            }
            let look = match (node.reached, node.waits.is_empty()) {
                (false, _) => ", style=dashed",
                (true, false) => ", style=filled, fillcolor=\"#fff3d6\"",
                (true, true) => "",
            };
            let _ = writeln!(out, "  n{i} [label=\"{label}\"{look}];");
        }
        for edge in &self.edges {
            let look = match edge.kind {
                EdgeKind::Call => String::new(),
                kind => format!(" [label=\"{}\", style=dashed]", kind.label()),
            };
            let _ = writeln!(out, "  n{} -> n{}{look};", edge.from, edge.to);
        }
        out.push_str("}\n");
        out
    }
}

fn wait_text(w: &Waiting) -> String {
    let name = String::from_utf8_lossy(&w.function);
    match w.how {
        // A variable or transformation.
        Waits::Plain if name.starts_with(['$', '{']) => format!("may wait for {name}"),
        Waits::Plain => format!("waits for {name}()"),
        Waits::Async => format!("waits for async {name}()"),
        Waits::Launch => format!("launches {name}()"),
    }
}

fn place(sources: &Sources, loc: Loc) -> String {
    format!("{}:{}", sources.name(loc), sources.line_col(loc).0)
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

mod svg;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{Options, parse_text};

    const SCRIPT: &str = r#"
route {
    if (!has_totag()) { sql_query("select 1"); }
    t_on_failure("missed");
    route(relay);
    async(rest_get("http://x", $var(b)), resume);
}
route[resume] { launch(exec("x"), note); route(relay); }
route[note] { xlog("done\n"); }
route[relay] { t_relay(); }
route[old] { route(old); }
failure_route[missed] { route(relay); }
timer_route[tick, 60] { exec("y"); }
"#;

    fn graph() -> (RouteGraph, Sources) {
        let mut sources = Sources::default();
        let (config, problems) = parse_text("a.cfg", SCRIPT, &mut sources, Options::default());
        assert!(problems.is_empty(), "{problems:?}");
        (explain(&config, &|name| matches!(name, b"sql_query" | b"t_relay" | b"exec")), sources)
    }

    #[test]
    fn variables_that_wait() {
        let mut sources = Sources::default();
        let text = "route { if ($(rd{ip.resolve}) == \"x\") xlog(\"$late(a) $ru\"); }";
        let (config, _) = parse_text("a.cfg", text, &mut sources, Options::default());
        let graph = explain(&config, &|name| matches!(name, b"{ip.resolve}" | b"$late"));
        assert_eq!(
            graph.to_text(&sources),
            "route  a.cfg:1\n├─ may wait for {ip.resolve}  :1\n└─ may wait for $late  :1\n"
        );
    }

    #[test]
    fn as_text() {
        let (graph, sources) = graph();
        let want = "\
route  a.cfg:2
├─ waits for sql_query()  :3
├─ arms failure_route[missed]  :4
│  └─ calls route[relay]  :12
│     └─ waits for t_relay()  :10
├─ calls route[relay]  :5  (see above)
├─ waits for async rest_get()  :6
└─ resumes in route[resume]  :6
   ├─ launches exec()  :8
   ├─ reports to route[note]  :8
   └─ calls route[relay]  :8  (see above)

route[old]  a.cfg:11  (nothing runs it)
└─ calls route[old]  :11  (see above)

timer_route[tick, 60]  a.cfg:13
└─ waits for exec()  :13
";
        assert_eq!(graph.to_text(&sources), want);
    }

    #[test]
    fn as_dot_and_svg() {
        let (graph, _) = graph();
        let dot = graph.to_dot();
        assert!(dot.contains("n0 -> n5 [label=\"arms\", style=dashed];"), "{dot}");
        assert!(dot.contains("n4 [label=\"route[old]\", style=dashed];"), "{dot}");
        let svg = graph.to_svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect").count(), graph.nodes.len());
        assert_eq!(svg.matches("<path class=").count(), graph.edges.len());
    }
}
