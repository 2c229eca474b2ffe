//! Reads arbitrary bytes as a configuration; what is right must format to the same, twice.

use script::{Options, Sources, explain, format_source, lint, parse_text};

pub fn check(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let mut sources = Sources::default();
    let (config, problems) = parse_text("fuzz.cfg", text, &mut sources, Options::default());
    problems.iter().for_each(|p| drop(sources.render(p)));
    lint(&config, &|name| name == b"exec").iter().for_each(|p| drop(sources.render(p)));
    let graph = explain(&config, &|_| true);
    let _ = (graph.to_text(&sources), graph.to_dot(), graph.to_svg());
    if let Ok(once) = format_source(text, "fuzz.cfg") {
        let twice = format_source(&once, "fuzz.cfg").expect("formatted text is right");
        assert_eq!(once, twice);
    }
}
