//! `engine::config`: the text of a configuration file in TOML.
//!
//! Input: the text; octets that are not UTF-8 are replaced first, as the reader of files refuses them.

use std::collections::HashSet;
use std::path::Path;

use engine::config::{self, Config, ConfigErrors, MAX_ERRORS, Origin, Security, Translate};

/// A configuration that is accepted keeps its promises; one that is refused has reasons, each at a
/// place in the text.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let origin = Origin::new("home.toml", "home", Path::new("/etc/adit"));
    let origin = origin.expect("\"home\" may name a tunnel");
    let result = config::parse(&text, &origin);
    match &result {
        Ok(config) => {
            check_config(config);
            check_network(config);
        }
        Err(errors) => check_errors(errors, &text),
    }
    assert_eq!(config::parse(&text, &origin), result, "the same text means the same");
}

pub(crate) fn check_config(config: &Config) {
    assert_eq!(config.name, "home");
    assert!(!config.peers.is_empty(), "a tunnel has another side");
    assert!(config.device.mtu.is_none_or(|mtu| (68..=65_535).contains(&mtu)));
    assert!((1..=16).contains(&config.device.queues));
    assert!(config.device.addresses.iter().all(|address| !address.to_string().is_empty()));
    let security = config.local.security;
    assert_eq!(config.local.private_key.is_some(), security == Security::Wireguard);
    assert!((5..=120).contains(&config.local.rekey_after.as_secs()));
    assert_ne!(config.local.fwmark, Some(0));
    assert!(config.warnings.len() <= MAX_ERRORS + 1);
    let mut owned = HashSet::new();
    for (index, peer) in config.peers.iter().enumerate() {
        assert!(!peer.name.is_empty());
        assert!(config.peers[..index].iter().all(|other| other.name != peer.name));
        assert!(peer.allowed_ips.iter().all(|prefix| *prefix == prefix.trunc()));
        assert!(peer.allowed_ips.iter().all(|prefix| owned.insert(*prefix)), "one owner");
        assert!(security == Security::None || peer.public_key.is_some());
        assert!(security == Security::Wireguard || peer.preshared_key.is_none());
    }
    let mut waiting = config.peers.iter().filter(|peer| peer.endpoints.is_empty());
    let first_sender = waiting.next().is_some();
    assert!(!first_sender || security == Security::Wireguard || waiting.next().is_none());
}

pub(crate) fn check_network(config: &Config) {
    let network = &config.network;
    assert!(network.exclude.iter().all(|prefix| *prefix == prefix.trunc()));
    assert!(network.exclude.iter().all(|prefix| !network.routes.contains(prefix)));
    assert!(network.dns.len() <= 8 && network.dns_search.len() <= 6);
    assert!(network.dns_search.iter().all(|domain| (1..=253).contains(&domain.len())));
    assert!(network.translate.is_none() || network.forward, "what is translated is forwarded");
    assert!(network.default_route || !network.ipv6_beside);
    assert!(!network.default_route || !config.device.addresses.is_empty());
    if let Some(Translate::SourceNat(addresses)) = &network.translate {
        let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        assert!(!addresses.is_empty() && v4 <= 1 && addresses.len() - v4 <= 1);
    }
    if network.bridge.is_some() {
        assert!(config.device.addresses.is_empty() && network.routes.is_empty());
        assert!(!network.forward && !network.default_route);
    }
}

pub(crate) fn check_errors(errors: &ConfigErrors, text: &str) {
    let problems = errors.problems();
    assert!((1..=MAX_ERRORS).contains(&problems.len()));
    assert!(errors.omitted() == 0 || problems.len() == MAX_ERRORS);
    let lines = text.split('\n').count();
    for problem in problems {
        assert!((1..=lines).contains(&problem.line), "line {} of {lines}", problem.line);
        assert!(problem.column >= 1);
        assert!(!problem.message.is_empty());
        assert!(!problem.message.contains(char::is_control), "{:?}", problem.message);
    }
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert!(places.is_sorted(), "errors come in the order of the text");
}
