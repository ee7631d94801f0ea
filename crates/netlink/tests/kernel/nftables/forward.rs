//! Two rules of ours in a chain of somebody else that drops, as nft(8) or iptables-nft(8) makes it.
//!
//! ```text
//!  client ── to-client  router  to-server ── server
//!       .1 ── .254 10.1.0.0/24     10.2.0.0/24 .254 ── .1
//!                       to-other ── other     10.3.0.0/24          and fd01::/64, fd02::/64, fd03::/64
//! ```
//!
//! The tunnel's device is `to-client` where packets travel, else one that there need not be.

use std::os::fd::AsFd as _;
use std::process::Command;

use netlink::nftables::{self, ChainId, Family, Rule, accept_forward_as_nft};
use netlink::{Cause, Error, Netns, Socket};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::{Hosts, configure, end, in_filtered_namespace, install, listed, nft, table};
use crate::namespace::{in_namespace, inside, ip};

const CLIENTS: [&str; 2] = ["10.1.0.1", "fd01::1"];
const SERVERS: [&str; 2] = ["10.2.0.1", "fd02::1"];

/// How often others change the ruleset, as fast as they can, while ours changes.
const CHANGES: usize = 1000;

/// Runs a test in a new namespace, if iptables-nft(8) and nft(8) can be asked there.
fn in_iptables_namespace(test: impl FnOnce(&mut Socket) + Send) {
    match Command::new("iptables-nft").arg("--version").output() {
        Ok(_) => in_filtered_namespace(test),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("needs iptables-nft(8): {error}")
        }
        Err(error) => println!("skipped, needs iptables-nft(8): {error}"),
    }
}

fn chain(family: Family, table: &str, chain: &str) -> ChainId {
    ChainId { family, table: table.to_owned(), chain: chain.to_owned() }
}

fn socket() -> nftables::Socket {
    nftables::Socket::open().unwrap()
}

/// Runs a command of a shell in the calling thread's namespace; its output.
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Everything that nft(8) and iptables-nft(8) tell of the namespace, but for counters.
fn everything() -> [String; 5] {
    [
        "nft -s -a list ruleset",
        "iptables-nft -S",
        "iptables-nft -t mangle -S",
        "ip6tables-nft -S",
        "ip6tables-nft -t mangle -S",
    ]
    .map(sh)
}

/// The rules of a chain as nft(8) shows them, without what it counted.
fn rules_of(id: &ChainId) -> Vec<String> {
    let listed = sh(&format!("nft -s list chain {id}"));
    let rules = listed.lines().map(str::trim).filter(|line| line.contains("counter"));
    rules.map(str::to_owned).collect()
}

/// Our rules for `adit0` as nft(8) shows them, with the states in the order of the dialect.
fn ours(states: &str) -> [String; 2] {
    [
        "iifname \"adit0\" counter accept comment \"adit adit0\"".to_owned(),
        format!("oifname \"adit0\" ct state {states} counter accept comment \"adit adit0\""),
    ]
}

/// The chain of iptables-nft(8) for IPv4, which drops.
fn iptables_forward() -> ChainId {
    sh("iptables-nft -P FORWARD DROP");
    chain(Family::Ipv4, "filter", "FORWARD")
}

/// A chain of ours that drops.
fn drop_chain() -> ChainId {
    let id = chain(Family::Inet, "gate", "forward");
    socket().add_drop_chain(&id).unwrap();
    id
}

/// Hosts on other sides of the router.
fn turned(client: &Netns, server: &Netns) -> Hosts {
    let copy = |netns: &Netns| Netns::from(netns.as_fd().try_clone_to_owned().unwrap());
    Hosts { client: copy(client), server: copy(server) }
}

/// A third host beside the router.
fn connect_other(router: &mut Socket) -> Netns {
    let other = Netns::create().unwrap();
    router.add_veth("to-other", "eth0", Some(other.as_fd())).unwrap();
    configure("to-other", 3, 254);
    inside(&other, || {
        configure("eth0", 3, 1);
        ip("route add default via 10.3.0.254");
        ip("-6 route add default via fd03::254");
    });
    other
}

