//! The format of wg-quick: what its files mean, and what is wrong with them, to the letter.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use super::security::key;
use super::*;

const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PRESHARED: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

/// The example of wg-quick(8) in its spirit: everything that adit does, too.
const GOOD: &str = "# VPN
[Interface]
  privatekey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=  # secret
ListenPort=51820
FwMark = 0xca6c
Address = 10.0.0.1/24, fd00::1/64
address = 10.0.1.1
DNS = 10.0.0.53, home.example fd00::53
MTU = 1412
Table = auto
SaveConfig = false
PostUp =

[Peer]
PublicKey = AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=
PresharedKey = FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=
AllowedIPs = 10.0.0.2/32, 192.168.7.9/24
AllowedIPs = fd00::2
Endpoint = [2001:db8::9]:51820
PersistentKeepalive = 25
[PEER]
PublicKey = AgIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=
Endpoint = VPN.example.com:51821
PersistentKeepalive = off
";

/// What a file needs at least.
const MINIMAL: &str = "[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
[Peer]
PublicKey = AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=
";

fn origin() -> Origin {
    Origin::new("wg0.conf", "wg0", Path::new("/etc/wireguard")).unwrap()
}

fn good(text: &str) -> Config {
    parse_conf(text, &origin()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    parse_conf(text, &origin()).unwrap_err().to_string()
}

/// The minimal file with lines in `[Interface]`, from line 3 on, and in `[Peer]`.
fn with(interface: &str, peer: &str) -> String {
    format!("{}{peer}\n", MINIMAL.replace("[Peer]", &format!("{interface}\n[Peer]")))
}

/// The errors of such a file, without the file's name.
fn refused(interface: &str, peer: &str) -> String {
    errors(&with(interface, peer)).replace("wg0.conf:", "")
}

#[test]
fn a_good_file_means_what_wg_quick_does() {
    let first: [u8; 32] = std::array::from_fn(|index| u8::try_from(index + 1).unwrap());
    let mut second = first;
    second[0] = 2;
    let preshared: PresharedKey = PRESHARED.parse().unwrap();
    let addresses = ["10.0.0.1/24", "fd00::1/64", "10.0.1.1/32"];
    let expected = Config {
        name: "wg0".to_owned(),
        device: DeviceConfig {
            name: DeviceName::parse("wg0").unwrap(),
            mode: Mode::Tun,
            addresses: addresses.map(|it| InterfaceAddress::Prefix(it.parse().unwrap())).to_vec(),
            mtu: Some(1412),
            queues: 1,
            offload: true,
        },
        local: Local {
            listen: endpoints(&["udp://0.0.0.0:51820", "udp://[::]:51820"]),
            security: Security::Wireguard,
            private_key: Some(KeySource::Inline(PRIVATE.parse().unwrap())),
            ciphers: CipherPolicy::Auto,
            extensions: true,
            rekey_after: REKEY_AFTER,
            fwmark: Some(51820),
            busy_poll: None,
            poll_max: POLL_MAX,
        },
        network: Network {
            dns: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            dns_search: vec!["home.example".to_owned()],
            ..Network::default()
        },
        peers: vec![
            Peer {
                name: "peer-1".to_owned(),
                public_key: Some(first.into()),
                preshared_key: Some(KeySource::Inline(preshared)),
                endpoints: endpoints(&["udp://[2001:db8::9]:51820"]),
                allowed_ips: nets(&["10.0.0.2/32", "192.168.7.0/24", "fd00::2/128"]),
                keepalive: Some(Duration::from_secs(25)),
            },
            Peer {
                name: "peer-2".to_owned(),
                public_key: Some(second.into()),
                preshared_key: None,
                endpoints: endpoints(&["udp://vpn.example.com:51821"]),
                allowed_ips: vec![],
                keepalive: None,
            },
        ],
        warnings: vec![],
    };
    assert_eq!(good(GOOD), expected);
    assert_eq!(good(&GOOD.replace('\n', "\r\n")), expected);
}

#[test]
fn it_is_the_configuration_that_toml_makes_of_the_same() {
    let conf = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nAddress = 10.0.0.2/32\n\
                DNS = 10.0.0.53\n[Peer]\nPublicKey = AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n\
                AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.9:51820\n";
    let toml = "[device]\naddresses = [\"10.0.0.2/32\"]\n[local]\nprivate-key-file = \"k\"\n[network]\n\
                default-route = true\ndns = [\"10.0.0.53\"]\n[[peer]]\nname = \"peer-1\"\n\
                public-key = \"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\"\n\
                endpoints = [\"udp://192.0.2.9:51820\"]\n";
    let mut expected = parse(toml, &origin()).unwrap();
    expected.local.private_key = Some(KeySource::Inline(PRIVATE.parse().unwrap()));
    assert_eq!(good(conf), expected);
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = good(MINIMAL);
    assert_eq!(config.device.mtu, None);
    assert_eq!(config.network, Network::default());
    assert_eq!(config.peers[0].allowed_ips, []);
    assert_eq!(config.local.fwmark, None);
    let any = endpoints(&["udp://0.0.0.0:0", "udp://[::]:0"]);
    assert_eq!(config.local.listen, any, "nobody could begin otherwise");
    let reached = good(&with("", "Endpoint = 192.0.2.9:1"));
    assert_eq!(reached.local.listen, []);
    assert_eq!(good(&with("ListenPort = 0", "")).local.listen, any);
    let off = good(&with("FwMark = off", &format!("PresharedKey = {}=", "A".repeat(43))));
    assert_eq!(off.local.fwmark, None);
    assert_eq!(off.peers[0].preshared_key, None, "zero is no key");
}

/// Which families a file routes into the tunnel as a whole, and whether IPv6 stays as it is.
fn default_route(interface: &str, peer: &str) -> (bool, bool, bool) {
    let config = good(&with(interface, peer));
    let Families { v4, v6 } = config.default_families();
    assert_eq!(config.network.default_route, v4 || v6);
    (v4, v6, config.network.ipv6_beside)
}

#[test]
fn a_prefix_of_length_0_is_a_default_route_of_its_family() {
    let v4 = "Address = 10.0.0.1/24";
    let both = "Address = 10.0.0.1/24, fd00::1/64";
    assert_eq!(default_route(v4, "AllowedIPs = 0.0.0.0/0"), (true, false, true));
    assert_eq!(default_route(v4, "AllowedIPs = 0.0.0.0/0, ::/0"), (true, false, false));
    assert_eq!(default_route(both, "AllowedIPs = ::/0, 0.0.0.0/0"), (true, true, false));
    assert_eq!(default_route(both, "AllowedIPs = 0.0.0.0/0"), (true, false, true));
    assert_eq!(default_route(both, "AllowedIPs = ::/0"), (false, true, false));
    assert_eq!(default_route(both, "AllowedIPs = 10.0.0.0/8"), (false, false, false));
    assert_eq!(
        default_route(&format!("Table = off\n{v4}"), "AllowedIPs = 0.0.0.0/0"),
        (false, false, false)
    );
    assert_eq!(
        refused(v4, "AllowedIPs = ::/0"),
        "6:14: peer 1: AllowedIPs \"::/0\" takes all of IPv6, but [Interface] has no IPv6 Address"
    );
}

#[test]
fn a_default_route_needs_an_address_of_its_family() {
    assert_eq!(
        refused("", "AllowedIPs = 0.0.0.0/0, ::/0"),
        "6:14: peer 1: AllowedIPs \"0.0.0.0/0\" takes all of IPv4, but [Interface] has no IPv4 Address\n\
         6:25: peer 1: AllowedIPs \"::/0\" takes all of IPv6, but [Interface] has no IPv6 Address"
    );
    assert!(good(&with("Table = off", "AllowedIPs = 0.0.0.0/0")).peers[0].allowed_ips.len() == 1);
}

#[test]
fn without_a_table_nothing_is_routed() {
    assert!(good(GOOD).network.allowed_ips_routed);
    assert!(!good(&with("Table = Off", "AllowedIPs = 10.0.0.0/8")).network.allowed_ips_routed);
    assert_eq!(
        refused("Table = 1234", ""),
        "3:9: [Interface]: Table \"1234\" is not supported by this version of adit; \"off\" adds no routes, \
         \"auto\" adds them to the main table"
    );
}

#[test]
fn commands_are_refused_with_what_does_the_same() {
    for (line, message) in [
        (
            "PostUp = iptables -A FORWARD -i %i -j ACCEPT; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
            "3:10: [Interface]: PostUp is not supported: adit runs no commands; a TOML file has masquerade = true \
             under [network] and forward = true under [network] for this",
        ),
        (
            "PreUp=sysctl -w net.ipv4.ip_forward=1",
            "3:7: [Interface]: PreUp is not supported: adit runs no commands; a TOML file has forward = true under \
             [network] for this",
        ),
        (
            "postup = wg set %i private-key <(pass show wg)",
            "3:10: [Interface]: PostUp is not supported: adit runs no commands; a TOML file has private-key-file = \
             \"PATH\" under [local] for this",
        ),
        (
            "PostDown = touch /tmp/x\nPreDown = touch /tmp/y",
            "3:12: [Interface]: PostDown is not supported: adit runs no commands\n\
             4:11: [Interface]: PreDown is not supported: adit runs no commands",
        ),
        (
            "SaveConfig = true",
            "3:14: [Interface]: SaveConfig is not supported: adit never writes its configuration",
        ),
        ("SaveConfig = yes", "3:14: [Interface]: SaveConfig \"yes\" is neither true nor false"),
    ] {
        assert_eq!(refused(line, ""), message, "{line}");
    }
}

#[test]
fn a_wrong_interface_is_refused() {
    for (line, message) in [
        ("ListenPort = 65536", "3:14: [Interface]: ListenPort \"65536\" is not in 0..=65535"),
        ("ListenPort = +1", "3:14: [Interface]: ListenPort \"+1\" is not in 0..=65535"),
        ("ListenPort =", "3:13: [Interface]: ListenPort \"\" is not in 0..=65535"),
        (
            "FwMark = 0x100000000",
            "3:10: [Interface]: FwMark \"0x100000000\" is not in 0..=0xffffffff",
        ),
        ("FwMark = 0x", "3:10: [Interface]: FwMark \"0x\" is not in 0..=0xffffffff"),
        ("MTU = 67", "3:7: [Interface]: MTU 67 is not in 68..=65535"),
        ("MTU = big", "3:7: [Interface]: MTU \"big\" is not in 68..=65535"),
        (
            "MTU = 1279\nAddress = fd00::1",
            "3:7: [Interface]: MTU 1279 is less than 1280, which the IPv6 address \"fd00::1\" needs",
        ),
        (
            "Address = 10.0.0.1/33 , x,10.0.0.1, 10.0.0.1/32",
            "3:11: [Interface]: Address \"10.0.0.1/33\" has a prefix length that is not in 0..=32\n\
             3:25: [Interface]: Address \"x\" is not an IP address with a prefix length, such as \
             \"192.0.2.0/24\"\n\
             3:37: [Interface]: Address \"10.0.0.1/32\" is already used at 3:27",
        ),
        (
            "DNS = 1.1.1, a..b 1.1.1.1 1.1.1.1",
            "3:7: [Interface]: DNS \"1.1.1\" is not an IP address\n\
             3:14: [Interface]: DNS \"a..b\" is not a domain name such as \"example.com\"\n\
             3:27: [Interface]: DNS \"1.1.1.1\" is already used at 3:19",
        ),
        ("MTU = 1400\nmtu = 1400", "4:1: [Interface]: MTU is already set at 3:1"),
        (
            "ListenPrt = 1",
            "3:1: [Interface]: unknown key \"ListenPrt\"; did you mean \"ListenPort\"?",
        ),
        (
            "Jc = 4",
            "3:1: [Interface]: unknown key \"Jc\"; known are PrivateKey, ListenPort, FwMark, Address, DNS, MTU, \
             Table, PreUp, PostUp, PreDown, PostDown, SaveConfig",
        ),
    ] {
        assert_eq!(refused(line, ""), message, "{line}");
    }
}

#[test]
fn a_wrong_peer_is_refused() {
    for (line, message) in [
        (
            "AllowedIPs = 10.0.0.0/8, 10.0.0.0/33",
            "6:26: peer 1: AllowedIPs \"10.0.0.0/33\" has a prefix length that is not in 0..=32",
        ),
        ("Endpoint = vpn.example", "6:12: peer 1: Endpoint \"udp://vpn.example\" has no port"),
        (
            "Endpoint = 2001:db8::1:51820",
            "6:12: peer 1: Endpoint \"udp://2001:db8::1:51820\" has an IPv6 address without brackets; write \
             \"udp://[ADDRESS]:PORT\"",
        ),
        (
            "PersistentKeepalive = 25s",
            "6:23: peer 1: PersistentKeepalive \"25s\" is not in 0..=65535 seconds, nor \"off\"",
        ),
        ("PresharedKey = short", "6:16: peer 1: PresharedKey has 5 characters; a key has 44"),
        ("PresharedKey =", "6:15: peer 1: PresharedKey has 0 characters; a key has 44"),
        ("PublicKey = x", "6:1: peer 1: PublicKey is already set at 5:1"),
        (
            "Allowed IPs = ::/0",
            "6:1: peer 1: unknown key \"Allowed IPs\"; did you mean \"AllowedIPs\"?",
        ),
        ("[Peer]", "6:1: peer 2: PublicKey is missing"),
        (
            "[Peer]\nPublicKey = AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
            "7:13: peer 2: PublicKey is already used at 5:13",
        ),
    ] {
        assert_eq!(refused("", line), message, "{line}");
    }
}

#[test]
fn a_bad_document_is_refused() {
    for (text, message) in [
        ("", "1:1: there is no [Interface] section"),
        (
            "[Interface]\n",
            "1:1: [Interface]: PrivateKey is missing\n1:1: no peer; add a [Peer] section",
        ),
        (
            "Address = 10.0.0.1\n",
            "1:1: a key before the first section; begin with [Interface]\n1:1: there is no [Interface] section",
        ),
    ] {
        assert_eq!(errors(text).replace("wg0.conf:", ""), message, "{text}");
    }
    assert_eq!(
        errors(&format!("{MINIMAL}[Pear]\nx = y\n[Peer\nnonsense\n")).replace("wg0.conf:", ""),
        "5:1: unknown section \"Pear\"; did you mean \"Peer\"?\n\
         7:1: expected KEY = VALUE, [Interface] or [Peer]\n\
         8:1: expected KEY = VALUE, [Interface] or [Peer]"
    );
    let origin = Origin::new("f", "a-name-of-sixteen", Path::new("")).unwrap();
    assert_eq!(
        parse_conf(MINIMAL, &origin).unwrap_err().to_string(),
        "f:1:1: [Interface]: the name of the tunnel \"a-name-of-sixteen\" has 17 octets; the kernel allows 15"
    );
}

#[test]
fn a_prefix_goes_to_the_peer_that_names_it_last() {
    let second = format!(
        "AllowedIPs = 10.0.0.1/24\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.0.0.2/24",
        key(1)
    );
    let config = good(&with("", &second));
    assert_eq!(config.peers[0].allowed_ips, []);
    assert_eq!(config.peers[1].allowed_ips, nets(&["10.0.0.0/24"]));
    assert_eq!(
        config.warnings,
        [
            "wg0.conf:6:14: peer 1: AllowedIPs \"10.0.0.0/24\" belongs to whoever names it last, that is at 9:14"
        ]
    );
}

#[test]
fn keys_are_never_repeated() {
    let secret = "cOFfMd9LCy7TZaGRQ4bRD4KBeOM1kLhiZCB1rFPyQ3U=";
    for line in [
        secret.to_owned(),
        format!("{secret}="),
        format!("= {secret}"),
        format!("[{secret}]"),
        format!("[{secret}"),
        format!("PresharedKey {secret}"),
        format!("PresharedKey = {secret}="),
        format!("Private-Key = {secret}"),
        format!("PrivateKey: {secret}"),
    ] {
        for text in [with(&line, ""), with("", &line), line] {
            let text = errors(&text);
            assert!(!text.contains("cOFf") && !text.contains("Q3U"), "{text}");
        }
    }
    assert!(!format!("{:?}", good(GOOD)).contains(&PRIVATE[..8]));
    assert!(!format!("{:?}", good(GOOD)).contains(&PRESHARED[..8]));
}

#[test]
fn lists_beyond_their_limit_are_refused_once() {
    let prefixes = "10.0.0.1,".repeat(4096);
    assert_eq!(good(&with("", &format!("AllowedIPs = {prefixes}"))).peers[0].allowed_ips.len(), 1);
    assert_eq!(
        refused("", &format!("AllowedIPs = {prefixes}10.0.0.2,10.0.0.3,10.0.0.4")),
        "6:36878: peer 1: AllowedIPs has more than 4096 values"
    );
}

#[test]
fn a_file_with_keys_is_loaded_if_not_everybody_may_read_it() {
    let directory = Directory::new("conf");
    let path = directory.write("wg0.conf", MINIMAL.as_bytes());
    let loaded = |mode| {
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        directory.loaded(&path)
    };
    assert_eq!(loaded(0o600).unwrap(), good(MINIMAL));
    for mode in [0o644, 0o602] {
        assert_eq!(
            loaded(mode).unwrap_err(),
            format!(
                "read configuration wg0.conf: it holds secret keys, but its mode {mode:04o} lets everybody at it"
            )
        );
    }
    if std::os::unix::fs::chown(&path, None, Some(1)).is_ok() {
        let config = loaded(0o640).unwrap();
        let warning = config.warnings[0].rsplit_once('/').unwrap().1;
        assert_eq!(
            warning,
            "wg0.conf: it holds secret keys, but its mode 0640 lets its group at it"
        );
    }
}

#[test]
fn ten_thousand_peers_are_read_soon() {
    let peer = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        format!(
            "[Peer]\nPublicKey = {}\nPresharedKey = {PRESHARED}\nAllowedIPs = 10.{a}.{b}.{c}/32, fd00::{number:x}\n\
             Endpoint = 198.51.{b}.{c}:51820\n\n",
            key(number)
        )
    };
    let peers: String = (0..10_000).map(peer).collect();
    let text = format!("[Interface]\nPrivateKey = {PRIVATE}\n{peers}");
    let started = std::time::Instant::now();
    let config = good(&text);
    let elapsed = started.elapsed();
    println!("{} octets of wg-quick's format: {elapsed:?}", text.len());
    assert_eq!(config.peers.len(), 10_000);
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert!(good_or_errors(&"[peer]\n".repeat(MAX_FILE_SIZE / 7)).contains("more errors"));
    assert!(good_or_errors(&"=\n".repeat(MAX_FILE_SIZE / 2)).contains("more errors"));
}

