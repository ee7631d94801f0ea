//! Every finding, from a host that has nothing wrong but that.

use std::path::Path;

use ::device::Holder;
use netlink::nftables::{BaseChain, Family, FoundTable, Hook, Policy};
use netlink::{Address, Link, LinkIndex, PROTOCOL_STATIC, Route, TABLE_MAIN, TunLink, TunMode};

use super::*;
use crate::config::{self, Origin};

const LOOPBACK: LinkIndex = LinkIndex(1);
const UPLINK: LinkIndex = LinkIndex(2);
const TUNNEL: LinkIndex = LinkIndex(3);

/// The process that has the tunnel up.
const PROCESS: u32 = 100;

const CONFIG: &str = r#"
device.addresses = ["192.0.2.1/24"]
local.listen = ["udp://0.0.0.0:4740"]
local.security = "none"
network.routes = ["203.0.113.0/24"]
network.masquerade = true
[[peer]]
name = "b"
endpoints = ["udp://198.51.100.2:4740"]
"#;

fn link(index: LinkIndex, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu,
        up: true,
        carrier: true,
        loopback: index == LOOPBACK,
        kind: None,
        mac: None,
        master: None,
        tun: None,
    }
}

fn tun(mode: TunMode) -> TunLink {
    TunLink {
        mode,
        owner: None,
        group: None,
        packet_info: false,
        vnet_hdr: true,
        persistent: false,
        multi_queue: false,
        queues: 0,
        disabled_queues: 0,
    }
}

fn route(destination: &str, link: LinkIndex) -> Route {
    Route { link: Some(link), ..Route::new(destination.parse().unwrap()) }
}

/// A host with an uplink, without a tunnel.
fn host() -> Observed {
    let mut uplink = route("0.0.0.0/0", UPLINK);
    uplink.via = Some("198.51.100.1".parse().unwrap());
    let setting = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Observed {
        node: Node::Usable,
        kernel: "6.18.0".to_owned(),
        filter: Filter::Known { chains: vec![], tables: vec![] },
        legacy: (false, false),
        links: vec![link(LOOPBACK, "lo", 65536), link(UPLINK, "eth0", 1500)],
        addresses: vec![],
        routes: vec![uplink],
        sysctls: [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.eth0.rp_filter", "2"),
            ("net.ipv4.conf.home.rp_filter", "2"),
        ]
        .map(setting)
        .into(),
        resolver: Resolver::Resolved,
        tunnel: None,
    }
}

