//! Whole files: what they mean, and what is wrong with them, to the letter.

mod conf;
mod network;
mod security;

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// The example of the reference, of which this version can do everything.
const GOOD: &str = r#"# home.toml
[device]
name = "adit0"
mode = "tun"
addresses = ["192.0.2.1/24", "fd00:7::1/64", { local = "10.1.1.1", peer = "10.1.1.2/32" }]
mtu = 1420
queues = 2
offload = false

[local]
listen = ["udp://0.0.0.0:4740", "udp://[::]:4740"]
security = "none"
busy-poll = "50us"
poll-max = "5ms"

[network]
routes = ["203.0.113.0/24", "2001:db8::/32"]
default-route = false
exclude = []
forward = true
masquerade = false
bridge = ""

[[peer]]
name = "laptop"
public-key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
endpoints = ["udp://laptop.example:4740", "udp://[2001:db8::7]:4741"]
allowed-ips = ["192.0.2.2/32", "fd00:7::2/128"]
keepalive = "25s"

[[peer]]
name = "first-sender"
allowed-ips = ["192.0.2.3/32"]
"#;

/// What a file needs at least.
const MINIMAL: &str = r#"local.security = "none"
[[peer]]
name = "b"
endpoints = ["udp://192.0.2.9:4740"]
"#;

fn origin() -> Origin {
    Origin::new("home.toml", "home", Path::new("/etc/adit")).unwrap()
}

