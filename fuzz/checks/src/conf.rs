//! `engine::config`: the text of a file in the format of wg-quick.
//!
//! Input: the text; octets that are not UTF-8 are replaced first, as the reader of files refuses them.

use std::path::Path;

use engine::config::{self, Config, KeySource, Network, Origin, Security};

use crate::config::{check_config, check_errors, check_network};

/// A file that is accepted keeps the promises of a configuration and says nothing that the format cannot say; one
/// that is refused has reasons, each at a place in the text.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let origin = Origin::new("home.conf", "home", Path::new("/etc/wireguard"));
    let origin = origin.expect("\"home\" may name a tunnel");
    let result = config::parse_conf(&text, &origin);
    match &result {
        Ok(config) => {
            check_config(config);
            check_network(config);
            check_format(config);
        }
        Err(errors) => check_errors(errors, &text),
    }
    assert_eq!(config::parse_conf(&text, &origin), result, "the same text means the same");
}

fn check_format(config: &Config) {
    let Network { allowed_ips_routed, default_route, ipv6_beside, dns, dns_search, .. } =
        &config.network;
    assert_eq!(config.local.security, Security::Wireguard);
    assert!(matches!(config.local.private_key, Some(KeySource::Inline(_))));
    assert!(*allowed_ips_routed || !default_route);
    let families = config.default_families();
    assert_eq!(families.v4 || families.v6, *default_route, "what is routed has an address");
    assert!(!ipv6_beside || !families.v6);
    let rest = Network {
        allowed_ips_routed: *allowed_ips_routed,
        default_route: *default_route,
        ipv6_beside: *ipv6_beside,
        dns: dns.clone(),
        dns_search: dns_search.clone(),
        ..Network::default()
    };
    assert_eq!(config.network, rest);
    for (index, peer) in config.peers.iter().enumerate() {
        assert_eq!(peer.name, format!("peer-{}", index + 1));
        assert!(peer.endpoints.len() <= 1);
    }
}
