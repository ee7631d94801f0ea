//! Two hosts with a party each, and which implementations meet.
//!
//! ```text
//!   host A                                   host B
//!   wg0   192.0.2.1/24, fd00:7::1/64 ....... wg0   192.0.2.2/24, fd00:7::2/64
//!   eth0  10.1.0.1, fd01::1 ---------------- eth0  10.1.0.2, fd01::2
//! ```

use std::net::SocketAddr;

use lab::{Host, TwoHosts};

use crate::party::{Keys, Kind, PORT, Party, Peer, Spec};
use crate::rig::pair::Family;
use crate::rig::tunnel::Files;

/// Who meets whom: A's implementation and B's. To learn whether a test asks too much, let only others meet.
pub(crate) const MEETINGS: [[Kind; 2]; 5] = [
    [Kind::Adit, Kind::WireguardGo],
    [Kind::WireguardGo, Kind::Adit],
    [Kind::Adit, Kind::Adit],
    [Kind::Adit, Kind::Boringtun],
    [Kind::Boringtun, Kind::Adit],
];

/// Runs `test` for every meeting that is possible here.
pub(crate) fn for_each_meeting(test: impl Fn([Kind; 2])) {
    for kinds in MEETINGS.into_iter().filter(|kinds| kinds.iter().all(|kind| kind.runnable())) {
        eprintln!("A is {}, B is {}", kinds[0], kinds[1]);
        test(kinds);
    }
}

/// Where the party of the host with `number` is.
pub(crate) fn endpoint(outer: Family, number: u8) -> SocketAddr {
    SocketAddr::new(outer.outer(number), PORT)
}

/// The addresses in the tunnel of the host with `number`, as prefixes of one address.
pub(crate) fn inner_prefixes(number: u8) -> Vec<String> {
    Family::BOTH.map(|family| prefix_of_one(family.inner(number))).into()
}

fn prefix_of_one(address: std::net::IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// What the party of the host with `number` is, without peers.
pub(crate) fn spec(number: u8, keys: &Keys) -> Spec {
    let [v4, v6] = Family::BOTH.map(|family| family.inner(number));
    Spec {
        name: ["a", "b", "c"][usize::from(number) - 1],
        keys: keys.clone(),
        addresses: vec![format!("{v4}/24"), format!("{v6}/64")],
        peers: Vec::new(),
        local: "",
        network: "",
    }
}

/// The peer that is the party of the host with `number`.
pub(crate) fn peer(number: u8, keys: &Keys, outer: Family) -> Peer {
    Peer {
        public_key: keys.public.clone(),
        preshared_key: None,
        endpoint: Some(endpoint(outer, number)),
        allowed_ips: inner_prefixes(number),
        keepalive: None,
    }
}

/// What both are, each with the other for its only peer.
pub(crate) fn specs(hosts: &TwoHosts, outer: Family) -> [Spec; 2] {
    let keys = hosts.hosts().map(Keys::new);
    let [mut a, mut b] = [spec(1, &keys[0]), spec(2, &keys[1])];
    a.peers.push(peer(2, &keys[1], outer));
    b.peers.push(peer(1, &keys[0], outer));
    [a, b]
}

/// Both hosts and parties; parties end first.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) a: Party,
    pub(crate) b: Party,
    pub(crate) specs: [Spec; 2],
    pub(crate) files: Files,
    pub(crate) hosts: TwoHosts,
}

impl Pair {
    /// The usual two, over IPv4.
    pub(crate) fn up(kinds: [Kind; 2]) -> Self {
        Self::with(kinds, Family::V4, |_, _| {})
    }

    /// The two over `outer`, after `change` of what both are.
    pub(crate) fn with(
        kinds: [Kind; 2],
        outer: Family,
        change: impl FnOnce(&mut Spec, &mut Spec),
    ) -> Self {
        let hosts = TwoHosts::build().unwrap();
        let mut specs = specs(&hosts, outer);
        let [a, b] = &mut specs;
        change(a, b);
        Self::between(hosts, kinds, specs)
    }

    /// The two in hosts that were prepared.
    pub(crate) fn between(hosts: TwoHosts, kinds: [Kind; 2], specs: [Spec; 2]) -> Self {
        let files = Files::new();
        let a = Party::up(kinds[0], &hosts.a, &files, &specs[0]);
        let b = Party::up(kinds[1], &hosts.b, &files, &specs[1]);
        Self { a, b, specs, files, hosts }
    }

    /// The hosts, A first or B first, and the number of the second.
    pub(crate) fn from(&self, number: u8) -> (&Host, &Host, u8) {
        match number {
            1 => (&self.hosts.a, &self.hosts.b, 2),
            _ => (&self.hosts.b, &self.hosts.a, 1),
        }
    }
}
