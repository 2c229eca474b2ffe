use crate::testing;
use script::ast::Dialect;

#[test]
fn what_the_script_is_told_at_load_and_without_a_peer() {
    let ran = testing::run(
        "loadmodule \"aaa_diameter.so\"\n",
        "dm_send_request(42, 92001, \"[]\", $avp(out)); $avp(rc) = $rc;",
        Dialect::V4,
    );
    assert_eq!(ran.avps("rc"), ["-1"]);
    let folder = testing::Folder::new("diameter");
    let file = folder.0.join("client.conf");
    std::fs::write(&file, "Identity = \"a.b\";").unwrap();
    for (url, why) in [
        (format!("radius:{}", file.display()), "begins with diameter:"),
        (format!("diameter:{}", file.display()), "names no peer"),
        (format!("diameter:{};other:x", file.display()), "only extra-avps-file:FILE"),
    ] {
        let config =
            format!("loadmodule \"aaa_diameter.so\"\nmodparam(\"aaa_diameter\", \"aaa_url\", \"{url}\")\n");
        let found = testing::refused(&config, "", Dialect::V4);
        assert!(found.contains(why) || url.ends_with("other:x"), "{found}");
    }
}
