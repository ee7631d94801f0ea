//! `[network]`: what the host's network is to look like.

use super::*;

/// The least file of a TUN device with addresses of both families and two peers.
const BOTH: &str = r#"local.security = "none"
local.listen = ["udp://0.0.0.0:4740"]
device.addresses = ["192.0.2.1/24", "fd00:7::1/64"]
[[peer]]
name = "gateway"
endpoints = ["udp://198.51.100.1:4740"]
allowed-ips = ["0.0.0.0/0", "::/0"]
[[peer]]
name = "b"
allowed-ips = ["203.0.113.0/24"]
[network]
"#;

/// The least file of a TAP device.
const TAP: &str = r#"device.mode = "tap"
local.security = "none"
[[peer]]
name = "b"
endpoints = ["udp://192.0.2.9:4740"]
[network]
"#;

/// Compares the errors of a file with these lines at its end, without the name of the file.
fn refuses_after(file: &str, cases: &[(&str, &str)]) {
    for (lines, message) in cases {
        let text = format!("{file}{lines}\n");
        assert_eq!(errors(&text).replace("home.toml:", ""), *message, "{text}");
    }
}

fn network(file: &str, lines: &str) -> Network {
    good(&format!("{file}{lines}\n")).network
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn wrong_routes_are_refused() {
    refuses(
        "[network]",
        &[
            (
                "routes = [\"10.0.0.1/8\"]",
                r#"3:11: [network]: routes "10.0.0.1/8" has host bits set; did you mean "10.0.0.0/8"?"#,
            ),
            (
                "routes = [\"10.0.0.0/8\", \"2001:db8::/32\", \"10.0.0.0/8\"]\n[device]\naddresses = [\"10.0.0.1/32\"]",
                "3:25: [network]: routes \"2001:db8::/32\" is IPv6, but [device] has no IPv6 address\n\
                 3:42: [network]: routes \"10.0.0.0/8\" is already used at 3:11",
            ),
        ],
    );
}

#[test]
fn every_key_means_what_it_says() {
    assert_eq!(
        network(
            BOTH,
            r#"default-route = true
exclude = ["10.0.0.0/8", "fd01::/16"]
routes = ["198.18.0.0/15"]
masquerade = true
dns = ["192.0.2.53", "fd00:7::53"]
dns-search = ["Home.Example.", "lan"]"#
        ),
        Network {
            allowed_ips_routed: true,
            routes: nets(&["198.18.0.0/15"]),
            default_route: true,
            exclude: nets(&["10.0.0.0/8", "fd01::/16"]),
            ipv6_beside: false,
            forward: true,
            translate: Some(Translate::Masquerade),
            bridge: None,
            dns: ips(&["192.0.2.53", "fd00:7::53"]),
            dns_search: vec!["home.example".to_owned(), "lan".to_owned()],
        }
    );
    assert_eq!(network(TAP, "bridge = \"br0\"").bridge, Some("br0".to_owned()));
}

#[test]
fn what_asks_for_nothing_is_nothing() {
    let lines = "default-route = false\nexclude = []\nipv6-beside-tunnel = false\nforward = false\n\
                 masquerade = false\nsource-nat = \"\"\nbridge = \"\"\ndns = []\ndns-search = []";
    assert_eq!(network(BOTH, lines), Network::default());
    assert_eq!(network(BOTH, "source-nat = []"), Network::default());
}

#[test]
fn a_source_address_stands_alone_or_with_one_of_the_other_family() {
    for (value, addresses) in [
        ("\"192.0.2.42\"", ips(&["192.0.2.42"])),
        ("[\"192.0.2.42\"]", ips(&["192.0.2.42"])),
        ("[\"fd00::42\", \"192.0.2.42\"]", ips(&["fd00::42", "192.0.2.42"])),
    ] {
        let network = network(BOTH, &format!("source-nat = {value}"));
        assert_eq!(network.translate, Some(Translate::SourceNat(addresses)));
        assert!(network.forward);
    }
    refuses_after(
        BOTH,
        &[
            (
                "source-nat = [\"192.0.2.42\", \"192.0.2.43\"]",
                r#"12:29: [network]: source-nat "192.0.2.43" is a second IPv4 address; the first is at 12:15"#,
            ),
            (
                "source-nat = \"192.0.2.42/32\"",
                r#"12:14: [network]: source-nat "192.0.2.42/32" has a prefix length, which does not belong here; did you mean "192.0.2.42"?"#,
            ),
            (
                "source-nat = [\"0.0.0.0\", \"x\"]",
                "12:15: [network]: source-nat \"0.0.0.0\" is an address that no interface can have\n\
                 12:26: [network]: source-nat \"x\" is not an IP address",
            ),
        ],
    );
}

#[test]
fn a_source_address_is_of_a_family_of_the_device() {
    refuses(
        "[network]",
        &[(
            "source-nat = \"fd00::1\"\n[device]\naddresses = [\"10.0.0.1/24\"]",
            r#"3:14: [network]: source-nat "fd00::1" is IPv6, but [device] has no IPv6 address"#,
        )],
    );
    let tap = network(TAP, "source-nat = \"fd00::1\"");
    assert_eq!(tap.translate, Some(Translate::SourceNat(ips(&["fd00::1"]))));
}

#[test]
fn a_translation_excludes_the_other_and_needs_forwarding() {
    assert!(network(BOTH, "masquerade = true\nforward = true").forward);
    refuses_after(
        BOTH,
        &[
            (
                "source-nat = \"192.0.2.42\"\nmasquerade = true",
                "12:14: [network]: source-nat and masquerade exclude each other; masquerade is set at 13:14",
            ),
            (
                "masquerade = true\nforward = false",
                "12:14: [network]: masquerade needs forward = true, but forward is false at 13:11",
            ),
            (
                "forward = false\nsource-nat = [\"192.0.2.42\"]",
                "13:14: [network]: source-nat needs forward = true, but forward is false at 12:11",
            ),
        ],
    );
}

#[test]
fn a_bridge_takes_the_frames_of_a_tap_device() {
    refuses_after(
        BOTH,
        &[(
            "bridge = \"br0\"",
            "12:10: [network]: bridge \"br0\": a bridge takes Ethernet frames, so that the device must be a \
             TAP device; write mode = \"tap\" in [device]",
        )],
    );
    refuses_after(
        TAP,
        &[
            (
                "bridge = \"home\"",
                r#"7:10: [network]: bridge "home" is the name of the device itself"#,
            ),
            (
                "bridge = \"a/b\"",
                r#"7:10: [network]: bridge "a/b" contains '/', which is not allowed"#,
            ),
        ],
    );
}

#[test]
fn the_port_of_a_bridge_has_nothing_of_its_own() {
    refuses_after(
        &format!("device.addresses = [\"192.0.2.1/24\"]\n{TAP}"),
        &[(
            "bridge = \"br0\"\nroutes = [\"10.0.0.0/8\"]\nforward = true",
            "1:20: [device]: addresses belong to the bridge and not to its port; bridge is set at 8:10\n\
                 9:10: [network]: routes lead to the bridge and not to its port; bridge is set at 8:10\n\
                 10:11: [network]: forward has no meaning for the port of a bridge; bridge is set at 8:10",
        )],
    );
    refuses_after(
        TAP,
        &[
            (
                "masquerade = true\nbridge = \"br0\"",
                "7:14: [network]: masquerade has no meaning for the port of a bridge; bridge is set at 8:10",
            ),
            (
                "source-nat = \"192.0.2.42\"\nbridge = \"br0\"",
                "7:14: [network]: source-nat has no meaning for the port of a bridge; bridge is set at 8:10",
            ),
        ],
    );
}

#[test]
fn a_default_route_needs_a_tun_device_with_an_address() {
    refuses_after(
        TAP,
        &[(
            "default-route = true",
            "7:17: [network]: default-route needs a TUN device; write mode = \"tun\" in [device]",
        )],
    );
    refuses(
        "[network]",
        &[(
            "default-route = true",
            "3:17: [network]: default-route needs an address of the device; write addresses = \
             [\"ADDRESS/LENGTH\"] in [device]",
        )],
    );
}

#[test]
fn a_default_route_needs_peers_that_own_everything() {
    let only_v4 = BOTH.replace("\"0.0.0.0/0\", \"::/0\"", "\"0.0.0.0/0\"");
    refuses_after(
        &only_v4,
        &[(
            "default-route = true",
            "12:17: [network]: default-route takes all of IPv6, since [device] has an IPv6 address, but no \
             peer owns it; add \"::/0\" to the allowed-ips of one",
        )],
    );
    let in_pieces = BOTH
        .replace("\"0.0.0.0/0\", \"::/0\"", "\"0.0.0.0/1\", \"::/0\"")
        .replace("\"203.0.113.0/24\"", "\"128.0.0.0/2\", \"192.0.0.0/2\"");
    assert!(network(&in_pieces, "default-route = true").default_route);
    let with_a_hole = in_pieces.replace("\"192.0.0.0/2\"", "\"192.0.0.0/3\"");
    assert!(errors(&format!("{with_a_hole}default-route = true\n")).contains("all of IPv4"));
    let of_an_only_peer = format!("device.addresses = [\"192.0.2.1/24\"]\n{MINIMAL}[network]\n");
    assert!(network(&of_an_only_peer, "default-route = true").default_route);
}

#[test]
fn ipv6_stays_beside_a_default_route_of_ipv4_only() {
    let v4 = format!("device.addresses = [\"192.0.2.1/24\"]\n{MINIMAL}[network]\n");
    assert!(network(&v4, "default-route = true\nipv6-beside-tunnel = true").ipv6_beside);
    refuses_after(
        BOTH,
        &[
            (
                "ipv6-beside-tunnel = true",
                "12:22: [network]: ipv6-beside-tunnel has no meaning without default-route = true",
            ),
            (
                "default-route = true\nipv6-beside-tunnel = true",
                "13:22: [network]: ipv6-beside-tunnel is set, but default-route takes IPv6 into the tunnel, \
                 since [device] has an IPv6 address at 3:37",
            ),
        ],
    );
}

#[test]
fn an_exclusion_is_a_part_of_what_the_tunnel_takes() {
    for lines in [
        // A part of a route, of a peer's allowed IPs, of the device's own network, of everything.
        "routes = [\"10.0.0.0/8\"]\nexclude = [\"10.1.0.0/16\"]",
        "exclude = [\"203.0.113.128/25\"]",
        "exclude = [\"fd00:7::/65\"]",
        "default-route = true\nexclude = [\"10.0.0.0/8\", \"203.0.0.0/8\", \"fd00::/8\"]",
    ] {
        assert!(!network(BOTH, lines).exclude.is_empty(), "{lines}");
    }
    refuses_after(
        BOTH,
        &[(
            "routes = [\"10.1.0.0/16\"]\nexclude = [\"10.2.0.0/16\"]",
            "13:12: [network]: exclude \"10.2.0.0/16\" has no effect, since the tunnel takes nothing of which \
             it is a part",
        )],
    );
    let v4 = format!(
        "device.addresses = [\"192.0.2.1/24\"]\n{MINIMAL}[network]\ndefault-route = true\n"
    );
    assert_eq!(network(&v4, "exclude = [\"fd00::/8\"]").exclude, nets(&["fd00::/8"]));
    refuses_after(
        &v4,
        &[(
            "ipv6-beside-tunnel = true\nexclude = [\"fd00::/8\"]",
            "9:12: [network]: exclude \"fd00::/8\" has no effect, since the tunnel takes nothing of which \
             it is a part",
        )],
    );
}

#[test]
fn an_exclusion_takes_nothing_back() {
    refuses_after(
        BOTH,
        &[
            (
                "exclude = [\"10.0.0.0/8\"]\nroutes = [\"9.0.0.0/8\", \"10.1.0.0/16\", \"11.0.0.0/8\"]",
                r#"12:12: [network]: exclude "10.0.0.0/8" takes back routes "10.1.0.0/16" at 13:24"#,
            ),
            (
                "exclude = [\"10.0.0.0/8\"]\nroutes = [\"10.0.0.0/8\"]",
                r#"12:12: [network]: exclude "10.0.0.0/8" takes back routes "10.0.0.0/8" at 13:11"#,
            ),
            (
                "exclude = [\"203.0.113.0/24\"]",
                r#"12:12: [network]: exclude "203.0.113.0/24" takes back allowed-ips "203.0.113.0/24" at 10:16"#,
            ),
            (
                "default-route = true\nexclude = [\"::/0\", \"0.0.0.0/1\"]",
                "13:12: [network]: exclude \"::/0\" takes back default-route at 12:17\n\
                 13:20: [network]: exclude \"0.0.0.0/1\" takes back default-route at 12:17",
            ),
            (
                "default-route = true\nexclude = [\"10.0.0.0/8\", \"10.0.0.0/8\"]",
                r#"13:26: [network]: exclude "10.0.0.0/8" is already used at 13:12"#,
            ),
        ],
    );
}

#[test]
fn half_of_everything_is_a_part_of_the_default_route() {
    refuses_after(
        BOTH,
        &[(
            "default-route = true\nroutes = [\"128.0.0.0/1\"]",
            "13:11: [network]: routes \"128.0.0.0/1\" is a part of default-route, which is set at 12:17",
        )],
    );
}

#[test]
fn wrong_servers_and_domains_are_refused() {
    refuses_after(
        BOTH,
        &[
            (
                "dns = [\"192.0.2.53\", \"dns.example\", \"192.0.2.53\", \"::\"]",
                "12:22: [network]: dns \"dns.example\" is not an IP address\n\
                 12:37: [network]: dns \"192.0.2.53\" is already used at 12:8\n\
                 12:51: [network]: dns \"::\" is an address that no interface can have",
            ),
            (
                "dns-search = [\"lan\", \"a b\", \"LAN.\"]",
                "12:22: [network]: dns-search \"a b\" is not a domain name such as \"example.com\"\n\
                 12:29: [network]: dns-search \"lan\" is already used at 12:15",
            ),
        ],
    );
}

#[test]
fn many_exclusions_of_many_routes_are_checked_soon() {
    let list = |third: u32| {
        let prefix = |n: u32| format!("'10.{}.{}.{third}/32',", n / 256, n % 256);
        (0..4096).map(prefix).collect::<String>()
    };
    let started = std::time::Instant::now();
    let text =
        format!("{BOTH}default-route = true\nroutes = [{}]\nexclude = [{}]\n", list(1), list(2));
    assert_eq!(good(&text).network.exclude.len(), 4096);
    assert!(started.elapsed() < Duration::from_secs(10));
}
