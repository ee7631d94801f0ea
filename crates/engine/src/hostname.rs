//! What this machine could be called by its peers.

use std::fs;

use crate::config::MAX_NAME_LENGTH;

/// The machine's name (uname(2)).
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The machine's name, as far as it can name a peer.
pub(crate) fn own() -> Option<String> {
    as_name(fs::read_to_string(HOSTNAME).ok()?.trim())
}

/// The name up to its first dot, without what no name has.
fn as_name(hostname: &str) -> Option<String> {
    let first = hostname.split('.').next().unwrap_or_default();
    let allowed = |char: &char| char.is_ascii_alphanumeric() || "_-".contains(*char);
    let name: String = first.chars().filter(allowed).collect();
    let name: String = name.trim_start_matches('-').chars().take(MAX_NAME_LENGTH).collect();
    (!name.is_empty() && name != "localhost").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_becomes_a_name_or_none() {
        assert_eq!(as_name("b.example.com"), Some("b".into()));
        assert_eq!(as_name("-büro 7"), Some("bro7".into()));
        for none in ["", "localhost", "localhost.localdomain", "---", ".b"] {
            assert_eq!(as_name(none), None, "{none}");
        }
        assert_eq!(as_name(&"x".repeat(99)).map(|name| name.len()), Some(64));
    }
}