/// Packets from the client and the answers to them pass by TCP and UDP, and nothing else does.
fn only_the_clients_connections_pass(router: &mut Socket, id: &ChainId, version: usize) {
    let hosts = Hosts::connect(router);
    let other = connect_other(router);
    let (to_client, to_server) = (CLIENTS[version], SERVERS[version]);
    assert!(hosts.is_dropped(to_server), "nothing is accepted yet");
    let before = everything();

    let mut socket = socket();
    socket.accept_forward(id, "to-client").unwrap();
    assert!(socket.accepts_forward(id, "to-client").unwrap());
    assert_eq!(hosts.client_as_seen_by(to_server), to_client);
    assert!(turned(&hosts.server, &hosts.client).is_dropped(to_client), "no answer to anything");
    assert!(turned(&other, &hosts.server).is_dropped(to_server), "another device");

    assert!(socket.withdraw_forward(id, "to-client").unwrap());
    assert!(!socket.accepts_forward(id, "to-client").unwrap());
    assert_eq!(everything(), before);
    assert!(hosts.is_dropped(to_server), "nothing is accepted any more");
}

#[test]
fn the_clients_connections_pass_a_chain_that_nft_made() {
    in_iptables_namespace(|router| {
        let id = chain(Family::Inet, "gate", "forward");
        nft("add table inet gate").unwrap();
        nft("add chain inet gate forward { type filter hook forward priority 5; policy drop; }")
            .unwrap();
        nft("add rule inet gate forward ip daddr 10.99.0.1 drop").unwrap();
        only_the_clients_connections_pass(router, &id, 0);
    });
}

#[test]
fn the_clients_connections_pass_the_chain_of_iptables() {
    in_iptables_namespace(|router| {
        sh("iptables-nft -P FORWARD DROP && iptables-nft -A FORWARD -d 10.99.0.1 -j DROP");
        only_the_clients_connections_pass(router, &chain(Family::Ipv4, "filter", "FORWARD"), 0);
    });
}

#[test]
fn the_clients_connections_pass_the_chain_of_ip6tables() {
    in_iptables_namespace(|router| {
        sh("ip6tables-nft -P FORWARD DROP && ip6tables-nft -A FORWARD -d fd99::1 -j DROP");
        only_the_clients_connections_pass(router, &chain(Family::Ipv6, "filter", "FORWARD"), 1);
    });
}

#[test]
fn a_chain_that_drops_or_rejects_at_its_end_is_told_from_one_that_does_not() {
    in_filtered_namespace(|_| {
        nft("add table inet t").unwrap();
        for (number, (rules, expected)) in [
            (&["reject with icmpx admin-prohibited"][..], true),
            (&["ct state established accept", "counter log drop"], true),
            (&["iifname lo accept", "reject with tcp reset"], false),
            (&["drop", "accept"], false),
            (&["iifname lo drop"], false),
            (&["limit rate 1/second drop"], false),
            (&[], false),
        ]
        .into_iter()
        .enumerate()
        {
            let id = chain(Family::Inet, "t", &format!("c{number}"));
            nft(&format!("add chain {id} {{ type filter hook forward priority 0; }}")).unwrap();
            rules.iter().for_each(|rule| _ = nft(&format!("add rule {id} {rule}")).unwrap());
            assert_eq!(socket().ends_in_drop(&id).unwrap(), expected, "{rules:?}");
        }
        assert!(!socket().ends_in_drop(&chain(Family::Inet, "t", "none")).unwrap());
    });
}

#[test]
fn a_chain_of_iptables_that_rejects_at_its_end_is_one() {
    in_iptables_namespace(|_| {
        sh("iptables-nft -A FORWARD -i lo -j ACCEPT");
        assert!(!socket().ends_in_drop(&iptables_forward()).unwrap());
        for target in ["REJECT", "DROP"] {
            sh(&format!("iptables-nft -A FORWARD -m comment --comment last -j {target}"));
            assert!(socket().ends_in_drop(&iptables_forward()).unwrap(), "{target}");
            sh("iptables-nft -D FORWARD 2");
        }
    });
}

#[test]
fn iptables_lists_our_rules_at_the_head_of_its_chain_and_what_it_had() {
    in_iptables_namespace(|_| {
        let tables = ["filter", "mangle"];
        let programs = [("iptables-nft", Family::Ipv4), ("ip6tables-nft", Family::Ipv6)];
        for (program, family) in programs {
            for table in tables {
                sh(&format!("{program} -t {table} -P FORWARD DROP"));
                sh(&format!("{program} -t {table} -A FORWARD -i eth7 -m state --state NEW -j LOG"));
                let id = chain(family, table, "FORWARD");
                socket().accept_forward(&id, "adit0").unwrap();
                let shown = sh(&format!("{program} -t {table} -S FORWARD"));
                assert_eq!(
                    shown.lines().collect::<Vec<_>>(),
                    [
                        "-P FORWARD DROP",
                        "-A FORWARD -i adit0 -m comment --comment \"adit adit0\" -j ACCEPT",
                        "-A FORWARD -o adit0 -m conntrack --ctstate RELATED,ESTABLISHED \
                         -m comment --comment \"adit adit0\" -j ACCEPT",
                        "-A FORWARD -i eth7 -m state --state NEW -j LOG",
                    ]
                );
                assert!(sh(&format!("{program} -t {table} -L -v -n")).contains("adit adit0"));
                assert_eq!(rules_of(&id)[..2], ours("related,established"));
            }
        }
    });
}

