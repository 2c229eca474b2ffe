//! Scripts that relay for anybody to anywhere.

use super::Lint;
use crate::ast::{ExprKind, RouteKind};
use crate::walk::{Met, body};

/// Functions that ask who sends a request, or for whom it is; a script that uses one of them has thought of it.
const ASKS: &[&str] = &[
    "www_authorize",
    "proxy_authorize",
    "pv_www_authorize",
    "pv_proxy_authorize",
    "aaa_www_authorize",
    "aaa_proxy_authorize",
    "check_address",
    "check_source_address",
    "allow_routing",
    "allow_uri",
    "get_source_group",
    "is_from_local",
    "is_uri_host_local",
    "is_domain_local",
    "is_ip_registered",
    "db_is_user_in",
    "ds_is_in_list",
    "dr_is_gw",
    "is_from_gw",
    "lb_is_destination",
    "is_myself",
    "tls_peer_verified",
    "stir_shaken_verify",
];
/// Functions that choose where a request goes, and variables that say it: then the caller does not.
const CHOOSES: &[&str] = &[
    "lookup",
    "alias_db_lookup",
    "ds_select_dst",
    "ds_select_domain",
    "do_routing",
    "route_to_gw",
    "route_to_carrier",
    "lb_start",
    "load_balance",
    "cr_route",
    "dp_translate",
    "rewritehost",
    "rewritehostport",
    "rewriteuri",
    "sethost",
    "sethostport",
    "seturi",
    "setdsturi",
    "enum_query",
    "mid_registrar_lookup",
];
const SAYS: &[&str] = &["ru", "du", "rd", "duri", "ruri", "domain"];

impl Lint<'_> {
    /// `t_relay` or `forward` without parameters, in a script that neither asks who sends nor chooses where to.
    pub(super) fn open_relay(&mut self) {
        let (mut relays, mut cares) = (None, false);
        for route in &self.config.routes {
            body(&route.body, &mut |met| match met {
                Met::Call(call, _) => {
                    let name = call.name.to_ascii_lowercase();
                    let named = |list: &[&str]| list.iter().any(|known| known.as_bytes() == &name[..]);
                    cares |= named(ASKS) || named(CHOOSES);
                    let begins = matches!(route.kind, RouteKind::Request);
                    if begins && matches!(&name[..], b"t_relay" | b"forward") && call.args.is_empty() {
                        relays.get_or_insert(call.loc);
                    }
                }
                // By address, by transport, by certificate: whoever looks at these has an opinion.
                Met::Read(v) if [&b"si"[..], b"src_ip", b"tls_peer_subject"].contains(&&v.name[..]) => {
                    cares = true
                }
                Met::Written(v) => cares |= SAYS.iter().any(|known| known.as_bytes() == &v.name[..]),
                Met::Expr(e) => {
                    let looks = |word: &[u8]| matches!(word, b"myself" | b"src_ip");
                    cares |= matches!(&e.kind, ExprKind::Word(word) if looks(word));
                }
                _ => {}
            });
        }
        if let Some(loc) = relays.filter(|_| !cares) {
            self.warn(
                loc,
                "this relays for anybody to anywhere: the script asks neither who sends a request nor decides where it goes",
                "check the sender first (proxy_authorize, check_source_address, is_from_local ...), or choose the \
                 destination ($ru, $du, lookup, ds_select_dst ...)",
            );
        }
    }
}
