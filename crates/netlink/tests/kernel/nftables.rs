//! Tables of nf_tables: read back by nft(8), seen by the sockets at both ends, and gone in time.
//!
//! ```text
//!  client ── to-client  router  to-server ── server
//!       .1 ── .254 10.1.0.0/24     10.2.0.0/24 .254 ── .1        and fd01::/64, fd02::/64
//! ```

mod forward;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netlink::nftables::{self, Family, Hook, OutInterface, OwnedTable, Policy, Rule, Table};
use netlink::{Cause, Netns, Socket, sysctl};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use serde_json::Value;

use crate::namespace::{in_namespace, inside, ip};

/// What a packet that passes may take, with the namespaces of all other tests busy.
const PASSES: Duration = Duration::from_secs(5);
/// How long a connection that should be dropped is tried; TCP repeats its first segment after 1 s.
const DROPPED: Duration = Duration::from_millis(1500);

const CLIENTS: [&str; 2] = ["10.1.0.0/24", "fd01::/64"];
const SERVERS: [&str; 2] = ["10.2.0.1", "fd02::1"];

/// Runs a test in a new namespace, if nft(8) can be asked there.
fn in_filtered_namespace(test: impl FnOnce(&mut Socket) + Send) {
    match Command::new("nft").arg("--version").output() {
        Ok(_) => in_namespace(test),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("needs nft(8): {error}")
        }
        Err(error) => println!("skipped, needs nft(8): {error}"),
    }
}