fn good_or_errors(text: &str) -> String {
    parse_conf(text, &origin()).map_or_else(|errors| errors.to_string(), |_| String::new())
}

/// Pieces of files, right and wrong.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "[Interface]",
        "[Peer]",
        "\n",
        "=",
        " ",
        ",",
        "#",
        "PrivateKey",
        PRIVATE,
        "PublicKey",
        PRESHARED,
        "Address",
        "10.0.0.1/8",
        "::/0",
        "0.0.0.0/0",
        "DNS",
        "MTU",
        "1400",
        "Table",
        "off",
        "AllowedIPs",
        "Endpoint",
        "[::1]:1",
        "ü",
        "\r",
        "PostUp",
        "SaveConfig",
        "PersistentKeepalive",
        "FwMark",
        "0x",
        "[",
        "]",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_pieces_are_survived(text in pieces()) {
        if let Err(errors) = parse_conf(&text, &origin()) {
            let problems = errors.problems();
            prop_assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
            prop_assert!(problems.iter().all(|problem| !problem.message.contains(PRIVATE)));
        }
    }

    #[test]
    fn a_mutated_good_file_is_survived(
        edits in prop::collection::vec((0..GOOD.len(), 0..30_usize, pieces()), 1..4),
    ) {
        let mut octets = GOOD.as_bytes().to_vec();
        for (start, length, piece) in edits {
            let start = start.min(octets.len());
            let end = (start + length).min(octets.len());
            octets.splice(start..end, piece.into_bytes());
        }
        let text = String::from_utf8_lossy(&octets);
        if let Err(errors) = parse_conf(&text, &origin()) {
            prop_assert!(!errors.problems().is_empty());
        }
    }
}