#[test]
fn our_rules_are_known_again_after_iptables_saved_and_restored_them() {
    in_iptables_namespace(|_| {
        let id = iptables_forward();
        let before = sh("iptables-nft -S");
        socket().accept_forward(&id, "adit0").unwrap();
        sh("iptables-nft-save > /dev/null && iptables-nft-save | iptables-nft-restore");
        assert!(socket().accepts_forward(&id, "adit0").unwrap());
        assert!(socket().withdraw_forward(&id, "adit0").unwrap());
        assert_eq!(sh("iptables-nft -S"), before);
    });
}

#[test]
fn the_commands_that_we_would_show_make_the_same_rules() {
    in_iptables_namespace(|_| {
        for id in [drop_chain(), iptables_forward()] {
            socket().accept_forward(&id, "adit0").unwrap();
            let shown = || (listed(&format!("chain {id}"), "rule"), sh("iptables-nft -S"));
            let (by_nft, by_iptables) = shown();
            assert!(socket().withdraw_forward(&id, "adit0").unwrap());
            for command in accept_forward_as_nft(&id, "adit0") {
                sh(&command);
            }
            let (rules, specifications) = shown();
            assert_eq!(specifications, by_iptables);
            if id.family == Family::Inet {
                assert_eq!(rules, by_nft);
            }
            assert!(socket().accepts_forward(&id, "adit0").unwrap());
            assert!(socket().withdraw_forward(&id, "adit0").unwrap());
        }
    });
}

#[test]
fn accepting_again_leaves_two_rules_and_puts_back_one_that_was_lost() {
    in_iptables_namespace(|_| {
        let id = drop_chain();
        let mut socket = socket();
        socket.accept_forward(&id, "adit0").unwrap();
        nft(&format!("insert rule {id} ip daddr 10.99.0.1 counter drop")).unwrap();
        socket.accept_forward(&id, "adit0").unwrap();
        let rules = rules_of(&id);
        assert_eq!(rules[..2], ours("established,related"));
        assert_eq!(rules[2..], ["ip daddr 10.99.0.1 counter drop"]);

        let first = sh(&format!("nft -a list chain {id} | grep -m 1 iifname | sed 's/.*# //'"));
        nft(&format!("delete rule {id} {}", first.trim())).unwrap();
        assert!(!socket.accepts_forward(&id, "adit0").unwrap(), "one is lost");
        socket.accept_forward(&id, "adit0").unwrap();
        assert_eq!(rules_of(&id), rules);
    });
}

#[test]
fn rules_without_our_very_mark_stay() {
    in_iptables_namespace(|_| {
        let id = drop_chain();
        let other = chain(Family::Inet, "gate", "other");
        nft(&format!("add chain {other}")).unwrap();
        for rule in [
            "iifname adit0 counter accept",
            "iifname adit0 counter accept comment \"adit adit00\"",
            "iifname adit0 counter accept comment \"adit\"",
        ] {
            nft(&format!("add rule {id} {rule}")).unwrap();
        }
        nft(&format!("add rule {other} counter accept comment \"adit adit0\"")).unwrap();
        let before = everything();
        let mut socket = socket();
        assert!(!socket.accepts_forward(&id, "adit0").unwrap());
        assert!(!socket.withdraw_forward(&id, "adit0").unwrap());
        socket.accept_forward(&id, "adit1").unwrap();
        socket.accept_forward(&id, "a23456789012345").unwrap();
        socket.accept_forward(&id, "adit0").unwrap();
        for device in ["adit0", "a23456789012345", "adit1"] {
            assert!(socket.accepts_forward(&id, device).unwrap(), "{device}");
            assert!(socket.withdraw_forward(&id, device).unwrap(), "{device}");
            assert!(!socket.withdraw_forward(&id, device).unwrap(), "{device}");
        }
        assert_eq!(everything(), before);
    });
}

#[test]
fn a_chain_that_is_gone_needs_nothing_withdrawn() {
    in_iptables_namespace(|_| {
        let mut socket = socket();
        let mut nowhere = vec![chain(Family::Inet, "none", "forward")];
        nowhere.push(ChainId { chain: "none".to_owned(), ..drop_chain() });
        nowhere.push(chain(Family::Ipv4, "gate", "forward"));
        for id in nowhere {
            assert!(!socket.accepts_forward(&id, "adit0").unwrap(), "{id}");
            assert!(!socket.withdraw_forward(&id, "adit0").unwrap(), "{id}");
            let error = socket.accept_forward(&id, "adit0").unwrap_err();
            assert!(error.is_not_found(), "{error}");
            assert!(error.operation().contains(&format!("insert rule {id} oifname")), "{error}");
        }
    });
}

