//! The graph as a picture that needs no other program: routes in columns, left to right.

use super::{EdgeKind, RouteGraph, RouteNode, wait_text};
use std::fmt::Write as _;

/// Sizes in pixels; a character of the monospace font is `CHAR` wide.
const CHAR: f32 = 7.3;
const LINE: f32 = 16.0;
const PAD: f32 = 8.0;
const GAP_X: f32 = 70.0;
const GAP_Y: f32 = 18.0;
const MARGIN: f32 = 20.0;

const STYLE: &str = "text{font:12px monospace;fill:#222}.w{fill:#8a5a00}.t{font-weight:bold}\
rect{fill:#fff;stroke:#555}.waits{fill:#fff3d6}.unused{stroke-dasharray:4 3;stroke:#aaa}\
path{fill:none;stroke:#555}.later{stroke-dasharray:5 4}";

struct Placed {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

impl RouteGraph {
    /// A picture for a browser. Boxes with a waiting call are tinted, routes that nothing runs dashed,
    /// as are arrows to what runs later.
    pub fn to_svg(&self) -> String {
        let placed = self.place();
        let right = placed.iter().map(|p| p.x + p.width).fold(0.0, f32::max) + MARGIN;
        let bottom = placed.iter().map(|p| p.y + p.height).fold(0.0, f32::max) + MARGIN;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{right:.0}\" height=\"{bottom:.0}\" viewBox=\"0 0 {right:.0} {bottom:.0}\">\n\
             <style>{STYLE}</style>\n<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
             orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" style=\"fill:#555;stroke:none\"/></marker></defs>\n"
        );
        for edge in &self.edges {
            let class = if edge.kind == EdgeKind::Call { "now" } else { "later" };
            let path = arrow(&placed[edge.from], &placed[edge.to]);
            let _ = writeln!(
                out,
                "<path class=\"{class}\" d=\"{path}\" marker-end=\"url(#a)\"><title>{} {} {}</title></path>",
                escaped(&self.nodes[edge.from].title),
                edge.kind.label(),
                escaped(&self.nodes[edge.to].title)
            );
        }
        for (node, at) in self.nodes.iter().zip(&placed) {
            draw(node, at, &mut out);
        }
        out.push_str("</svg>\n");
        out
    }

    /// A column for each step away from a root, boxes below each other in the order of the text.
    fn place(&self) -> Vec<Placed> {
        let columns = self.columns();
        let size = |n: &RouteNode| {
            let longest = n.waits.iter().map(|w| wait_text(w).chars().count()).max().unwrap_or(0);
            let chars = longest.max(n.title.chars().count()) as f32;
            (chars * CHAR + 2.0 * PAD, LINE * (1 + n.waits.len()) as f32 + PAD)
        };
        let last = columns.iter().copied().max().unwrap_or(0);
        let mut left = vec![MARGIN; last + 2];
        for column in 0..=last {
            let widths =
                self.nodes.iter().zip(&columns).filter(|(_, c)| **c == column).map(|(n, _)| size(n).0);
            left[column + 1] = left[column] + widths.fold(0.0, f32::max) + GAP_X;
        }
        let mut bottom = vec![MARGIN; last + 1];
        self.nodes
            .iter()
            .zip(&columns)
            .map(|(node, &column)| {
                let (width, height) = size(node);
                let y = bottom[column];
                bottom[column] += height + GAP_Y;
                Placed { x: left[column], y, width, height }
            })
            .collect()
    }

    fn columns(&self) -> Vec<usize> {
        let mut columns = vec![usize::MAX; self.nodes.len()];
        let mut row: Vec<usize> = self.roots();
        let mut column = 0;
        while !row.is_empty() {
            row.retain(|&i| columns[i] == usize::MAX);
            row.iter().for_each(|&i| columns[i] = column);
            row = row
                .iter()
                .flat_map(|&i| self.edges.iter().filter(move |e| e.from == i).map(|e| e.to))
                .collect();
            column += 1;
        }
        columns.iter_mut().filter(|c| **c == usize::MAX).for_each(|c| *c = 0);
        columns
    }
}

fn draw(node: &RouteNode, at: &Placed, out: &mut String) {
    let class = match (node.reached, node.waits.is_empty()) {
        (false, _) => " class=\"unused\"",
        (true, false) => " class=\"waits\"",
        (true, true) => "",
    };
    let Placed { x, y, width, height } = at;
    let _ = writeln!(
        out,
        "<rect{class} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"4\"/>"
    );
    let (tx, ty) = (x + PAD, y + LINE);
    let _ = writeln!(out, "<text class=\"t\" x=\"{tx:.1}\" y=\"{ty:.1}\">{}</text>", escaped(&node.title));
    for (i, wait) in node.waits.iter().enumerate() {
        let y = ty + LINE * (i + 1) as f32;
        let _ = writeln!(
            out,
            "<text class=\"w\" x=\"{tx:.1}\" y=\"{y:.1}\">{}</text>",
            escaped(&wait_text(wait))
        );
    }
}

/// From the right side of one box to the left side of another; around the outside when that lies behind.
fn arrow(from: &Placed, to: &Placed) -> String {
    let (x1, y1) = (from.x + from.width, from.y + from.height / 2.0);
    if to.x > x1 {
        let (x2, y2) = (to.x, to.y + to.height / 2.0);
        let bend = (x2 - x1) / 2.0;
        return format!("M{x1:.1} {y1:.1}C{:.1} {y1:.1} {:.1} {y2:.1} {x2:.1} {y2:.1}", x1 + bend, x2 - bend);
    }
    let (x2, y2) = (to.x + to.width, to.y + to.height / 2.0 + 4.0);
    let out = x1.max(x2) + GAP_X / 2.0;
    format!("M{x1:.1} {y1:.1}C{out:.1} {y1:.1} {out:.1} {y2:.1} {x2:.1} {y2:.1}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
