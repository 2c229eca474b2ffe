use super::*;

fn written(lines: &[&str], writing: Writing) -> Result<Sets, String> {
    let mut sets = Sets::default();
    lines.iter().try_for_each(|line| sets.add_line(line, DEFAULT_SET, writing))?;
    Ok(sets)
}

fn sets(lines: &[&str]) -> Result<Sets, String> {
    written(lines, Writing::Rtpengine)
}

#[test]
fn addresses_of_engines() {
    let udp = |host: &str, port, family| Address::Udp { host: host.into(), port, family };
    for (text, want) in [
        ("udp:localhost:12221", udp("localhost", 12221, Family::V4)),
        ("UDP:10.0.0.1", udp("10.0.0.1", 22222, Family::V4)),
        ("udp:[::1]:5", udp("::1", 5, Family::V6)),
        ("udp6:[2001:db8::1]", udp("2001:db8::1", 22222, Family::V6)),
        ("udp6:2001:db8::1", udp("2001:db8::1", 22222, Family::V6)),
        ("udp6:engine:7", udp("engine", 7, Family::V6)),
        ("tcp:engine:7", Address::Tcp { host: "engine".into(), port: 7, family: Family::Any }),
        ("unix:/run/rtp.sock", Address::Unix("/run/rtp.sock".into())),
        ("/run/rtp.sock", Address::Unix("/run/rtp.sock".into())),
        ("10.0.0.1:5", Address::Unix("10.0.0.1:5".into())),
    ] {
        assert_eq!(address(text).as_ref(), Ok(&want), "{text}");
    }
    let Ok(Address::Ws { port, resource, .. }) = address("ws://e:8/x") else { panic!() };
    assert_eq!((port, &*resource), (8, "/x"));
    for text in ["udp:", "udp:h:x", "udp:[::1", "udp:h:70000", "unix:"] {
        assert!(address(text).is_err(), "{text}");
    }
}

#[test]
fn lines_of_sets() {
    let sets = sets(&["udp:a:1 udp:b:1=2", "3 == udp:c:1", "3==udp:d:1=0", " "]).unwrap();
    let shown: Vec<_> = sets.nodes().map(|n| (n.set, n.index, &*n.url, n.weight)).collect();
    assert_eq!(
        shown,
        [(0, 0, "udp:a:1", 1), (0, 1, "udp:b:1", 2), (3, 2, "udp:c:1", 1), (3, 3, "udp:d:1", 0)]
    );
    for bad in ["x == udp:a:1", "1 ==", "-1 == udp:a:1"] {
        assert!(super::tests::sets(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn advertised_addresses() {
    let sets = written(&["udp:a:1|192.0.2.8=2 udp:b:1"], Writing::Rtpproxy).unwrap();
    let shown: Vec<_> = sets.nodes().map(|n| (&*n.url, n.advertised.as_deref(), n.weight)).collect();
    assert_eq!(shown, [("udp:a:1", Some("192.0.2.8"), 2), ("udp:b:1", None, 1)]);
}

#[test]
fn one_that_stands_twice_counts_once() {
    let sets = sets(&["udp:a:1 udp:a:1=7 udp:b:1"]).unwrap();
    assert_eq!(
        sets.nodes().map(|n| (&*n.url, n.weight)).collect::<Vec<_>>(),
        [("udp:a:1", 1), ("udp:b:1", 1)]
    );
    assert_eq!(written(&["udp:a:1 udp:a:1"], Writing::Rtpproxy).unwrap().nodes().count(), 2);
}

fn chosen(sets: &Sets, call_id: &str, passed: &[&str]) -> String {
    let found = choose(sets.get(0).unwrap(), call_id.as_bytes(), |n| passed.contains(&&*n.url));
    found.map_or_else(|| "-".to_string(), |node| node.url.clone())
}

#[test]
fn calls_are_spread_by_call_id_and_weight() {
    let two = sets(&["/a /b"]).unwrap();
    // "a" is 97: odd.
    assert_eq!(["a", "b", "c", "ab"].map(|id| chosen(&two, id, &[])), ["/b", "/a", "/b", "/b"]);
    assert_eq!(["a", "b"].map(|id| chosen(&two, id, &["/b"])), ["/a", "/a"]);
    assert_eq!(chosen(&two, "a", &["/a", "/b"]), "-");
    two.get(0).unwrap().nodes[1].disable(5);
    assert_eq!(["a", "b"].map(|id| chosen(&two, id, &[])), ["/a", "/a"]);
    let weighted = sets(&["/a=0 /b=3 /c=1"]).unwrap();
    let found = ["\x00", "\x01", "\x02", "\x03", "\x04"].map(|id| chosen(&weighted, id, &[]));
    assert_eq!(found, ["/b", "/b", "/b", "/c", "/b"]);
    let idle = sets(&["/a=0 /b=0"]).unwrap();
    assert_eq!(chosen(&idle, "x", &[]), "/a");
}

#[test]
fn what_an_operator_disabled_stays_so() {
    let sets = sets(&["/a"]).unwrap();
    let node = &sets.get(0).unwrap().nodes[0];
    assert!(node.disable(10) && !node.disable(20));
    assert!(!node.is_due(19) && node.is_due(20));
    assert!(node.enable() && !node.enable());
    node.disable(NEVER);
    assert!(!node.disable(5) && !node.is_due(6));
    assert_eq!(node.recheck(), NEVER);
}
