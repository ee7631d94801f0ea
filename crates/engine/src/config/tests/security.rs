//! `security`, and the keys that belong to it.

use super::*;

const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
const OTHER_KEY: &str = "AgIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

/// A tunnel with two peers, neither of which this side can find by itself.
const SECURE: &str = r#"[local]
private-key-file = "keys/home.key"
listen = ["udp://[::]:4740"]
[[peer]]
name = "a"
public-key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
allowed-ips = ["10.0.0.1/32", "10.1.0.0/16"]
[[peer]]
name = "b"
public-key = "AgIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
allowed-ips = ["10.0.0.2/32"]
"#;

/// The errors of the secure file with lines at the end of `[local]`, from line 4 on.
fn refused(lines: &str) -> String {
    let text =
        SECURE.replace("[[peer]]\nname = \"a\"", &format!("{lines}\n[[peer]]\nname = \"a\""));
    errors(&text).replace("home.toml:", "")
}

#[test]
fn security_is_wireguard_unless_it_is_switched_off() {
    let config = good(SECURE);
    let Local { security, private_key, ciphers, extensions, rekey_after, fwmark, .. } =
        config.local;
    assert_eq!(security, Security::Wireguard);
    assert_eq!(private_key, Some(KeySource::File("/etc/adit/keys/home.key".into())));
    assert_eq!(ciphers, CipherPolicy::Auto);
    assert!(extensions);
    assert_eq!(rekey_after, REKEY_AFTER);
    assert_eq!(fwmark, None);
    assert_eq!(config.peers[0].public_key, Some(KEY.parse().unwrap()));
    assert_eq!(config.peers[0].preshared_key, None);
    assert_eq!(config.peers[1].public_key, Some(OTHER_KEY.parse().unwrap()));
    assert_eq!(
        good(
            &format!(
                "local.security = \"wireguard\"\nlocal.private-key-file = \"/k\"\n{}",
                &SECURE[SECURE.find("[[").unwrap()..]
            )
            .replace("allowed-ips", "endpoints = [\"udp://b:1\"]\nallowed-ips")
        )
        .local
        .private_key,
        Some(KeySource::File("/k".into()))
    );
    for (line, message) in [
        (
            "security = \"off\"",
            "4:12: [local]: security \"off\" is neither \"wireguard\" nor \"none\"",
        ),
        ("security = false", "4:12: [local]: security: expected a string, found a boolean"),
    ] {
        assert_eq!(refused(line), message);
    }
}

#[test]
fn every_key_of_security_is_read() {
    let lines = "cipher = \"aes-256-gcm\"\nrekey-after = \"5s\"\nfwmark = 0xca6c\n[[peer]]\n\
                 name = \"a\"\npreshared-key-file = \"a.psk\"";
    let config = good(&SECURE.replacen("[[peer]]\nname = \"a\"", lines, 1));
    assert_eq!(config.local.ciphers, CipherPolicy::Aes256Gcm);
    assert_eq!(config.local.rekey_after, Duration::from_secs(5));
    assert_eq!(config.local.fwmark, Some(51820));
    assert_eq!(config.peers[0].preshared_key, Some(KeySource::File("/etc/adit/a.psk".into())));
    let lines = "cipher = \"chacha20-poly1305\"\nextensions = false\nfwmark = 0\n[[peer]]";
    let config = good(&SECURE.replacen("[[peer]]", lines, 1));
    assert_eq!(config.local.ciphers, CipherPolicy::ChaCha20Poly1305);
    assert!(!config.local.extensions);
    assert_eq!(config.local.fwmark, None);
}

