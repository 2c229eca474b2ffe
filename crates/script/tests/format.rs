//! The formatter: examples, and scripts made from seeds with blanks and comments in every place.

use script::{Options, Sources, format_source, parse_text};

/// The tree without its places.
fn tree(text: &str) -> String {
    let (config, problems) = parse_text("t.cfg", text, &mut Sources::default(), Options::default());
    assert!(problems.iter().all(|p| !p.is_error()), "{problems:?}\n{text}");
    let shown = format!("{config:?}");
    let mut out = String::new();
    let mut rest = &shown[..];
    while let Some(i) = rest.find("Loc {") {
        out.push_str(&rest[..i]);
        rest = &rest[i + rest[i..].find('}').unwrap_or(0) + 1..];
    }
    out + rest
}

fn check(text: &str) -> String {
    let once = format_source(text, "t.cfg").unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    let twice = format_source(&once, "t.cfg").unwrap_or_else(|e| panic!("{e:?}\n{once}"));
    if let Some((a, b)) = once.lines().zip(twice.lines()).find(|(a, b)| a != b) {
        panic!("formatting twice differs: {a:?} became {b:?}; source:\n{text}\n----\n{once}");
    }
    assert_eq!(once.len(), twice.len(), "formatting twice differs; source:\n{text}");
    assert_eq!(tree(text), tree(&once), "the meaning changed:\n{text}\n----\n{once}");
    once
}

