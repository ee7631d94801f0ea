//! `engine::config`: the text of a configuration file.
//!
//! Input: the text; octets that are not UTF-8 are replaced first, as the reader of files refuses them.

use std::path::Path;

use engine::config::{self, Config, ConfigErrors, MAX_ERRORS, Origin};

/// A configuration that is accepted keeps its promises; one that is refused has reasons, each at a
/// place in the text.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let origin = Origin::new("home.toml", "home", Path::new("/etc/adit"));
    let origin = origin.expect("\"home\" may name a tunnel");
    let result = config::parse(&text, &origin);
    match &result {
        Ok(config) => check_config(config),
        Err(errors) => check_errors(errors, &text),
    }
    assert_eq!(config::parse(&text, &origin), result, "the same text means the same");
}

fn check_config(config: &Config) {
    assert_eq!(config.name, "home");
    assert!(!config.peers.is_empty(), "a tunnel has another side");
    assert!(config.device.mtu.is_none_or(|mtu| (68..=65_535).contains(&mtu)));
    assert!((1..=16).contains(&config.device.queues));
    assert!(config.device.addresses.iter().all(|address| !address.to_string().is_empty()));
    for (index, peer) in config.peers.iter().enumerate() {
        assert!(!peer.name.is_empty());
        assert!(config.peers[..index].iter().all(|other| other.name != peer.name));
        assert!(peer.allowed_ips.iter().all(|prefix| *prefix == prefix.trunc()));
    }
    let waiting = config.peers.iter().filter(|peer| peer.endpoints.is_empty());
    assert!(waiting.count() <= 1, "only one peer can be the first sender");
}

fn check_errors(errors: &ConfigErrors, text: &str) {
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
