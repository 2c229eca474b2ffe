//! Texts with variables inside: the parameters of functions.

use crate::ast::VarSpec;
use crate::diagnostic::{Diagnostic, Loc};
use crate::variable::{Origin, scan};
use bytes::{Bytes, BytesMut};

/// "text $var text": a function parameter with variables inside.
#[derive(Clone, Debug, PartialEq)]
pub enum FormatPiece {
    /// As it is written.
    Text(Bytes),
    /// A variable, which is read when the text is made.
    Var(VarSpec),
}

/// Splits a text at its variables. `$$` is a dollar. `loc` is the place of the literal with its quotes,
/// as in `Arg::loc`; errors point inside it.
pub fn parse_format(text: &Bytes, loc: Loc) -> Result<Vec<FormatPiece>, Diagnostic> {
    let Some(mut dollar) = memchr::memchr(b'$', text) else {
        return Ok(if text.is_empty() { Vec::new() } else { vec![FormatPiece::Text(text.clone())] });
    };
    let origin = Origin::of_literal(text, loc);
    let (mut pieces, mut from) = (Vec::new(), 0);
    loop {
        let end = if text.get(dollar + 1) == Some(&b'$') {
            // The dollar kept belongs to the text before it.
            push_text(&mut pieces, text.slice(from..dollar + 1));
            dollar + 2
        } else {
            push_text(&mut pieces, text.slice(from..dollar));
            let (var, end) = scan(text, dollar, &origin)?;
            pieces.push(FormatPiece::Var(var));
            end
        };
        from = end;
        match memchr::memchr(b'$', &text[end..]) {
            Some(next) => dollar = end + next,
            None => break,
        }
    }
    push_text(&mut pieces, text.slice(from..));
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<FormatPiece>, text: Bytes) {
    if text.is_empty() {
        return;
    }
    if let Some(FormatPiece::Text(last)) = pieces.last_mut() {
        let mut joined = BytesMut::with_capacity(last.len() + text.len());
        joined.extend_from_slice(last);
        joined.extend_from_slice(&text);
        *last = joined.freeze();
    } else {
        pieces.push(FormatPiece::Text(text));
    }
}

/// Parses a text that is exactly one variable ("$avp(x)"), blanks around it left out.
pub fn parse_variable(text: &Bytes, loc: Loc) -> Result<VarSpec, Diagnostic> {
    let trimmed = text.trim_ascii();
    if trimmed.first() != Some(&b'$') {
        let shown = String::from_utf8_lossy(text);
        return Err(Diagnostic::error(loc, format!("expected a variable, found `{shown}`"))
            .hint("a variable starts with `$`"));
    }
    let origin = Origin::of_literal(text, loc);
    let start = memchr::memchr(b'$', text).unwrap_or(0);
    let (var, end) = scan(text, start, &origin)?;
    if !text[end..].trim_ascii().is_empty() {
        return Err(Diagnostic::error(origin.loc(end..text.len()), "expected nothing after the variable"));
    }
    Ok(var)
}