/// Runs `nft` with one argument in the calling thread's namespace.
fn nft(command: &str) -> Result<String, String> {
    let output = Command::new("nft").arg(command).output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// What `nft -j list` tells of that kind, without the numbers that the kernel gives.
fn listed(what: &str, kind: &str) -> Vec<Value> {
    let output = Command::new("nft").args(["-j", "list"]).args(what.split(' ')).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let objects = answer["nftables"].as_array().unwrap().iter();
    objects
        .filter_map(|object| object.get(kind).cloned())
        .map(|mut object| {
            object.as_object_mut().unwrap().remove("handle");
            object
        })
        .collect()
}

fn chains() -> Vec<Value> {
    listed("chains", "chain")
}

/// The rules of all chains. `list ruleset` would tell them at once, but nft 1.0.6 breaks off when it
/// comes to the owner of a table in JSON.
fn rules() -> Vec<Value> {
    let word = |chain: &Value, key: &str| chain[key].as_str().unwrap().to_owned();
    let name = |chain| ["family", "table", "name"].map(|key| word(chain, key)).join(" ");
    let rules = |chain| listed(&format!("chain {}", name(chain)), "rule");
    chains().iter().flat_map(rules).collect()
}

/// The names of all tables.
fn tables() -> Vec<String> {
    let listed = nft("list tables").unwrap();
    listed.lines().map(|line| line.split(' ').next_back().unwrap().to_owned()).collect()
}

fn table(rules: Vec<Rule>) -> Table {
    Table { name: "adit-home".to_owned(), rules }
}

fn install(rules: Vec<Rule>) -> OwnedTable {
    nftables::Socket::open().unwrap().install(&table(rules)).unwrap()
}

/// Drops a table and waits until it is gone: for a moment a child that another test starts may hold a
/// copy of its descriptor.
fn end(owned: OwnedTable) {
    let name = owned.table().name.clone();
    drop(owned);
    wait_until("the end of the table", || !tables().contains(&name));
}

fn except(name: &str) -> OutInterface {
    OutInterface::Except(name.to_owned())
}

fn every_rule() -> Vec<Rule> {
    let net = |text: &str| text.parse().unwrap();
    let only = OutInterface::Only("eth0".to_owned());
    let device = || "adit0".to_owned();
    vec![
        Rule::Masquerade { source: net("10.7.0.0/16"), out: except("adit0") },
        Rule::Masquerade { source: net("10.7.3.128/25"), out: OutInterface::Any },
        Rule::Masquerade { source: net("10.8.0.9/32"), out: OutInterface::Any },
        Rule::Masquerade { source: net("fd07::/64"), out: only.clone() },
        Rule::Masquerade { source: net("::/0"), out: except("adit0") },
        Rule::SourceNat { source: net("10.9.0.0/24"), to: "192.0.2.1".parse().unwrap(), out: only },
        Rule::SourceNat {
            source: net("fd09::8/125"),
            to: "2001:db8::1".parse().unwrap(),
            out: except("adit0"),
        },
        Rule::ForwardAccept { device: device() },
        Rule::ClampMss { device: device() },
    ]
}

/// The two hosts beside the router, which is the namespace of the calling thread.
struct Hosts {
    client: Netns,
    server: Netns,
}

impl Hosts {
    fn connect(router: &mut Socket) -> Self {
        let hosts = Self { client: Netns::create().unwrap(), server: Netns::create().unwrap() };
        for (link, host, number) in
            [("to-client", &hosts.client, 1), ("to-server", &hosts.server, 2)]
        {
            router.add_veth(link, "eth0", Some(host.as_fd())).unwrap();
            configure(link, number, 254);
            inside(host, || {
                configure("eth0", number, 1);
                ip(&format!("route add default via 10.{number}.0.254"));
                ip(&format!("-6 route add default via fd0{number}::254"));
                // The segment size of a connection is then that of its path, less nothing.
                sysctl::write("net.ipv4.tcp_timestamps", "0").unwrap();
            });
        }
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        sysctl::write("net.ipv6.conf.all.forwarding", "1").unwrap();
        hosts
    }

    /// A TCP connection from the client to the server: both ends.
    fn tcp(&self, to: &str, within: Duration) -> io::Result<(TcpStream, TcpStream)> {
        let to: IpAddr = to.parse().unwrap();
        let listener = inside(&self.server, || TcpListener::bind((to, 0)))?;
        let address = listener.local_addr()?;
        let near = inside(&self.client, || TcpStream::connect_timeout(&address, within))?;
        Ok((near, listener.accept()?.0))
    }

    /// Whom the server takes a datagram of the client for; the answer to it has to reach the client.
    fn udp(&self, to: &str) -> SocketAddr {
        let to: IpAddr = to.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let server = inside(&self.server, || UdpSocket::bind((to, 0))).unwrap();
        let client = inside(&self.client, || UdpSocket::bind(any)).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PASSES)).unwrap();
        }
        client.send(b"ping").unwrap();
        let mut octets = [0; 8];
        let (_, seen) = server.recv_from(&mut octets).unwrap();
        server.send_to(b"pong", seen).unwrap();
        assert_eq!(client.recv(&mut octets).unwrap(), 4);
        seen
    }

    /// Whom the server takes the client for, by TCP and by UDP.
    fn client_as_seen_by(&self, server: &str) -> String {
        let (mut near, mut far) = self.tcp(server, PASSES).unwrap();
        let seen = far.peer_addr().unwrap().ip();
        near.write_all(b"there").unwrap();
        far.read_exact(&mut [0; 5]).unwrap();
        far.write_all(b"back").unwrap();
        near.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(self.udp(server).ip(), seen);
        seen.to_string()
    }

    fn is_dropped(&self, server: &str) -> bool {
        match self.tcp(server, DROPPED) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
                true
            }
        }
    }
}

fn configure(link: &str, number: u32, host: u32) {
    ip(&format!("address add 10.{number}.0.{host}/24 dev {link}"));
    ip(&format!("address add fd0{number}::{host}/64 dev {link} nodad"));
    ip(&format!("link set {link} up"));
}