#[test]
fn wrong_keys_of_security_are_refused() {
    for (line, message) in [
        (
            "cipher = \"aes\"",
            "4:10: [local]: cipher \"aes\" is none of \"auto\", \"aes-256-gcm\" and \"chacha20-poly1305\"",
        ),
        (
            "extensions = false\ncipher = \"aes-256-gcm\"",
            "5:10: [local]: cipher \"aes-256-gcm\" is one of the extensions, and those are switched off",
        ),
        ("rekey-after = \"4999ms\"", "4:15: [local]: rekey-after \"4999ms\" is not in 5s..=120s"),
        ("rekey-after = \"121s\"", "4:15: [local]: rekey-after \"121s\" is not in 5s..=120s"),
        ("fwmark = 4294967296", "4:10: [local]: fwmark 4294967296 is not in 0..=4294967295"),
        ("fwmark = -1", "4:10: [local]: fwmark -1 is not in 0..=4294967295"),
    ] {
        assert_eq!(refused(line), message, "{line}");
    }
}

#[test]
fn security_needs_keys() {
    let missing = "[local]: private-key-file is missing; \"adit key new -o FILE\" makes one, and for a trusted \
                   link security = \"none\" does without";
    let peer = "[[peer]]\nname = \"b\"\nendpoints = [\"udp://192.0.2.9:1\"]\n";
    assert_eq!(
        errors(peer),
        format!("home.toml:1:1: {missing}\nhome.toml:1:1: peer \"b\": public-key is missing")
    );
    assert_eq!(
        errors(&format!("\n[local]\nprivate-key-file = \"\"\n{peer}public-key = \"{KEY}\"\n")),
        format!("home.toml:2:1: {missing}")
    );
}

#[test]
fn without_security_its_keys_mean_nothing() {
    refuses(
        "[local]",
        &[
            (
                "private-key-file = \"home.key\"",
                "3:20: [local]: private-key-file has no meaning with security = \"none\"",
            ),
            ("cipher = \"auto\"", "3:10: [local]: cipher has no meaning with security = \"none\""),
            (
                "extensions = true",
                "3:14: [local]: extensions has no meaning with security = \"none\"",
            ),
            (
                "rekey-after = \"60s\"",
                "3:15: [local]: rekey-after has no meaning with security = \"none\"",
            ),
        ],
    );
    refuses(
        "[[peer]]",
        &[(
            "name = \"b\"\npreshared-key-file = \"b.psk\"\nendpoints = [\"udp://b:1\"]",
            "4:22: peer \"b\": preshared-key-file has no meaning with security = \"none\"",
        )],
    );
    let config = good(&format!("local.fwmark = 7\n{MINIMAL}public-key = \"{KEY}\"\n"));
    assert_eq!(config.local.fwmark, Some(7));
}

#[test]
fn a_path_starts_from_the_directory_of_its_file() {
    let source = |path: &str| good(&SECURE.replace("keys/home.key", path)).local.private_key;
    assert_eq!(source("../k"), Some(KeySource::File("/etc/adit/../k".into())));
    assert_eq!(source("/run/k"), Some(KeySource::File("/run/k".into())));
}

#[test]
fn somebody_must_be_able_to_begin() {
    let text = SECURE.replace("listen = [\"udp://[::]:4740\"]\n", "");
    assert_eq!(
        errors(&text),
        "home.toml:3:1: peer \"a\": endpoints is missing, and no other peer has any, so that [local] needs \
         listen"
    );
    assert!(good(&format!("{text}endpoints = [\"udp://b:1\"]\n")).local.listen.is_empty());
}

#[test]
fn peers_may_meet_at_one_endpoint_but_not_under_one_key() {
    let endpoints = "endpoints = [\"udp://b:1\", \"udp://b:1\"]\n";
    let text =
        SECURE.replace(OTHER_KEY, KEY).replace("allowed-ips", &format!("{endpoints}allowed-ips"));
    assert_eq!(
        errors(&text),
        "home.toml:7:27: peer \"a\": endpoints \"udp://b:1\" is already used at 7:14\n\
         home.toml:11:14: peer \"b\": public-key is already used at 6:14\n\
         home.toml:12:27: peer \"b\": endpoints \"udp://b:1\" is already used at 12:14"
    );
    let text = SECURE.replace("allowed-ips", "endpoints = [\"udp://b:1\"]\nallowed-ips");
    assert_eq!(good(&text).peers[0].endpoints, good(&text).peers[1].endpoints);
}