/// Reads the variable at the beginning of `text`: it and how many bytes it takes. What follows does not
/// matter. `loc` is the place that errors name.
pub fn parse_leading_variable(text: &Bytes, loc: Loc) -> Result<(VarSpec, usize), Diagnostic> {
    scan(text, 0, &Origin::Whole(loc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        match parse_format(&Bytes::copy_from_slice(text.as_bytes()), Loc::default()) {
            Err(d) => format!("error: {}", d.message),
            Ok(pieces) => pieces
                .iter()
                .map(|p| match p {
                    FormatPiece::Text(t) => format!("[{}]", String::from_utf8_lossy(t)),
                    FormatPiece::Var(v) => show(v),
                })
                .collect(),
        }
    }

    fn show(v: &VarSpec) -> String {
        let s = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let mut out = format!("<{}", v.context.as_ref().map_or(String::new(), |c| format!("{}:", s(c))));
        out += &s(&v.name);
        if let Some(i) = &v.inner {
            out += &format!("({})", s(i));
        }
        match &v.index {
            None => {}
            Some(crate::ast::IndexSpec::Var(i)) => out += &format!("[{}]", show(i)),
            Some(i) => out += &format!("[{i:?}]"),
        }
        for t in &v.transformations {
            out += &format!(
                "{{{}|{}|{}}}",
                s(&t.class),
                s(&t.name),
                t.params.iter().map(s).collect::<Vec<_>>().join("~")
            );
        }
        out + ">"
    }

    #[test]
    fn formats_split_at_variables() {
        let check = |text: &str, want: &str| assert_eq!(shape(text), want, "{text}");
        check("", "");
        check("plain", "[plain]");
        check("a $rU b", "[a ]<rU>[ b]");
        check("$$ru $$", "[$ru $]");
        check("$ru$rm", "<ru><rm>");
        check("$rU@$rd", "<rU>[@]<rd>");
        check("$rU-y", "<rU>[-y]");
        check("$rm.", "<rm.>");
        check("$(rm)x", "<rm>[x]");
        check("$hdr(X-A_b)", "<hdr(X-A_b)>");
        check("$avp(a.b-c_d)", "<avp(a.b-c_d)>");
        check("$avp($var(x))", "<avp($var(x))>");
        check("$(hdr(Via)[0]{via.transport}{s.tolower})", "<hdr(Via)[Int(0)]{via|transport|}{s|tolower|}>");
        check("$(avp(x)[*])", "<avp(x)[All]>");
        check("$(avp(x)[append])", "<avp(x)[Append]>");
        check("$(msg.branch.uri[$var(i)])", "<msg.branch.uri[<var(i)>]>");
        check("$(<reply>hdr(Contact))", "<reply:hdr(Contact)>");
        check("$(var(x){s.select,1,,})", "<var(x){s|select|1~,}>");
        check("$(var(x){s.select,1, })", "<var(x){s|select|1~ }>");
        check("$(var(x){s.encode.hexa}{s.len})", "<var(x){s|encode.hexa|}{s|len|}>");
        check("$(var(x){s.substr,$(var(y){s.int}),0})", "<var(x){s|substr|$(var(y){s.int})~0}>");
        check("$(var(x){re.subst,/,/;/g})", "<var(x){re|subst|/,/;/g}>");
        check("$(var(x){re.subst,/[0-9]{3}/x/}{s.len})", "<var(x){re|subst|/[0-9]{3}/x/}{s|len|}>");
        check("$(var(x){re.subst,$var(re)})", "<var(x){re|subst|$var(re)}>");
        check("$(rb{sdp.stream-delete,0})", "<rb{sdp|stream-delete|0}>");
        check("$time(%Y-%m)", "<time(%Y-%m)>");
        check("($rU) [$rU] {$rU} $rU,", "[(]<rU>[) []<rU>[] {]<rU>[} ]<rU>[,]");
    }

    #[test]
    fn bad_variables_are_refused() {
        for text in [
            "a$",
            "$ x",
            "$()",
            "$(ru",
            "$(avp(x)[1)",
            "$(hdr(From)[])",
            "$(rm{s.len)",
            "$(var(x){s})",
            "$(var(x){})",
            "$avp(x",
            "$(<reply ru)",
            "$(var(x){re.subst,/a})",
        ] {
            assert!(shape(text).starts_with("error"), "{text}: {}", shape(text));
        }
    }

    #[test]
    fn errors_point_inside_the_literal() {
        // xlog("a\n$(ru"): the literal is at 5..15 with its quotes; `\n` takes two bytes there.
        let text = Bytes::from_static(b"a\n$(ru");
        let bad = parse_format(&text, Loc { file: 0, start: 5, end: 14 }).unwrap_err();
        assert_eq!((bad.loc.start, bad.loc.end), (9, 11));
    }
}