fn configured(text: &str) -> config::Config {
    let origin = Origin::new("home.toml", "home", Path::new("/etc/adit")).unwrap();
    config::parse(text, &origin).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The same host with a tunnel that runs and has all that it needs.
fn up(text: &str) -> Observed {
    let mut observed = host();
    let config = configured(text);
    let holder = Holder { pid: PROCESS, command: "adit".to_owned(), only_here: true };
    let inner = observed::inner_networks(&config);
    observed.tunnel = Some(ObservedTunnel {
        running: Some(PROCESS),
        own: vec![PROCESS],
        holders: vec![holder],
        endpoints: vec![ObservedEndpoint {
            peer: "b".to_owned(),
            endpoint: config.peers[0].endpoints[0].clone(),
            first: true,
            remote: Ok("198.51.100.2:4740".parse().unwrap()),
            way: Ok(route("198.51.100.2/32", UPLINK)),
        }],
        ways: inner.iter().map(|net| (*net, Ok(route(&net.to_string(), TUNNEL)))).collect(),
        listeners: vec![],
        config,
    });
    observed.links.push(Link { tun: Some(tun(TunMode::Tun)), ..link(TUNNEL, "home", 1472) });
    let local = "192.0.2.1/24".parse().unwrap();
    observed.addresses.push(Address { link: TUNNEL, local, peer: None });
    observed.routes.extend(inner.iter().map(|net| route(&net.to_string(), TUNNEL)));
    observed.filter = Filter::Known { chains: vec![], tables: vec![table("adit-home", true)] };
    observed
}

/// The host before the tunnel is up.
fn not_up(text: &str) -> Observed {
    let mut observed = Observed { tunnel: up(text).tunnel, ..host() };
    let tunnel = tunnel(&mut observed);
    (tunnel.running, tunnel.own, tunnel.holders) = (None, vec![], vec![]);
    tunnel.ways.clear();
    observed
}

fn tunnel(observed: &mut Observed) -> &mut ObservedTunnel {
    observed.tunnel.as_mut().unwrap()
}

fn tunnel_link(observed: &mut Observed) -> &mut Link {
    observed.links.iter_mut().find(|link| link.index == TUNNEL).unwrap()
}

fn set(observed: &mut Observed, key: &str, value: &str) {
    observed.sysctls.insert(key.to_owned(), value.to_owned());
}

fn table(name: &str, owner: bool) -> FoundTable {
    FoundTable { family: Family::Inet, name: name.to_owned(), owner }
}

fn drop_chain(accepts: bool) -> Chain {
    let chain = BaseChain {
        family: Family::Ipv4,
        table: "filter".to_owned(),
        name: "FORWARD".to_owned(),
        hook: Hook::Forward,
        priority: 0,
        policy: Policy::Drop,
    };
    Chain { chain, accepts }
}

fn add_chain(observed: &mut Observed, chain: Chain) {
    let Filter::Known { chains, .. } = &mut observed.filter else { panic!("no filter") };
    chains.push(chain);
}

/// What is found, one a line: severity, subject, sentence.
fn found(observed: &Observed) -> String {
    let line = |it: Finding| format!("{}: {}: {}", it.severity, it.subject, it.says);
    diagnose(observed).into_iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_host_and_a_tunnel_without_fault_have_no_findings() {
    assert_eq!(found(&host()), "");
    assert_eq!(found(&up(CONFIG)), "");
    assert!(examine(&up(CONFIG)).iter().all(|check| !check.fine.is_empty()));
}

#[test]
fn a_tunnel_that_is_not_up_is_a_note_and_lacks_nothing_that_it_brings() {
    let mut observed = not_up(CONFIG);
    set(&mut observed, "net.ipv4.ip_forward", "0");
    set(&mut observed, "net.ipv4.conf.all.rp_filter", "1");
    add_chain(&mut observed, drop_chain(false));
    assert_eq!(
        found(&observed),
        "note: tunnel home: it is not running, so that only what would keep it from running is looked at\n\
         note: chain ip filter FORWARD: it drops what is forwarded; \"adit up\" adds two rules that accept"
    );
}

#[test]
fn without_the_driver_there_is_no_device() {
    for (node, says) in [
        (
            Node::Missing("open /dev/net/tun: No such file".to_owned()),
            "the tun driver is not there, so that there can be no device",
        ),
        (
            Node::Forbidden("open /dev/net/tun: Permission denied".to_owned()),
            "the tun driver may not be used by this user, so that there can be no device",
        ),
        (Node::Foreign, "something else stands in the place of the tun driver"),
        (Node::Failed("open: Input/output error".to_owned()), "the tun driver cannot be opened"),
    ] {
        let observed = Observed { node, ..host() };
        assert_eq!(found(&observed), format!("stops: /dev/net/tun: {says}"));
    }
}

#[test]
fn an_old_kernel_carries_udp_packet_by_packet() {
    let observed = Observed { kernel: "6.1.0-18-amd64".to_owned(), ..host() };
    assert_eq!(
        found(&observed),
        "degrades: kernel: its tun driver does not segment UDP, so that UDP is carried packet by packet"
    );
}

#[test]
fn the_host_in_general_is_told_in_notes() {
    let mut observed = Observed {
        resolver: Resolver::File(vec![]),
        routes: vec![],
        legacy: (true, false),
        ..host()
    };
    set(&mut observed, "net.ipv4.ip_forward", "0");
    set(&mut observed, "net.ipv4.conf.eth0.rp_filter", "1");
    add_chain(&mut observed, drop_chain(false));
    assert_eq!(
        found(&observed),
        "note: /etc/resolv.conf: it names no server, so that names of endpoints can hardly be looked up\n\
         note: default route: there is none, so that only networks with a route of their own are reached\n\
         note: rp_filter: eth0 let in only packets whose answer leaves by the same link\n\
         note: sysctl net.ipv4.ip_forward: this host does not forward IPv4 packets from one link to another\n\
         note: chain ip filter FORWARD: it drops what this host forwards, unless a rule accepts it\n\
         note: iptables-legacy: there are rules of legacy iptables, which cannot be looked at from here and \
         may drop packets"
    );
}

#[test]
fn a_filter_that_is_missing_or_hidden_is_told() {
    let says = "the kernel has no nf_tables, without which no tunnel can forward or translate";
    let missing = || Filter::Missing("protocol not supported".to_owned());
    let without = Observed { filter: missing(), ..host() };
    assert_eq!(found(&without), format!("degrades: nf_tables: {says}"));
    let needed = Observed { filter: missing(), ..up(CONFIG) };
    assert_eq!(found(&needed), format!("stops: nf_tables: {says}"));
    let hidden = Filter::Unknown("Operation not permitted".to_owned());
    assert_eq!(
        found(&Observed { filter: hidden, ..up(CONFIG) }),
        "note: nf_tables: the packet filter cannot be looked at, so that nothing is said about it"
    );
}

#[test]
fn a_device_that_is_lost_or_of_another_kind_stops() {
    let mut observed = up(CONFIG);
    observed.links.pop();
    assert_eq!(
        found(&observed),
        "stops: device home: it is not there, although process 100 has the tunnel up"
    );
    let mut observed = not_up(CONFIG);
    observed.links.push(link(TUNNEL, "home", 1500));
    assert!(found(&observed).starts_with(
        "stops: device home: an interface that is neither TUN nor TAP has this name, so that the tunnel \
         cannot have it\n"
    ));
    let mut observed = up(CONFIG);
    tunnel_link(&mut observed).tun = Some(tun(TunMode::Tap));
    assert_eq!(
        found(&observed),
        "stops: device home: it is a tap device, and the tunnel needs a tun device"
    );
}

#[test]
fn a_foreign_process_at_the_device_stops_and_a_child_of_the_tunnel_does_not() {
    let mut observed = up(CONFIG);
    let holder = |pid| Holder { pid, command: "cat".to_owned(), only_here: true };
    tunnel(&mut observed).holders.extend([holder(101), holder(102)]);
    tunnel(&mut observed).own.push(101);
    assert_eq!(
        found(&observed),
        "stops: device home: process 102 (cat) is attached to it and takes its packets"
    );
    tunnel(&mut observed).holders[2].only_here = false;
    assert_eq!(
        found(&observed),
        "note: device home: process 102 (cat) is attached to it, or to one of this name in another namespace"
    );
}

#[test]
fn a_device_that_is_down_or_lost_its_address_stops() {
    let mut observed = up(CONFIG);
    tunnel_link(&mut observed).up = false;
    observed.addresses.clear();
    assert_eq!(
        found(&observed),
        "stops: device home: it is down, so that nothing goes into the tunnel or comes out of it\n\
         stops: device home: it lacks the address 192.0.2.1/24, so that packets for it go nowhere"
    );
}

#[test]
fn both_ends_of_a_link_are_the_address() {
    let text =
        CONFIG.replace("\"192.0.2.1/24\"", "{ local = \"10.1.1.1\", peer = \"10.1.1.2/32\" }");
    let mut observed = up(&text);
    let local = "10.1.1.1/32".parse().unwrap();
    let peer = Some("10.1.1.2/32".parse().unwrap());
    observed.addresses = vec![Address { link: TUNNEL, local, peer }];
    assert_eq!(found(&observed), "");
    observed.addresses[0].peer = Some("10.1.1.3/32".parse().unwrap());
    assert!(found(&observed).contains("it lacks the address 10.1.1.1 peer 10.1.1.2/32"));
}

#[test]
fn an_endpoint_that_is_not_reached_stops() {
    let endpoint = "peer b, endpoint udp://198.51.100.2:4740";
    let mut observed = not_up(CONFIG);
    tunnel(&mut observed).endpoints[0].way = Err("Network is unreachable".to_owned());
    assert!(found(&observed).starts_with(&format!(
        "stops: {endpoint}: there is no way to it, so that no datagram leaves\n"
    )));
    let mut observed = up(CONFIG);
    tunnel(&mut observed).endpoints[0].remote = Err("Name or service not known".to_owned());
    assert_eq!(
        found(&observed),
        format!(
            "stops: {endpoint}: its name cannot be looked up, so that nobody knows where the peer is"
        )
    );
    tunnel(&mut observed).endpoints[0].first = false;
    assert!(found(&observed).starts_with("degrades: "));
}

#[test]
fn an_endpoint_in_the_tunnel_itself_stops() {
    let mut observed = up(CONFIG);
    tunnel(&mut observed).endpoints[0].way = Ok(route("198.51.100.2/32", TUNNEL));
    assert_eq!(
        found(&observed),
        "stops: peer b, endpoint udp://198.51.100.2:4740: the way to it leads into the tunnel itself, so that \
         datagrams go round in circles"
    );
}

#[test]
fn a_link_without_carrier_on_the_way_stops() {
    let mut observed = up(CONFIG);
    observed.links[1].carrier = false;
    assert_eq!(
        found(&observed),
        "stops: peer b, endpoint udp://198.51.100.2:4740: the link eth0 on the way to it is down or has no \
         carrier"
    );
}

#[test]
fn an_mtu_is_too_large_by_one_octet() {
    let mut observed = up(CONFIG);
    tunnel_link(&mut observed).mtu = 1473;
    assert_eq!(
        found(&observed),
        "degrades: device home: its MTU of 1473 makes datagrams that are larger than the 1500 octets of the \
         way to peer b, so that large packets travel in fragments or are lost"
    );
    assert_eq!(diagnose(&observed)[0].mend, "mtu = 1472 in [device], or none at all");
    let observed = not_up(&CONFIG.replace("local.l", "device.mtu = 1473\nlocal.l"));
    assert!(found(&observed).starts_with("degrades: device home: its MTU of 1473"));
    let mut observed = up(CONFIG);
    let way = Route { mtu: Some(1400), ..route("198.51.100.2/32", UPLINK) };
    tunnel(&mut observed).endpoints[0].way = Ok(way);
    assert!(found(&observed).contains("than the 1400 octets"));
}

#[test]
fn a_port_that_is_taken_stops_a_tunnel_that_is_not_up() {
    let taken = |local: &str| Listener {
        local: local.parse().unwrap(),
        process: Some((7, "named".to_owned())),
    };
    let mut observed = not_up(CONFIG);
    tunnel(&mut observed).listeners = vec![taken("198.51.100.9:4740")];
    assert!(found(&observed).starts_with(
        "stops: listen udp://0.0.0.0:4740: process 7 (named) has the port already, so that the tunnel cannot \
         listen there\n"
    ));
    tunnel(&mut observed).listeners = vec![taken("0.0.0.0:4741"), taken("[::1]:4740")];
    assert!(!found(&observed).contains("stops"));
    let mut observed = up(CONFIG);
    tunnel(&mut observed).listeners = vec![taken("0.0.0.0:4740")];
    assert_eq!(found(&observed), "");
}

#[test]
fn an_inner_network_that_leaves_by_another_link_stops() {
    let mut observed = up(CONFIG);
    tunnel(&mut observed).ways[0].1 = Ok(route("203.0.113.1/32", UPLINK));
    assert_eq!(
        found(&observed),
        "stops: route 203.0.113.0/24: packets for it leave by eth0 and not by the tunnel"
    );
    tunnel(&mut observed).ways[0].1 = Err("No route to host".to_owned());
    assert_eq!(found(&observed), "stops: route 203.0.113.0/24: packets for it go nowhere");
}

#[test]
fn a_longer_route_of_others_takes_a_part() {
    let mut observed = up(CONFIG);
    observed.routes.push(route("203.0.113.128/25", UPLINK));
    assert_eq!(
        found(&observed),
        "degrades: route 203.0.113.128/25: it leads by eth0, so that this part of 203.0.113.0/24 does not \
         reach the tunnel"
    );
    // That the way to an address of this part is another says no more than that.
    tunnel(&mut observed).ways[0].1 = Ok(route("203.0.113.129/32", UPLINK));
    assert_eq!(diagnose(&observed).len(), 1);
    tunnel(&mut observed).ways[0].1 = Ok(route("203.0.113.1/32", TUNNEL));
    observed.routes.last_mut().unwrap().table = TABLE_MAIN + 1;
    assert_eq!(found(&observed), "");
    let text = CONFIG.replace("network.m", "network.exclude = [\"203.0.113.128/25\"]\nnetwork.m");
    let mut excluded = up(&text);
    excluded.routes.push(route("203.0.113.128/25", UPLINK));
    assert_eq!(found(&excluded), "");
}

#[test]
fn a_half_of_the_default_route_that_is_missing_stops() {
    let text = CONFIG.replace("network.m", "network.default-route = true\nnetwork.m");
    let mut observed = up(&text);
    observed.routes.push(Route { protocol: PROTOCOL_STATIC, ..route("0.0.0.0/1", TUNNEL) });
    assert_eq!(
        found(&observed),
        "stops: route 128.0.0.0/1: this half of the default route does not lead into the tunnel"
    );
}

#[test]
fn a_strict_rp_filter_stops_what_has_another_way_back() {
    let mut observed = up(CONFIG);
    set(&mut observed, "net.ipv4.conf.home.rp_filter", "0");
    set(&mut observed, "net.ipv4.conf.all.rp_filter", "1");
    let everything = "degrades: sysctl net.ipv4.conf.home.rp_filter: packets from elsewhere that come out of \
                      the tunnel are dropped, since the way back to them is another";
    assert_eq!(found(&observed), everything);
    tunnel(&mut observed).ways[0].1 = Ok(route("203.0.113.1/32", UPLINK));
    assert!(found(&observed).contains(
        "stops: sysctl net.ipv4.conf.home.rp_filter: packets from 203.0.113.0/24 that come out of the tunnel \
         are dropped, since the way back to them is another"
    ));
    set(&mut observed, "net.ipv4.conf.home.rp_filter", "2");
    assert!(!found(&observed).contains("rp_filter"));
}

#[test]
fn forwarding_that_was_switched_off_stops() {
    let mut observed = up(CONFIG);
    set(&mut observed, "net.ipv4.ip_forward", "0");
    // No address and no route of the tunnel is of IPv6.
    set(&mut observed, "net.ipv6.conf.all.forwarding", "0");
    assert_eq!(
        found(&observed),
        "stops: sysctl net.ipv4.ip_forward: this host does not forward IPv4 packets from one link to another"
    );
    let mut without = up(&CONFIG.replace("masquerade = true", "masquerade = false"));
    set(&mut without, "net.ipv4.ip_forward", "0");
    assert_eq!(found(&without), "");
}

#[test]
fn the_packet_filter_is_nothing_to_a_tunnel_that_does_not_forward() {
    let mut observed = up(&CONFIG.replace("masquerade = true", "masquerade = false"));
    add_chain(&mut observed, drop_chain(false));
    observed.legacy = (true, true);
    assert_eq!(found(&observed), "");
    observed.filter = Filter::Missing("protocol not supported".to_owned());
    assert_eq!(found(&observed), "");
}

#[test]
fn a_chain_that_drops_stops_unless_it_accepts_the_device() {
    let mut observed = up(CONFIG);
    add_chain(&mut observed, drop_chain(true));
    assert_eq!(found(&observed), "");
    add_chain(&mut observed, drop_chain(false));
    assert_eq!(
        found(&observed),
        "stops: chain ip filter FORWARD: it drops what the tunnel forwards, since the rules that accept it \
         are missing"
    );
    let Filter::Known { tables, .. } = &mut observed.filter else { panic!("no filter") };
    tables.push(FoundTable { family: Family::Ipv4, name: "filter".to_owned(), owner: true });
    assert!(found(&observed).contains("belongs to another process"));
}

#[test]
fn a_chain_of_a_family_that_the_tunnel_lacks_is_nothing_to_it() {
    let mut observed = up(CONFIG);
    let mut chain = drop_chain(false);
    chain.chain.family = Family::Ipv6;
    add_chain(&mut observed, chain);
    assert_eq!(found(&observed), "");
}

#[test]
fn legacy_rules_degrade_a_tunnel_that_forwards() {
    let observed = Observed { legacy: (false, true), ..up(CONFIG) };
    assert!(found(&observed).starts_with("degrades: ip6tables-legacy: "));
}

#[test]
fn a_table_that_shall_translate_and_is_gone_stops() {
    let mut observed = up(CONFIG);
    observed.filter = Filter::Known { chains: vec![], tables: vec![table("adit-away", true)] };
    assert_eq!(
        found(&observed),
        "stops: table inet adit-home: it is not there, so that forwarded packets leave with addresses to \
         which no answer comes"
    );
}

#[test]
fn one_check_has_a_limited_number_of_findings() {
    let mut observed = up(CONFIG);
    let longer = (0..100).map(|host| route(&format!("203.0.113.{host}/32"), UPLINK));
    observed.routes.extend(longer);
    assert_eq!(diagnose(&observed).len(), MAX_FINDINGS);
}

#[test]
fn findings_come_the_worst_first() {
    let mut observed = up(CONFIG);
    observed.kernel = "5.15.0".to_owned();
    tunnel_link(&mut observed).up = false;
    let severities: Vec<_> = diagnose(&observed).iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Stops, Severity::Degrades]);
}
