use super::nodes::{Node, host_of};
use crate::testing::{refused, run};
use script::ast::Dialect;

const CONFIG: &str = r#"socket=udp:127.0.0.1:5060
loadmodule "clusterer.so"
modparam("clusterer", "db_mode", 0)
modparam("clusterer", "my_node_id", 1)
modparam("clusterer", "my_node_info", "cluster_id=1, url=bin:10.0.0.1:5566, sip_addr=10.0.0.1")
modparam("clusterer", "neighbor_node_info", "cluster_id=1,node_id=2,url=bin:10.1.0.2:5566,sip_addr=10.0.0.2:5070")
modparam("clusterer", "sharing_tag", "vip/1=active")
modparam("clusterer", "sharing_tag", "other / 1 = backup")
"#;

#[track_caller]
fn check(body: &str, expected: &[&str]) {
    let mut found = run(CONFIG, body, Dialect::V4).avps("r");
    found.reverse();
    assert_eq!(found, expected, "{body}");
}

#[test]
fn addresses_of_nodes() {
    check(
        r#"cluster_check_addr(1, "10.0.0.2"); $avp(r) = $rc; cluster_check_addr(1, "10.0.0.1"); $avp(r) = $rc;
           cluster_check_addr(1, "10.0.0.3"); $avp(r) = $rc; cluster_check_addr(2, "10.0.0.1"); $avp(r) = $rc;
           cluster_check_addr(1, "10.1.0.2", "bin"); $avp(r) = $rc;"#,
        &["1", "1", "-1", "-1", "1"],
    );
    for (addr, host) in [
        ("10.0.0.1:5060", "10.0.0.1"),
        ("sip:a.example", "a.example"),
        ("[2001:db8::1]:5060", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        assert_eq!(host_of(addr), host);
    }
}

#[test]
fn sharing_tags() {
    check(
        r#"$avp(r) = $cluster.sh_tag(vip/1); $avp(r) = $cluster.sh_tag(other/1); $avp(r) = $cluster.sh_tag(vip/2);
           $cluster.sh_tag(other/1) = "active"; $avp(r) = $cluster.sh_tag(other/1);
           if ($cluster.sh_tag(vip/1) == "active") $avp(r) = "yes";"#,
        &["active", "backup", "backup", "active", "yes"],
    );
}

#[test]
fn what_a_node_needs() {
    assert!(Node::parse("cluster_id=1, url=bin:1.1.1.1, colour=red").is_err());
    assert!(Node::parse("node_id=1").is_err());
    let missing = refused("socket=udp:127.0.0.1:5060\nloadmodule \"clusterer.so\"\n", "", Dialect::V4);
    assert!(missing.contains("my_node_id"), "{missing}");
}