/// The segment size that the only TCP connection of the namespace sends with, as ss(8) tells it.
fn segment_size(netns: &Netns) -> u32 {
    let output = inside(netns, || Command::new("ss").arg("-tinH").output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    let sizes: Vec<_> = text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("mss:"))
        .map(|size| size.parse().unwrap())
        .collect();
    assert_eq!(sizes.len(), 1, "{text}");
    sizes[0]
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PASSES;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn nft_lists_the_same_as_of_the_commands_that_we_would_show() {
    in_filtered_namespace(|_| {
        let owned = install(every_rule());
        let ours = [chains(), rules()];
        assert_eq!(ours.each_ref().map(Vec::len), [3, 11]);
        let commands = owned.table().as_nft();
        end(owned);
        assert_eq!(nft("list ruleset").unwrap(), "");
        for command in commands {
            let output = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
        }
        assert_eq!([chains(), rules()], ours);
    });
}

#[test]
fn only_the_chains_that_rules_need_are_made() {
    in_filtered_namespace(|_| {
        let mut owned = install(vec![]);
        assert_eq!((tables().len(), chains().len()), (1, 0));
        owned.replace(&table(vec![Rule::ClampMss { device: "adit0".to_owned() }])).unwrap();
        let [chain] = chains().try_into().unwrap();
        assert_eq!((&chain["name"], &chain["prio"]), (&"clamp".into(), &(-150).into()));
        assert_eq!((&chain["hook"], &chain["policy"]), (&"forward".into(), &"accept".into()));
    });
}

#[test]
fn a_masqueraded_client_has_the_routers_address() {
    in_filtered_namespace(|router| {
        let hosts = Hosts::connect(router);
        for (server, own) in SERVERS.into_iter().zip(["10.1.0.1", "fd01::1"]) {
            assert_eq!(hosts.client_as_seen_by(server), own);
        }
        let rules = |out: OutInterface| {
            let masquerade = |source: &str| Rule::Masquerade {
                source: source.parse().unwrap(),
                out: out.clone(),
            };
            table(CLIENTS.map(masquerade).to_vec())
        };
        let mut owned = install(rules(except("to-client")).rules);
        for (server, routers) in SERVERS.into_iter().zip(["10.2.0.254", "fd02::254"]) {
            assert_eq!(hosts.client_as_seen_by(server), routers);
        }
        owned.replace(&rules(except("to-server"))).unwrap();
        for (server, own) in SERVERS.into_iter().zip(["10.1.0.1", "fd01::1"]) {
            assert_eq!(hosts.client_as_seen_by(server), own, "the link is exempted");
        }
    });
}

#[test]
fn a_translated_client_has_the_address_that_was_given() {
    in_filtered_namespace(|router| {
        let hosts = Hosts::connect(router);
        ip("address add 10.2.0.77/24 dev to-server");
        ip("address add fd02::77/64 dev to-server nodad");
        let source_nat = |(source, to): (&str, &str)| Rule::SourceNat {
            source: source.parse().unwrap(),
            to: to.parse().unwrap(),
            out: OutInterface::Only("to-server".to_owned()),
        };
        let pairs = [(CLIENTS[0], "10.2.0.77"), (CLIENTS[1], "fd02::77")];
        let _owned = install(pairs.map(source_nat).to_vec());
        for (server, (_, to)) in SERVERS.into_iter().zip(pairs) {
            assert_eq!(hosts.client_as_seen_by(server), to);
        }
    });
}

#[test]
fn accept_of_ours_does_not_save_a_packet_from_anothers_drop() {
    in_filtered_namespace(|router| {
        let hosts = Hosts::connect(router);
        let _owned = install(vec![Rule::ForwardAccept { device: "to-client".to_owned() }]);
        assert!(!hosts.is_dropped(SERVERS[0]));
        for priority in [-10, 10] {
            nft("add table inet other").unwrap();
            nft(&format!(
                "add chain inet other gate {{ type filter hook forward priority {priority}; \
                 policy drop; }}"
            ))
            .unwrap();
            assert!(hosts.is_dropped(SERVERS[0]), "priority {priority}");

            let chains = nftables::Socket::open().unwrap().base_chains().unwrap();
            let culprit: Vec<_> = chains
                .iter()
                .filter(|chain| chain.hook == Hook::Forward && chain.policy == Policy::Drop)
                .map(|chain| (chain.family, &*chain.table, &*chain.name, chain.priority))
                .collect();
            assert_eq!(culprit, [(Family::Inet, "other", "gate", priority)]);

            nft("add rule inet other gate accept").unwrap();
            assert!(!hosts.is_dropped(SERVERS[0]), "it has to accept by itself");
            nft("delete table inet other").unwrap();
        }
    });
}

#[test]
fn segments_are_clamped_to_the_path_in_both_directions() {
    in_filtered_namespace(|router| {
        let hosts = Hosts::connect(router);
        ip("link set to-server mtu 1320");
        let sizes = |server: &str| {
            let _ends = hosts.tcp(server, PASSES).unwrap();
            (segment_size(&hosts.client), segment_size(&hosts.server))
        };
        assert_eq!(sizes(SERVERS[0]), (1460, 1460));
        for device in ["to-server", "to-client"] {
            let owned = install(vec![Rule::ClampMss { device: device.to_owned() }]);
            assert_eq!(sizes(SERVERS[0]), (1280, 1280), "{device}, less 40 octets of headers");
            assert_eq!(sizes(SERVERS[1]), (1260, 1260), "{device}, less 60 octets of headers");
            end(owned);
        }
        let _owned = install(vec![Rule::ClampMss { device: "adit0".to_owned() }]);
        assert_eq!(sizes(SERVERS[0]), (1460, 1460), "only through the device");
    });
}

#[test]
fn a_table_dies_with_its_socket_and_leaves_the_others() {
    in_filtered_namespace(|_| {
        nft("add table ip theirs").unwrap();
        nft("add chain ip theirs in { type filter hook input priority 5; policy drop; }").unwrap();
        let before = nft("list ruleset").unwrap();
        let owned = install(every_rule());
        assert_eq!(tables(), ["theirs", "adit-home"]);
        assert!(nft("delete table inet adit-home").is_err(), "nobody but the owner");
        end(owned);
        assert_eq!(nft("list ruleset").unwrap(), before);
    });
}

#[test]
fn a_table_dies_with_a_process_that_is_killed() {
    in_filtered_namespace(|_| {
        let owned = install(every_rule());
        let descriptor = owned.as_fd().try_clone_to_owned().unwrap();
        let mut holder =
            Command::new("sleep").arg("600").stdin(Stdio::from(descriptor)).spawn().unwrap();
        drop(owned);
        assert_eq!(tables(), ["adit-home"], "the child holds it");
        holder.kill().unwrap();
        holder.wait().unwrap();
        wait_until("the end of the table", || tables().is_empty());
    });
}

#[test]
fn installing_again_replaces() {
    in_filtered_namespace(|_| {
        let mut owned = install(every_rule());
        let before = [chains(), rules()];
        owned.replace(&table(every_rule())).unwrap();
        assert_eq!([chains(), rules()], before);
        assert_eq!(tables(), ["adit-home"]);

        owned.replace(&Table { name: "adit-away".to_owned(), rules: vec![] }).unwrap();
        assert_eq!(tables(), ["adit-away"]);
        assert_eq!(owned.table().name, "adit-away");
    });
}

#[test]
fn a_refused_transaction_leaves_nothing_and_names_its_step() {
    in_filtered_namespace(|_| {
        nft("add table inet adit-home").unwrap();
        nft("add table inet adit-kept").unwrap();
        let before = nft("list ruleset").unwrap();
        let socket = || nftables::Socket::open().unwrap();
        let error = socket().install(&table(every_rule())).unwrap_err();
        assert!(error.is_exists() && !error.is_unsupported());
        assert_eq!(
            error.to_string(),
            "nftables: add table inet adit-home: File exists (os error 17)"
        );
        assert_eq!(nft("list ruleset").unwrap(), before);

        let other = Table { name: "adit-other".to_owned(), rules: every_rule() };
        let mut owned = socket().install(&other).unwrap();
        let during = nft("list ruleset").unwrap();
        let error = owned.replace(&table(vec![])).unwrap_err();
        assert_eq!(error.operation(), "nftables: add table inet adit-home");
        assert_eq!(nft("list ruleset").unwrap(), during, "the old table stays");
        let error = socket().install(&other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "nftables: add table inet adit-other: Operation not permitted (os error 1)"
        );
        end(owned);
        assert_eq!(nft("list ruleset").unwrap(), before);
    });
}

#[test]
fn a_process_without_the_capability_is_refused_the_whole() {
    in_filtered_namespace(|_| {
        let socket = nftables::Socket::open().unwrap();
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        // Of this thread only, which ends with the test.
        set_capabilities(None, sets).unwrap();
        let error = socket.install(&table(every_rule())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "nftables: install table inet adit-home: Operation not permitted (os error 1)"
        );
        assert!(!error.is_unsupported());
    });
}

#[test]
fn a_rule_that_cannot_be_meant_never_reaches_the_kernel() {
    in_filtered_namespace(|_| {
        let rule = Rule::SourceNat {
            source: "10.0.0.0/8".parse().unwrap(),
            to: "fd00::1".parse().unwrap(),
            out: OutInterface::Any,
        };
        let error = nftables::Socket::open().unwrap().install(&table(vec![rule])).unwrap_err();
        assert_eq!(*error.cause(), Cause::MixedFamilies);
        assert_eq!(tables(), [""; 0]);
    });
}

#[test]
fn the_longest_table_fits_into_a_transaction_and_is_listed() {
    in_filtered_namespace(|_| {
        let name = format!("adit-{}", "n".repeat(nftables::TABLE_NAME_LIMIT - 5));
        let rule = Rule::ClampMss { device: "a23456789012345".to_owned() };
        let longest = Table { name: name.clone(), rules: vec![rule; nftables::RULE_LIMIT] };
        let _owned = nftables::Socket::open().unwrap().install(&longest).unwrap();
        assert_eq!(rules().len(), 2 * nftables::RULE_LIMIT);
        let found = nftables::Socket::open().unwrap().tables().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].name, found[0].owner), (&name, true));
    });
}