fn good(text: &str) -> Config {
    parse(text, &origin()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    parse(text, &origin()).unwrap_err().to_string()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_good_file_means_what_it_says() {
    let key: [u8; 32] = std::array::from_fn(|index| u8::try_from(index + 1).unwrap());
    let expected = Config {
        name: "home".to_owned(),
        device: DeviceConfig {
            name: DeviceName::parse("adit0").unwrap(),
            mode: Mode::Tun,
            addresses: vec![
                InterfaceAddress::Prefix("192.0.2.1/24".parse().unwrap()),
                InterfaceAddress::Prefix("fd00:7::1/64".parse().unwrap()),
                InterfaceAddress::PointToPoint {
                    local: "10.1.1.1".parse().unwrap(),
                    peer: "10.1.1.2/32".parse().unwrap(),
                },
            ],
            mtu: Some(1420),
            queues: 2,
            offload: false,
        },
        local: Local {
            listen: endpoints(&["udp://0.0.0.0:4740", "udp://[::]:4740"]),
            security: Security::None,
            private_key: None,
            ciphers: CipherPolicy::Auto,
            extensions: true,
            rekey_after: Duration::from_secs(120),
            fwmark: None,
            busy_poll: Some(Duration::from_micros(50)),
            poll_max: Duration::from_millis(5),
        },
        network: Network {
            routes: nets(&["203.0.113.0/24", "2001:db8::/32"]),
            forward: true,
            ..Network::default()
        },
        peers: vec![
            Peer {
                name: "laptop".to_owned(),
                public_key: Some(key.into()),
                preshared_key: None,
                endpoints: endpoints(&["udp://laptop.example:4740", "udp://[2001:db8::7]:4741"]),
                allowed_ips: nets(&["192.0.2.2/32", "fd00:7::2/128"]),
                keepalive: Some(Duration::from_secs(25)),
            },
            Peer {
                name: "first-sender".to_owned(),
                public_key: None,
                preshared_key: None,
                endpoints: vec![],
                allowed_ips: nets(&["192.0.2.3/32"]),
                keepalive: None,
            },
        ],
        warnings: vec![],
    };
    assert_eq!(good(GOOD), expected);
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = good(MINIMAL);
    assert_eq!(
        config.device,
        DeviceConfig {
            name: DeviceName::parse("home").unwrap(),
            mode: Mode::Tun,
            addresses: vec![],
            mtu: None,
            queues: 1,
            offload: true,
        }
    );
    assert_eq!(config.local.listen, []);
    assert_eq!(config.local.busy_poll, None);
    assert_eq!(config.network, Network::default());
    assert_eq!(config.peers[0].allowed_ips, nets(&["0.0.0.0/0", "::/0"]));
}

#[test]
fn the_only_peer_of_a_tap_device_owns_no_prefixes() {
    let config = good(&format!("device.mode = \"tap\"\n{MINIMAL}"));
    assert_eq!(config.device.mode, Mode::Tap);
    assert_eq!(config.peers[0].allowed_ips, []);
}

#[test]
fn a_keepalive_or_a_busy_poll_of_zero_is_off() {
    for keepalive in ["0s", "0", "off"] {
        let text = format!("local.busy-poll = \"0s\"\n{MINIMAL}keepalive = \"{keepalive}\"\n");
        let config = good(&text);
        assert_eq!(config.local.busy_poll, None);
        assert_eq!(config.peers[0].keepalive, None);
    }
}

#[test]
fn a_bad_document_is_refused() {
    for (text, message) in [
        ("", "home.toml:1:1: the configuration is empty"),
        ("# nothing\n", "home.toml:1:1: the configuration is empty"),
        ("local.security = \"none\"\n", "home.toml:1:1: no peer; add a [[peer]] table"),
        ("local.security = \"none\"\npeer = []\n", "home.toml:2:8: no peer; add a [[peer]] table"),
        (
            "[device]\nname = adit0\nmtu =\n",
            "home.toml:2:8: string values must be quoted, expected literal string\n\
             home.toml:3:6: string values must be quoted, expected literal string",
        ),
        ("[local]\nsecurity = \"none\"\nsecurity = \"none\"\n", "home.toml:3:1: duplicate key"),
        (
            "[local]\nsecurity = \"none\"\n[peer]\nname = \"b\"\n",
            "home.toml:3:1: peer: expected an array of tables ([[peer]]), found a table",
        ),
    ] {
        assert_eq!(errors(text), message, "{text}");
    }
}

/// Puts lines into one table of the minimal file, at line 3, and compares the errors without the name
/// of the file.
fn refuses(heading: &str, cases: &[(&str, &str)]) {
    let (security, peer) = MINIMAL.split_once('\n').unwrap();
    for (lines, message) in cases {
        let text = match heading {
            "[local]" => format!("# 1\n[local]\n{lines}\nsecurity = \"none\"\n{peer}"),
            "[[peer]]" => format!("{security}\n[[peer]]\n{lines}\n"),
            _ => format!("{security}\n{heading}\n{lines}\n{peer}"),
        };
        assert_eq!(errors(&text).replace("home.toml:", ""), *message, "{text}");
    }
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    refuses(
        "[device]",
        &[
            ("adress = []", r#"3:1: [device]: unknown key "adress"; did you mean "addresses"?"#),
            ("Queue = 1", r#"3:1: [device]: unknown key "Queue"; did you mean "queues"?"#),
            (
                "ip = 1",
                r#"3:1: [device]: unknown key "ip"; known keys are name, mode, addresses, mtu, queues, offload"#,
            ),
            ("routes = []", r#"3:1: [device]: unknown key "routes"; it belongs to [network]"#),
            ("[pear]", r#"3:2: unknown key "pear"; did you mean "peer"?"#),
            (
                "[tunnel]",
                r#"3:2: unknown key "tunnel"; known keys are device, local, network, peer"#,
            ),
            (
                "addresses = [{ local = \"10.1.1.1\", pear = \"10.1.1.2/32\" }]",
                "3:14: [device]: addresses: peer is missing\n\
                 3:36: [device]: unknown key \"pear\"; did you mean \"peer\"?",
            ),
        ],
    );
    refuses(
        "[[peer]]",
        &[(
            "name = \"b\"\nallowed_ips = []\nendpoints = [\"udp://b:1\"]",
            r#"4:1: peer "b": unknown key "allowed_ips"; did you mean "allowed-ips"?"#,
        )],
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_found() {
    refuses(
        "[device]",
        &[
            ("mtu = \"1420\"", "3:7: [device]: mtu: expected an integer, found a string"),
            ("offload = 1.5", "3:11: [device]: offload: expected true or false, found a float"),
            ("name = 2026-11-20", "3:8: [device]: name: expected a string, found a date or a time"),
            ("addresses = \"x\"", "3:13: [device]: addresses: expected an array, found a string"),
            (
                "addresses = [\n1, [],\n\"192.0.2.1/24\"]",
                "4:1: [device]: addresses: expected a string or { local = ..., peer = ... }, found an integer\n\
                 4:4: [device]: addresses: expected a string or { local = ..., peer = ... }, found an array",
            ),
        ],
    );
    refuses(
        "[local]",
        &[
            (
                "busy-poll = 50",
                "3:13: [local]: busy-poll: expected a duration such as \"25s\", found an integer",
            ),
            (
                "private-key-file = []",
                "3:20: [local]: private-key-file: expected a string, found an array\n\
                 3:20: [local]: private-key-file has no meaning with security = \"none\"",
            ),
        ],
    );
    refuses(
        "[network]",
        &[
            (
                "default-route = \"\"",
                "3:17: [network]: default-route: expected true or false, found a string",
            ),
            ("exclude = [{}]", "3:12: [network]: exclude: expected a string, found a table"),
            (
                "source-nat = true",
                "3:14: [network]: source-nat: expected a string or an array, found a boolean",
            ),
            (
                "source-nat = [4]",
                "3:15: [network]: source-nat: expected a string, found an integer",
            ),
        ],
    );
}

#[test]
fn what_this_version_cannot_do_is_refused_by_name() {
    refuses(
        "[local]",
        &[(
            "listen = [\"tcp://0.0.0.0:4740\", \"udp://0.0.0.0:1\", \"unix:///share\"]",
            "3:11: [local]: listen \"tcp://0.0.0.0:4740\" has the transport tcp, which is not supported by this version of adit\n\
                 3:52: [local]: listen \"unix:///share\" has the transport unix, which is not supported by this version of adit",
        )],
    );
    refuses(
        "[[peer]]",
        &[(
            "name = \"b\"\n\nendpoints = [\"exec:ssh b adit\"]",
            "5:14: peer \"b\": endpoints \"exec:ssh b adit\" has the transport exec, which is not supported by this version of adit",
        )],
    );
}

#[test]
fn a_wrong_device_is_refused() {
    refuses(
        "[device]",
        &[
            (
                "name = \"averyverylongname\"",
                r#"3:8: [device]: name "averyverylongname" has 17 octets; the kernel allows 15"#,
            ),
            ("name = \"a/b\"", r#"3:8: [device]: name "a/b" contains '/', which is not allowed"#),
            ("name = \"\"", r#"3:8: [device]: name "" cannot name an interface"#),
            ("mode = \"tunn\"", r#"3:8: [device]: mode "tunn" is neither "tun" nor "tap""#),
            ("mtu = 67", "3:7: [device]: mtu 67 is not in 68..=65535"),
            ("mtu = 99999999999999999999", "3:7: [device]: mtu is not in 68..=65535"),
            ("queues = 0x11", "3:10: [device]: queues 17 is not in 1..=16"),
            ("queues = -1", "3:10: [device]: queues -1 is not in 1..=16"),
            (
                "mtu = 1279\naddresses = [\"fd00::1/64\"]",
                r#"3:7: [device]: mtu 1279 is less than 1280, which the IPv6 address "fd00::1" needs"#,
            ),
            (
                "addresses = [\"192.0.2.1\", \"fd00::1/64\", \"fd00::1/64\"]",
                "3:14: [device]: addresses \"192.0.2.1\" has no prefix length; did you mean \"192.0.2.1/32\"?\n\
                 3:41: [device]: addresses \"fd00::1/64\" is already used at 3:27",
            ),
            (
                "addresses = [{ local = \"10.1.1.1\", peer = \"fd00::1/128\" }]",
                r#"3:43: [device]: peer "fd00::1/128" is not of the family of local "10.1.1.1""#,
            ),
        ],
    );
}

#[test]
fn the_name_of_the_tunnel_may_not_do_for_the_device() {
    let origin = Origin::new("f", "a-name-of-sixteen", Path::new("")).unwrap();
    assert_eq!(
        parse(&format!("{MINIMAL}[device]\n"), &origin).unwrap_err().to_string(),
        "f:5:1: [device]: name is missing, and the name of the tunnel \"a-name-of-sixteen\" has 17 octets; \
         the kernel allows 15"
    );
}

#[test]
fn a_wrong_local_side_is_refused() {
    refuses(
        "[local]",
        &[
            (
                "listen = [\"udp://home.example:4740\"]",
                "3:11: [local]: listen \"udp://home.example:4740\" has the host name \"home.example\", \
                 but this side listens on IP addresses only",
            ),
            (
                "listen = [\"udp://0.0.0.0:1\", \"udp://0.0.0.0:1\"]",
                r#"3:30: [local]: listen "udp://0.0.0.0:1" is already used at 3:11"#,
            ),
            ("busy-poll = \"11ms\"", r#"3:13: [local]: busy-poll "11ms" is not in 0s..=10ms"#),
            (
                "busy-poll = \"soon\"",
                r#"3:13: [local]: busy-poll "soon" is not a duration such as "25s" or "500us""#,
            ),
        ],
    );
}

#[test]
fn a_wrong_peer_is_refused() {
    let b = "name = \"b\"\nendpoints = [\"udp://192.0.2.9:1\"]\n";
    let cases = [
        (
            "allowed-ips = [\"10.0.0.1/8\"]",
            r#"5:16: peer "b": allowed-ips "10.0.0.1/8" has host bits set; did you mean "10.0.0.0/8"?"#,
        ),
        (
            "public-key = \"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA\"",
            r#"5:14: peer "b": public-key has 43 characters; a key has 44"#,
        ),
        (
            "public-key = \"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyB=\"",
            r#"5:14: peer "b": public-key is not the base64 of 32 octets"#,
        ),
        (
            "public-key = \"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw==\"",
            r#"5:14: peer "b": public-key is not the base64 of 32 octets"#,
        ),
        (
            "allowed-ips = []",
            r#"5:15: peer "b": allowed-ips is empty; leave it out to allow everything"#,
        ),
        (
            "keepalive = \"1d\"",
            r#"5:13: peer "b": keepalive "1d" is not in 1s..=65535s, nor "off""#,
        ),
        (
            "keepalive = \"999ms\"",
            r#"5:13: peer "b": keepalive "999ms" is not in 1s..=65535s, nor "off""#,
        ),
    ];
    for (line, message) in cases {
        refuses("[[peer]]", &[(&format!("{b}{line}"), message)]);
    }
    refuses(
        "[[peer]]",
        &[
            ("endpoints = [\"udp://192.0.2.9:1\"]", "2:1: peer 1: name is missing"),
            (
                "name = \"-b\"\nendpoints = [\"udp://192.0.2.9:0\"]",
                "3:8: peer \"-b\": name \"-b\" is not 1 to 64 letters, digits, \"_\", \".\" or \"-\" that begin with \
                 neither \".\" nor \"-\"\n\
                 4:14: peer \"-b\": endpoints \"udp://192.0.2.9:0\" has port 0, which no peer can have",
            ),
            (
                "name = \"b\"",
                r#"2:1: peer "b": endpoints is missing, so that [local] needs listen"#,
            ),
        ],
    );
}

#[test]
fn peers_share_nothing() {
    let text = GOOD.replace(
        r#"name = "first-sender"
allowed-ips = ["192.0.2.3/32"]"#,
        r#"name = "laptop"
public-key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
endpoints = ["udp://LAPTOP.example.:4740"]
allowed-ips = ["192.0.2.3/32", "192.0.2.2/32"]"#,
    );
    assert_eq!(
        errors(&text),
        "home.toml:32:8: peer \"laptop\": name is already used at 25:8\n\
         home.toml:33:14: peer \"laptop\": public-key is already used at 26:14\n\
         home.toml:34:14: peer \"laptop\": endpoints \"udp://laptop.example:4740\" is already used at 27:14\n\
         home.toml:35:32: peer \"laptop\": allowed-ips \"192.0.2.2/32\" is already used at 28:16"
    );
}

#[test]
fn several_peers_need_endpoints_and_allowed_ips() {
    let text = "[local]\nsecurity = \"none\"\n[[peer]]\nname = \"a\"\n[[peer]]\nname = \"b\"\nallowed-ips = []\n";
    assert_eq!(
        errors(text),
        "home.toml:3:1: peer \"a\": endpoints is missing, so that [local] needs listen\n\
         home.toml:3:1: peer \"a\": allowed-ips is missing, which only an only peer may do without\n\
         home.toml:5:1: peer \"b\": endpoints is missing; only one peer may be without, and that is the one at 3:1\n\
         home.toml:5:1: peer \"b\": allowed-ips is missing, which only an only peer may do without"
    );
}

#[test]
fn a_tap_device_has_one_peer_and_no_allowed_ips() {
    let text = format!(
        "device.mode = \"tap\"\n{MINIMAL}allowed-ips = [\"::/0\"]\n\
         [[peer]]\nname = \"c\"\nendpoints = [\"udp://192.0.2.8:1\"]\n"
    );
    assert_eq!(
        errors(&text),
        "home.toml:6:15: peer \"b\": allowed-ips has no meaning for a TAP device\n\
         home.toml:7:1: peer \"c\": a second peer of a TAP device is not supported by this version of adit"
    );
}

#[test]
fn all_errors_of_a_file_are_reported_in_order() {
    let text = GOOD
        .replace("queues = 2", "queues = 99")
        .replace("forward = true", "forwards = true")
        .replace("192.0.2.2/32", "192.0.2.2/24");
    assert_eq!(
        errors(&text),
        "home.toml:7:10: [device]: queues 99 is not in 1..=16\n\
         home.toml:20:1: [network]: unknown key \"forwards\"; did you mean \"forward\"?\n\
         home.toml:28:16: peer \"laptop\": allowed-ips \"192.0.2.2/24\" has host bits set; did you mean \
         \"192.0.2.0/24\"?"
    );
}

#[test]
fn a_list_beyond_its_limit_is_refused() {
    let listen: Vec<_> = (1..=17).map(|port| format!("\"udp://0.0.0.0:{port}\"")).collect();
    refuses(
        "[local]",
        &[(
            &format!("listen = [{}]", listen.join(", ")),
            "3:10: [local]: listen has 17 values, which is more than 16",
        )],
    );
    refuses(
        "[network]",
        &[
            (
                "dns = ['1.0.0.1', '1.0.0.2', '1.0.0.3', '1.0.0.4', '1.0.0.5', '1.0.0.6', '1.0.0.7', '1.0.0.8', '::1']",
                "3:7: [network]: dns has 9 values, which is more than 8",
            ),
            (
                "dns-search = ['a', 'b', 'c', 'd', 'e', 'f', 'g']",
                "3:14: [network]: dns-search has 7 values, which is more than 6",
            ),
        ],
    );
}

#[test]
fn key_material_is_never_repeated() {
    let secret = "cOFfMd9LCy7TZaGRQ4bRD4KBeOM1kLhiZCB1rFPyQ3U=";
    for line in [
        format!("public-key = \"{secret}=\""),
        format!("private-key = \"{secret}\""),
        format!("preshared-key = \"{secret}\""),
        format!("preshared-key-file = \"{secret}\""),
        format!("preshared-key-file = {secret}"),
    ] {
        let text = errors(&format!("{MINIMAL}{line}\n"));
        assert!(!text.contains("cOFf"), "{text}");
    }
}

#[test]
fn a_file_gives_its_tunnel_a_name_that_is_safe() {
    let origin = |path| Origin::from_path(Path::new(path));
    assert_eq!(origin("/etc/adit/home.toml").unwrap().tunnel(), "home");
    assert_eq!(origin("a.b_c-1").unwrap().tunnel(), "a");
    assert_eq!(origin("/etc/wireguard/wg0.conf").unwrap().tunnel(), "wg0");
    assert_eq!(
        origin("-x.toml").unwrap_err().to_string(),
        "read configuration -x.toml: \"-x\" cannot name a tunnel: a name has 1 to 64 letters, digits, \"_\", \
         \".\" or \"-\" and begins with neither \".\" nor \"-\""
    );
    for path in ["", "/", "..", "...toml", ".toml", "a b.toml", "ä.toml"] {
        assert!(matches!(origin(path), Err(ConfigError::Name { .. })), "{path}");
    }
    assert!(Origin::new("f", &"a".repeat(64), Path::new("")).is_ok());
    assert!(Origin::new("f", &"a".repeat(65), Path::new("")).is_err());
}

/// A directory of one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-config-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Loads a file with these contents, and gives the error without the directory's name.
    fn load(&self, octets: &[u8]) -> Result<Config, String> {
        self.loaded(&self.write("home.toml", octets))
    }

    fn write(&self, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, octets).unwrap();
        path
    }

    fn loaded(&self, path: &Path) -> Result<Config, String> {
        let directory = format!("{}/", self.0.display());
        load(path).map_err(|error| error.to_string().replace(&directory, ""))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_file_is_loaded_if_it_is_small_and_text() {
    let directory = Directory::new("load");
    assert_eq!(directory.load(GOOD.as_bytes()).unwrap().name, "home");
    assert_eq!(
        directory.load(b"# \xc3\xbc\n# \xc3\xbc\xff\n").unwrap_err(),
        "home.toml:2:4: not valid UTF-8"
    );
    let mut text = GOOD.to_owned();
    text.push_str(&"#".repeat(MAX_FILE_SIZE - text.len()));
    assert!(directory.load(text.as_bytes()).is_ok());
    text.push('#');
    assert_eq!(
        directory.load(text.as_bytes()).unwrap_err(),
        "read configuration home.toml: it has more than 16777216 octets"
    );
}

#[test]
fn only_a_regular_file_is_loaded() {
    let directory = Directory::new("regular");
    let path = directory.0.join("home");
    assert_eq!(directory.loaded(&path).unwrap_err(), "read configuration home");
    std::fs::create_dir(&path).unwrap();
    assert_eq!(
        directory.loaded(&path).unwrap_err(),
        "read configuration home: it is not a regular file"
    );
    let fifo = directory.0.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(
        directory.loaded(&fifo).unwrap_err(),
        "read configuration fifo: it is not a regular file"
    );
}

#[test]
fn a_large_file_full_of_errors_is_refused_soon() {
    const SIZE: usize = MAX_FILE_SIZE / 8;
    let started = std::time::Instant::now();
    for line in ["a\n", "[[peer]]\n", "[[peer]]\nname=\"b\"\nx.y=1\n", "[[[[", "\"", "peer=[[[["] {
        let text = line.repeat(SIZE / line.len());
        assert!(parse(&text, &origin()).is_err());
    }
    let list = format!("{MINIMAL}allowed-ips=[{}]", "'::/0',".repeat(SIZE / 8));
    assert!(parse(&list, &origin()).is_err());
    let keys: String = (0..SIZE / 8).map(|key| format!("a{key}=1\n")).collect();
    assert!(parse(&keys, &origin()).is_err());
    assert!(started.elapsed() < Duration::from_secs(60));
}

/// Pieces of configurations, right and wrong.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[device]\n"),
        Just("[local]\n"),
        Just("[[peer]]\n"),
        Just("[peer]\n"),
        Just("[network]\n"),
        Just("name="),
        Just("addresses="),
        Just("mtu="),
        Just("listen="),
        Just("endpoints="),
        Just("allowed-ips="),
        Just("keepalive="),
        Just("security="),
        Just("default-route="),
        Just("exclude="),
        Just("source-nat="),
        Just("masquerade="),
        Just("forward="),
        Just("bridge="),
        Just("dns="),
        Just("dns-search="),
        Just("peer"),
        Just("."),
        Just("="),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(","),
        Just("\""),
        Just("'"),
        Just("\"none\""),
        Just("\"udp://[::1]:1\""),
        Just("\"::/0\""),
        Just("-1"),
        Just("0x"),
        Just("1e9"),
        Just("true"),
        Just("\n"),
        Just("\\u0000"),
        Just("ü"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Parses, and holds the errors against what is promised of them.
fn survives(text: &str) {
    if let Err(errors) = parse(text, &origin()) {
        let problems = errors.problems();
        assert!(!problems.is_empty() && problems.len() <= MAX_ERRORS);
        assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
        assert!(problems.iter().all(|problem| !problem.message.contains('\n')));
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_survived(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn arbitrary_pieces_are_survived(text in pieces()) {
        survives(&text);
    }

    #[test]
    fn a_mutated_good_file_is_survived(
        edits in proptest::collection::vec((0..GOOD.len(), 0..30_usize, pieces()), 1..4),
    ) {
        let mut octets = GOOD.as_bytes().to_vec();
        for (start, length, piece) in edits {
            let start = start.min(octets.len());
            let end = (start + length).min(octets.len());
            octets.splice(start..end, piece.into_bytes());
        }
        survives(&String::from_utf8_lossy(&octets));
    }

    #[test]
    fn a_good_file_without_a_line_is_survived(line in 0..GOOD.lines().count()) {
        let lines = GOOD.lines().enumerate().filter(|(index, _)| *index != line);
        survives(&lines.map(|(_, line)| line).collect::<Vec<_>>().join("\n"));
    }
}

#[test]
fn the_examples_of_the_reference_are_good() {
    let reference = include_str!("../../../../docs/configuration.md");
    let blocks: Vec<_> = reference.split("```toml\n").skip(1).collect();
    let examples: Vec<_> = blocks.iter().filter_map(|block| block.split("```").next()).collect();
    let (whole, tables) = examples.split_at(2);
    assert_eq!(good(whole[0]).peers.len(), 2);
    assert_eq!(good(whole[1]).peers.len(), 1);
    let (network, others): (Vec<_>, Vec<_>) =
        tables.iter().copied().partition(|table: &&str| table.contains("[network]"));
    assert_eq!(good(&others.concat()).network, Network::default());
    for example in network {
        let addresses = match example.contains("mode = \"tap\"") {
            true => "",
            false => "device.addresses = [\"192.0.2.1/24\"]\n",
        };
        let text = format!("{addresses}{MINIMAL}{example}");
        assert_ne!(good(&text).network, Network::default(), "{example}");
    }
    let conf = reference.split("```\n[Interface]").nth(1).and_then(|rest| rest.split("```").next());
    let conf = parse_conf(&format!("[Interface]{}", conf.unwrap()), &origin()).unwrap();
    assert!(conf.network.default_route);
}