#[test]
fn layout() {
    let source = "\u{feff}#!x\r\nloadmodule   \"tm.so\"  # c1\nmodparam(\"a|b\",\"c\",-5)\nlisten=udp:1.2.3.4:5060   # here\n\n\n\nfork=yes\nroute[ x ]{ # head
  switch($rU){ # sw
   # before case
   case \"a\": case -1: # cc
      # in body
      foo();break;

      # last
   default: exit; }
   if(  ! (is_method ( \"INVITE\") and not has_totag( )) || [ $var(x)&4 ] || $var(yyyyyyyyyyyyyyyyyyyyyyyy)==-1 ) foo(\"a\", # inner
     \"b\"); # second
   # after
   else if ($var(x)==[::1]) { } else
   # else comment
   bar(,'x',,);
   $var(x)=0-(5+ -3)*~2;  $(avp(x)[0]):=NULL;
   for($var(x) in $(avp(y)[*])) { x(); };
   while([1])break; force_send_socket(udp:1.2.3.4:5060);
   include_file \"x.cfg\"

   xlog(\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\", \"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\", \"ccccccccccccccccccc\", 5);
   bare(); # bare
   /* block
      comment */ last();
} # end
# tail
onreply_route{}
timer_route[t,90]{drop();}";
    let want = "#!x
loadmodule \"tm.so\"  # c1
modparam(\"a|b\", \"c\", -5)
listen = udp:1.2.3.4:5060  # here

fork = yes

route[x] {  # head
    switch ($rU) {  # sw
        # before case
        case \"a\":
        case -1:  # cc
            # in body
            foo();
            break;

        # last
        default:
            exit;
    }
    if (!(is_method(\"INVITE\") && !has_totag())
        || [ $var(x) & 4 ]
        || $var(yyyyyyyyyyyyyyyyyyyyyyyy) == -1) {
        foo(\"a\", \"b\");
    } else if ($var(x) == [::1]) {  # inner
        # second
        # after
    } else {
        # else comment
        bar(, 'x', ,);
    }
    $var(x) = 0 - (5 + -3) * ~2;
    $(avp(x)[0]) := NULL;
    for ($var(x) in $(avp(y)[*])) {
        x();
    }
    while ([ 1 ]) {
        break;
    }
    force_send_socket(udp:1.2.3.4:5060);
    include_file \"x.cfg\"

    xlog(\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",
        \"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\", \"ccccccccccccccccccc\", 5);
    bare();  # bare
    /* block
      comment */
    last();
}  # end

# tail
onreply_route {
}

timer_route[t, 90] {
    drop();
}
";
    let got = format_source(source, "t.cfg").expect("formatted");
    assert_eq!(got, want);
    assert_eq!(format_source(&got, "t.cfg").expect("formatted"), want);
}

#[test]
fn a_file_of_statements_is_formatted_too() {
    assert_eq!(
        format_source("xlog(\"a\");;if(1)exit;\n", "part.cfg").expect("formatted"),
        "xlog(\"a\");\nif (1) {\n    exit;\n}\n"
    );
}

#[test]
fn a_wrong_text_is_not_touched() {
    let problems = format_source("route { foo bar; }", "t.cfg").expect_err("refused");
    assert_eq!(problems[0].message, "`foo` is not a statement");
}

// ---- scripts from seeds

struct Maker {
    state: u64,
    out: String,
}

impl Maker {
    fn pick(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) as usize % n
    }

    fn blank(&mut self) {
        let choice = self.pick(14);
        let n = self.state % 1000;
        match choice {
            0..=7 => self.out.push(' '),
            8 => self.out.push_str("\n\t"),
            9 => self.out.push_str("\n\n\n"),
            10 => self.out.push_str(&format!(" # c{n}\n")),
            11 => self.out.push_str(&format!("\n  # own {n}\n")),
            12 => self.out.push_str(&format!(" /* b{n} */ ")),
            _ => self.out.push_str(&format!("\r\n/* two\n   lines {n} */")),
        }
    }

    fn say(&mut self, words: &[&str]) {
        for word in words {
            self.out.push_str(word);
            self.blank();
        }
    }

    fn value(&mut self, depth: usize) {
        match self.pick(if depth == 0 { 5 } else { 8 }) {
            0 => self.say(&["5"]),
            1 => self.say(&["\"a  b # no\\\" comment\""]),
            2 => self.say(&["$(hdr(Via)[0]{via.host})"]),
            3 => self.say(&["-", "0x1F"]),
            4 => self.say(&["$var(x)"]),
            5 => {
                self.say(&["("]);
                self.value(depth - 1);
                self.say(&[")"]);
            }
            6 => {
                self.say(&["~"]);
                self.value(depth - 1);
            }
            _ => {
                self.value(depth - 1);
                let op = ["+", "-", "*", "&", "<<"][self.pick(5)];
                self.say(&[op]);
                self.value(0);
            }
        }
    }

    fn test(&mut self, depth: usize) {
        match self.pick(if depth == 0 { 5 } else { 8 }) {
            0 => self.say(&["$rU", "=~", "'^\\+[0-9]'"]),
            1 => self.say(&["is_method", "(", "\"INVITE|BYE\"", ")"]),
            2 => {
                self.say(&["["]);
                self.value(1);
                self.say(&["]"]);
            }
            3 => self.say(&["src_ip", "==", "10.0.0.0/8"]),
            4 => self.say(&["$var(long_name_to_make_lines_long)", "!=", "\"some text to make it longer\""]),
            5 => {
                let not = ["!", "not"][self.pick(2)];
                self.say(&[not]);
                self.test(depth - 1);
            }
            6 => {
                self.say(&["("]);
                self.test(depth - 1);
                self.say(&[")"]);
            }
            _ => {
                self.test(depth - 1);
                let op = ["&&", "||", "and", "or"][self.pick(4)];
                self.say(&[op]);
                self.test(depth - 1);
            }
        }
    }

    fn branch(&mut self, depth: usize) {
        if self.pick(3) == 0 {
            self.statement(depth);
        } else {
            self.say(&["{"]);
            self.body(depth);
            self.say(&["}"]);
        }
    }

    fn body(&mut self, depth: usize) {
        for _ in 0..self.pick(4) {
            self.statement(depth);
        }
    }

    fn statement(&mut self, depth: usize) {
        match self.pick(if depth == 0 { 6 } else { 11 }) {
            0 => self.say(&["xlog", "(", "\"x\"", ",", ",", "5", ")", ";"]),
            1 => {
                self.say(&["$avp(y)", ":="]);
                self.value(2);
                self.say(&[";"]);
            }
            2 => self.say(&["return", "(", "-", "1", ")", ";", ";"]),
            3 => self.say(&["route", "(", "other", ",", "$tU", ",", "\"x\"", ")", ";"]),
            4 => self.say(&["async", "(", "sleep", "(", "1", ")", ",", "other", ")", ";"]),
            5 => self.say(&["drop", ";"]),
            6 | 7 => {
                self.say(&["if", "("]);
                self.test(2);
                self.say(&[")"]);
                // Braces, so that an `else` belongs where it is put.
                self.say(&["{"]);
                self.body(depth - 1);
                self.say(&["}"]);
                if self.pick(2) == 0 {
                    self.say(&["else"]);
                    self.branch(depth - 1);
                }
            }
            8 => {
                self.say(&["while", "("]);
                self.test(1);
                self.say(&[")"]);
                self.branch(depth - 1);
            }
            9 => {
                self.say(&["switch", "(", "$rU", ")", "{", "case", "-", "1", ":", "case", "\"a\"", ":"]);
                self.body(depth - 1);
                self.say(&["break", ";", "default", ":"]);
                self.body(depth - 1);
                self.say(&["}"]);
            }
            _ => {
                self.say(&["for", "(", "$var(i)", "in", "$(avp(l)[*])", ")"]);
                self.branch(depth - 1);
            }
        }
    }
}

#[test]
fn any_script_keeps_its_meaning_and_its_comments() {
    for seed in 1..400u64 {
        let mut maker = Maker { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, out: String::new() };
        for name in ["", "[\"a b\"]", "[other]"] {
            maker.say(&["route"]);
            maker.say(&[name, "{"]);
            maker.body(4);
            maker.say(&["}"]);
        }
        let text = std::mem::take(&mut maker.out);
        let formatted = check(&text);
        for mark in ["# c", "# own", "/* b", "/* two"] {
            assert_eq!(
                text.matches(mark).count(),
                formatted.matches(mark).count(),
                "{mark} lost:\n{text}\n----\n{formatted}"
            );
        }
    }
}