#[test]
fn a_chain_that_another_socket_owns_is_named() {
    in_iptables_namespace(|_| {
        let _owned = install(vec![Rule::ForwardAccept { device: "adit0".to_owned() }]);
        let id = chain(Family::Inet, "adit-home", "forward");
        let error = socket().accept_forward(&id, "adit0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "nftables: insert rule inet adit-home forward oifname \"adit0\" ct state \
             established,related counter accept comment \"adit adit0\": \
             Operation not permitted (os error 1)"
        );
        assert!(!socket().withdraw_forward(&id, "adit0").unwrap(), "nothing bears the mark");
    });
}

#[test]
fn what_cannot_be_meant_or_is_not_allowed_changes_nothing() {
    in_iptables_namespace(|_| {
        let id = drop_chain();
        let before = everything();
        let mut socket = socket();
        for device in ["", "a234567890123456", "a\0b"] {
            assert_eq!(*socket.accept_forward(&id, device).unwrap_err().cause(), Cause::Name);
        }
        let long = "n".repeat(100_000);
        for id in [chain(Family::Inet, &long, "forward"), chain(Family::Inet, "gate", &long)] {
            for error in [
                socket.accept_forward(&id, "adit0").unwrap_err(),
                socket.withdraw_forward(&id, "adit0").unwrap_err(),
                socket.add_drop_chain(&id).unwrap_err(),
            ] {
                assert_eq!(error.errno(), Some(Errno::RANGE));
            }
        }
        assert!(socket.add_drop_chain(&id).unwrap_err().is_exists());

        let mut sets = capabilities(None).unwrap();
        let whole = sets.effective;
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        // Of this thread only.
        set_capabilities(None, sets).unwrap();
        let refused = [
            socket.accept_forward(&id, "adit0").unwrap_err(),
            socket.accepts_forward(&id, "adit0").unwrap_err(),
            socket.withdraw_forward(&id, "adit0").unwrap_err(),
            socket.add_drop_chain(&id).unwrap_err(),
        ];
        sets.effective = whole;
        set_capabilities(None, sets).unwrap();
        for error in refused {
            assert_eq!(error.errno(), Some(Errno::PERM));
            assert!(error.to_string().contains("inet gate forward"), "{error}");
        }
        assert_eq!(everything(), before);
    });
}

#[test]
fn in_a_storm_of_changes_rules_come_and_go_whole_or_stay_as_they_were() {
    in_iptables_namespace(|_| {
        let id = drop_chain();
        let before = everything();
        let namespace = Netns::current().unwrap();
        let mut socket = socket();
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| {
                namespace.enter().unwrap();
                let mut owned = install(vec![]);
                for _ in 0..CHANGES {
                    owned.replace(&table(vec![])).unwrap();
                }
                end(owned);
            });
            while !storm.is_finished() {
                for outcome in [
                    socket.accept_forward(&id, "adit0"),
                    socket.withdraw_forward(&id, "adit0").map(drop),
                ] {
                    let cause = outcome.as_ref().map_err(Error::cause);
                    assert!(matches!(cause, Ok(()) | Err(Cause::Interrupted)), "{outcome:?}");
                }
            }
        });
        socket.accept_forward(&id, "adit0").unwrap();
        assert_eq!(rules_of(&id), ours("established,related"));
        assert!(socket.withdraw_forward(&id, "adit0").unwrap());
        assert_eq!(everything(), before);
    });
}

#[test]
fn legacy_iptables_is_noticed_where_it_filters() {
    in_namespace(|_| {
        assert_eq!(nftables::legacy_filter(), (false, false));
        for (program, found) in
            [("iptables-legacy", (true, false)), ("ip6tables-legacy", (true, true))]
        {
            match Command::new(program).args(["-t", "filter", "-S"]).output() {
                Ok(output) if output.status.success() => {
                    assert_eq!(nftables::legacy_filter(), found, "{program}");
                }
                Ok(output) => {
                    let complaint = String::from_utf8_lossy(&output.stderr);
                    println!("skipped, the kernel has no legacy tables: {complaint}");
                    return;
                }
                Err(error) if std::env::var("CI").as_deref() == Ok("true") => {
                    panic!("needs {program}(8): {error}")
                }
                Err(error) => {
                    println!("skipped, needs {program}(8): {error}");
                    return;
                }
            }
        }
    });
}