#[test]
fn tables_and_base_chains_of_others_are_listed_as_nft_made_them() {
    in_filtered_namespace(|_| {
        for command in [
            "add table ip a",
            "add chain ip a plain",
            "add chain ip a early { type filter hook prerouting priority -300; policy drop; }",
            "add table ip6 b",
            "add chain ip6 b late { type nat hook postrouting priority 100; }",
            "add table bridge c",
            "add chain bridge c out { type filter hook output priority 0; policy accept; }",
            "add table arp d",
            "add chain arp d in { type filter hook input priority 7; policy drop; }",
            "add table netdev e",
            "add chain netdev e lo { type filter hook ingress device lo priority 1; }",
        ] {
            nft(command).unwrap();
        }
        let mut socket = nftables::Socket::open().unwrap();
        let mut names: Vec<_> = socket
            .tables()
            .unwrap()
            .into_iter()
            .map(|table| (table.family.to_string(), table.name, table.owner))
            .collect();
        names.sort();
        let expected = [("arp", "d"), ("bridge", "c"), ("ip", "a"), ("ip6", "b"), ("netdev", "e")];
        assert_eq!(names, expected.map(|(family, name)| (family.into(), name.into(), false)));

        let mut chains: Vec<_> = socket
            .base_chains()
            .unwrap()
            .into_iter()
            .map(|chain| {
                let (family, hook, policy) = (chain.family, chain.hook, chain.policy);
                format!(
                    "{family} {} {} {hook} {} {policy}",
                    chain.table, chain.name, chain.priority
                )
            })
            .collect();
        chains.sort();
        assert_eq!(
            chains,
            [
                "arp d in input 7 drop",
                "bridge c out output 0 accept",
                "ip a early prerouting -300 drop",
                "ip6 b late postrouting 100 accept",
                "netdev e lo ingress 1 accept",
            ]
        );
    });
}