#[test]
fn the_peer_that_names_a_prefix_last_owns_it() {
    let last = r#"allowed-ips = ["10.1.0.0/16", "10.0.0.2/32", "10.0.0.2/32"]"#;
    let config = good(&SECURE.replace(r#"allowed-ips = ["10.0.0.2/32"]"#, last));
    assert_eq!(config.peers[0].allowed_ips, nets(&["10.0.0.1/32"]));
    assert_eq!(config.peers[1].allowed_ips, nets(&["10.1.0.0/16", "10.0.0.2/32"]));
    assert_eq!(
        config.warnings,
        [
            "home.toml:7:31: peer \"a\": allowed-ips \"10.1.0.0/16\" belongs to whoever names it last, that is \
             at 11:16",
            "home.toml:11:31: peer \"b\": allowed-ips \"10.0.0.2/32\" belongs to whoever names it last, that is \
             at 11:46",
        ]
    );
    assert_eq!(good(SECURE).warnings, [""; 0]);
}

#[test]
fn warnings_are_counted_beyond_a_limit() {
    let list = "\"10.0.0.9/32\", ".repeat(MAX_ERRORS + 2);
    let text =
        SECURE.replace(r#"allowed-ips = ["10.0.0.2/32"]"#, &format!("allowed-ips = [{list}]"));
    let warnings = good(&text).warnings;
    assert_eq!(warnings.len(), MAX_ERRORS + 1);
    assert_eq!(warnings[MAX_ERRORS], "home.toml: 1 more warnings");
}

#[test]
fn a_tap_device_has_one_peer_with_security_too() {
    assert_eq!(
        errors(&format!("device.mode = \"tap\"\n{}", SECURE.replace("allowed-ips", "# "))),
        "home.toml:9:1: peer \"b\": a second peer of a TAP device is not supported by this version of adit"
    );
}

#[test]
fn ten_thousand_peers_are_read_soon() {
    let peers: String = (0..10_000_u32).map(peer).collect();
    let text = format!("[local]\nprivate-key-file = \"k\"\n{peers}");
    let started = std::time::Instant::now();
    let config = good(&text);
    let elapsed = started.elapsed();
    println!("{} octets of TOML: {elapsed:?}", text.len());
    assert_eq!(config.peers.len(), 10_000);
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[test]
fn the_largest_table_of_peers_fits_into_a_file_and_one_more_is_refused() {
    let peers: String = (0..65_535).map(peer).collect();
    let text = format!("[local]\nprivate-key-file = \"k\"\n{peers}");
    assert!(text.len() < MAX_FILE_SIZE, "{}", text.len());
    assert_eq!(good(&text).peers.len(), 65_535);
    assert_eq!(
        errors(&format!("{text}{}", peer(65_535))),
        "home.toml:3:1: peer has 65536 values, which is more than 65535"
    );
}

/// A peer with a key, an endpoint, two prefixes and a preshared key.
pub(super) fn peer(number: u32) -> String {
    let key = key(number);
    let [_, a, b, c] = number.to_be_bytes();
    format!(
        "[[peer]]\nname = \"p{number}\"\npublic-key = \"{key}\"\npreshared-key-file = \"{number}.psk\"\n\
         endpoints = [\"udp://198.51.{b}.{c}:4740\"]\n\
         allowed-ips = [\"10.{a}.{b}.{c}/32\", \"fd00::{number:x}/128\"]\nkeepalive = \"25s\"\n"
    )
}

/// A public key of its own for every number.
pub(super) fn key(number: u32) -> PublicKey {
    let mut octets = [7; 32];
    octets[..4].copy_from_slice(&number.to_be_bytes());
    octets.into()
}
