//! Who the peers are and what they own, as the configuration protocol changes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use proto::{PresharedKey, PrivateKey, PublicKey};

use super::{AllowedIp, Change, PeerChange, Refusal};

/// The most peers; their places are numbers of 16 bits.
pub const MAX_PEERS: usize = 65_535;

/// What the configuration protocol can say of a tunnel.
///
/// Between applications: no two peers have one key, none has this side's own, and no two own one prefix.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// The private key of this side.
    pub private_key: Option<PrivateKey>,
    /// The UDP port that is listened on; 0 for any.
    pub listen_port: u16,
    /// The mark of the datagrams that are sent.
    pub fwmark: Option<u32>,
    /// The peers; those that come are the last.
    pub peers: Vec<RosterPeer>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterPeer {
    /// Its name in the configuration; `None` for one that came later.
    pub name: Option<String>,
    /// Its public key.
    pub public_key: PublicKey,
    /// What is shared with it beforehand; zero for nothing.
    pub preshared_key: PresharedKey,
    /// Where it was said to be.
    pub endpoint: Option<SocketAddr>,
    /// How often something is sent to it at least, in seconds; 0 for never.
    pub keepalive: u16,
    /// What it owns, without host bits.
    pub allowed_ips: Vec<IpNet>,
}

impl RosterPeer {
    /// A peer that has nothing but its key.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            name: None,
            public_key,
            preshared_key: PresharedKey::default(),
            endpoint: None,
            keepalive: 0,
            allowed_ips: Vec::new(),
        }
    }
}

impl Roster {
    /// Makes `changes`, in their order, all or none.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyPeers`].
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<(), Refusal> {
        let mut draft = Draft::new(self.clone());
        for change in changes {
            draft.apply(change)?;
        }
        *self = draft.finish();
        Ok(())
    }
}

/// A roster while it changes: everything is found by what it is named.
struct Draft {
    roster: Roster,
    /// The public key of this side.
    own: Option<PublicKey>,
    /// The peers in their order; `None` where one has gone.
    peers: Vec<Option<RosterPeer>>,
    /// Where the peer with a key is; as many as there are peers.
    places: BTreeMap<PublicKey, usize>,
    /// At which place the owner of a prefix is. Peers may list what they do not own any more until the end.
    owners: BTreeMap<IpNet, usize>,
}

impl Draft {
    fn new(mut roster: Roster) -> Self {
        let mut draft = Self {
            own: roster.private_key.as_ref().map(PrivateKey::public_key),
            peers: Vec::new(),
            places: BTreeMap::new(),
            owners: BTreeMap::new(),
            roster: Roster::default(),
        };
        for peer in std::mem::take(&mut roster.peers) {
            let place = draft.peers.len();
            draft.places.insert(peer.public_key, place);
            draft.owners.extend(peer.allowed_ips.iter().map(|&prefix| (prefix, place)));
            draft.peers.push(Some(peer));
        }
        draft.roster = roster;
        draft
    }

    fn apply(&mut self, change: Change) -> Result<(), Refusal> {
        match change {
            Change::PrivateKey(key) => self.set_private_key(key),
            Change::ListenPort(port) => self.roster.listen_port = port,
            Change::Fwmark(mark) => self.roster.fwmark = (mark != 0).then_some(mark),
            Change::ReplacePeers => {
                self.peers.clear();
                self.places.clear();
                self.owners.clear();
            }
            Change::Peer(change) => return self.apply_peer(change),
        }
        Ok(())
    }

    /// Takes another identity, and forgets the peer that has it.
    fn set_private_key(&mut self, key: Option<PrivateKey>) {
        self.own = key.as_ref().map(PrivateKey::public_key);
        self.roster.private_key = key;
        if let Some(own) = self.own {
            self.remove(&own);
        }
    }

    fn apply_peer(&mut self, change: PeerChange) -> Result<(), Refusal> {
        let key = change.public_key;
        if change.remove {
            self.remove(&key);
            return Ok(());
        }
        let is_known = self.places.contains_key(&key);
        // A list of peers that is the same on all sides names each side, too.
        if self.own == Some(key) || (change.update_only && !is_known) {
            return Ok(());
        }
        let place = self.place(key)?;
        if change.replace_allowed_ips {
            self.disown(place);
        }
        for &allowed_ip in &change.allowed_ips {
            self.allow(place, allowed_ip);
        }
        if let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) {
            peer.update(change);
        }
        Ok(())
    }

    /// Where the peer with `key` is, which is made if there is none.
    fn place(&mut self, key: PublicKey) -> Result<usize, Refusal> {
        if let Some(&place) = self.places.get(&key) {
            return Ok(place);
        }
        if self.places.len() >= MAX_PEERS {
            return Err(Refusal::TooManyPeers);
        }
        self.peers.push(Some(RosterPeer::new(key)));
        let place = self.peers.len() - 1;
        self.places.insert(key, place);
        Ok(place)
    }

    fn remove(&mut self, key: &PublicKey) {
        if let Some(place) = self.places.remove(key) {
            self.disown(place);
            self.peers[place] = None;
        }
    }

    /// Takes all that it owns from the peer at `place`.
    fn disown(&mut self, place: usize) {
        let Some(peer) = &mut self.peers[place] else { return };
        for prefix in peer.allowed_ips.drain(..) {
            if self.owners.get(&prefix) == Some(&place) {
                self.owners.remove(&prefix);
            }
        }
    }

    fn allow(&mut self, place: usize, allowed_ip: AllowedIp) {
        match allowed_ip {
            AllowedIp::Add(prefix) => {
                if self.owners.insert(prefix, place) != Some(place)
                    && let Some(peer) = &mut self.peers[place]
                {
                    peer.allowed_ips.push(prefix);
                }
            }
            AllowedIp::Remove(prefix) => {
                if self.owners.get(&prefix) == Some(&place) {
                    self.owners.remove(&prefix);
                }
            }
        }
    }

    /// The roster as it has become; each prefix stands once, with its owner.
    fn finish(mut self) -> Roster {
        for (place, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            peer.allowed_ips.retain(|prefix| {
                let is_owner = self.owners.get(prefix) == Some(&place);
                is_owner && self.owners.remove(prefix).is_some()
            });
        }
        Roster { peers: self.peers.into_iter().flatten().collect(), ..self.roster }
    }
}

impl RosterPeer {
    /// Takes over what concerns nobody else.
    fn update(&mut self, change: PeerChange) {
        if let Some(key) = change.preshared_key {
            self.preshared_key = key;
        }
        if change.endpoint.is_some() {
            self.endpoint = change.endpoint;
        }
        if let Some(keepalive) = change.keepalive {
            self.keepalive = keepalive;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u8) -> PublicKey {
        [number; 32].into()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn add(peer: u8, prefixes: &[&str]) -> Change {
        let allowed_ips = prefixes.iter().map(|prefix| AllowedIp::Add(net(prefix))).collect();
        Change::Peer(PeerChange { allowed_ips, ..PeerChange::new(key(peer)) })
    }

    fn roster(changes: Vec<Change>) -> Roster {
        let mut roster = Roster::default();
        roster.apply(changes).unwrap();
        roster
    }

    /// The first octet of each peer's key, and what it owns.
    fn owners(roster: &Roster) -> Vec<(u8, Vec<String>)> {
        let peers = roster.peers.iter();
        peers
            .map(|peer| {
                let owned = peer.allowed_ips.iter().map(ToString::to_string).collect();
                (peer.public_key.as_bytes()[0], owned)
            })
            .collect()
    }

    fn owned(prefixes: &[&str]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_device_changes_as_told() {
        let mut roster = roster(vec![Change::ListenPort(7), Change::Fwmark(8)]);
        assert_eq!((roster.listen_port, roster.fwmark), (7, Some(8)));
        roster.apply(vec![Change::Fwmark(0)]).unwrap();
        assert_eq!((roster.listen_port, roster.fwmark), (7, None));
    }

    #[test]
    fn a_prefix_moves_to_the_peer_that_names_it_last() {
        let mut roster = roster(vec![
            add(1, &["10.0.0.0/8", "fd00::/8"]),
            add(2, &["10.0.0.0/8", "10.1.0.0/16"]),
        ]);
        let moved = [(1, owned(&["fd00::/8"])), (2, owned(&["10.0.0.0/8", "10.1.0.0/16"]))];
        assert_eq!(owners(&roster), moved);
        roster.apply(vec![add(1, &["10.0.0.0/8"]), add(2, &["fd00::/8"])]).unwrap();
        let back = [(1, owned(&["10.0.0.0/8"])), (2, owned(&["10.1.0.0/16", "fd00::/8"]))];
        assert_eq!(owners(&roster), back);
    }

    #[test]
    fn a_prefix_that_comes_back_within_a_request_stands_once() {
        let changes = vec![add(1, &["::/0"]), add(2, &["::/0"]), add(1, &["::/0", "::/0"])];
        assert_eq!(owners(&roster(changes)), [(1, owned(&["::/0"])), (2, vec![])]);
    }

    #[test]
    fn allowed_ips_are_replaced_and_taken_away() {
        let mut roster = roster(vec![add(1, &["10.0.0.0/8", "fd00::/8"]), add(2, &["::/0"])]);
        let replace = PeerChange {
            replace_allowed_ips: true,
            allowed_ips: vec![AllowedIp::Add(net("10.2.0.0/16"))],
            ..PeerChange::new(key(1))
        };
        let take = PeerChange {
            // The second belongs to somebody else.
            allowed_ips: vec![
                AllowedIp::Remove(net("::/0")),
                AllowedIp::Remove(net("10.2.0.0/16")),
            ],
            ..PeerChange::new(key(2))
        };
        roster.apply(vec![Change::Peer(replace), Change::Peer(take)]).unwrap();
        assert_eq!(owners(&roster), [(1, owned(&["10.2.0.0/16"])), (2, vec![])]);
    }

    #[test]
    fn peers_come_change_and_go() {
        let mut roster = roster(vec![add(1, &["10.0.0.0/8"]), add(2, &[])]);
        roster.peers[0].name = Some("b".into());
        let change = PeerChange {
            update_only: true,
            preshared_key: Some(PresharedKey::from_bytes([9; 32])),
            endpoint: Some("10.0.0.1:1".parse().unwrap()),
            keepalive: Some(25),
            ..PeerChange::new(key(1))
        };
        let unknown = PeerChange { update_only: true, ..PeerChange::new(key(3)) };
        let gone = PeerChange { remove: true, ..PeerChange::new(key(2)) };
        let none = PeerChange { remove: true, ..PeerChange::new(key(4)) };
        let changes = [change, unknown, gone, none].map(Change::Peer);
        roster.apply(changes.into()).unwrap();
        let [peer] = roster.peers.as_slice() else { panic!("{roster:?}") };
        assert_eq!((peer.name.as_deref(), peer.keepalive), (Some("b"), 25));
        assert_eq!(peer.preshared_key, PresharedKey::from_bytes([9; 32]));
        assert_eq!(peer.allowed_ips, [net("10.0.0.0/8")]);
        roster.apply(vec![add(5, &["10.0.0.0/8"]), Change::ReplacePeers, add(6, &[])]).unwrap();
        assert_eq!(owners(&roster), [(6, vec![])]);
    }

    #[test]
    fn this_side_is_not_its_own_peer() {
        let private_key = PrivateKey::from_bytes([3; 32]);
        let own = private_key.public_key();
        let mut roster = roster(vec![add(1, &["::/0"])]);
        let myself = || {
            let allowed_ips = vec![AllowedIp::Add(net("::/0"))];
            Change::Peer(PeerChange { allowed_ips, ..PeerChange::new(own) })
        };
        roster.apply(vec![myself()]).unwrap();
        assert_eq!(roster.peers.len(), 2);
        roster.apply(vec![Change::PrivateKey(Some(private_key))]).unwrap();
        assert_eq!(owners(&roster), [(1, vec![])]);
        roster.apply(vec![add(1, &["::/0"]), myself()]).unwrap();
        assert_eq!(owners(&roster), [(1, owned(&["::/0"]))]);
    }

    #[test]
    fn too_many_peers_are_refused_and_nothing_is_changed() {
        let change = |number: u32| {
            let mut octets = [0; 32];
            octets[..4].copy_from_slice(&number.to_le_bytes());
            Change::Peer(PeerChange::new(octets.into()))
        };
        let mut roster = roster((0..65_535).map(change).collect());
        let outcome = roster.apply(vec![Change::Fwmark(1), change(65_535)]);
        assert_eq!(outcome, Err(Refusal::TooManyPeers));
        assert_eq!((roster.peers.len(), roster.fwmark), (MAX_PEERS, None));
    }

    /// Few peers and prefixes, so that they meet.
    fn change() -> impl Strategy<Value = Change> {
        let allowed_ip = (0..4_u8, any::<bool>()).prop_map(|(number, add)| {
            let prefix = net(&format!("10.{number}.0.0/16"));
            if add { AllowedIp::Add(prefix) } else { AllowedIp::Remove(prefix) }
        });
        let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.2), any::<bool>());
        let peer = (0..4_u8, flags, prop::collection::vec(allowed_ip, 0..5)).prop_map(
            |(number, (remove, replace_allowed_ips, update_only), allowed_ips)| {
                let change = PeerChange::new(key(number));
                PeerChange { remove, update_only, replace_allowed_ips, allowed_ips, ..change }
            },
        );
        prop_oneof![20 => peer.prop_map(Change::Peer), 1 => Just(Change::ReplacePeers)]
    }

    /// The rules, one after the other, by going through all there is.
    fn naive(roster: &mut Vec<(PublicKey, Vec<IpNet>)>, change: &Change) {
        let Change::Peer(change) = change else { return roster.clear() };
        let key = change.public_key;
        let is_known = roster.iter().any(|peer| peer.0 == key);
        if change.remove {
            return roster.retain(|peer| peer.0 != key);
        }
        match is_known {
            false if change.update_only => return,
            false => roster.push((key, Vec::new())),
            true if change.replace_allowed_ips => {
                roster.iter_mut().filter(|peer| peer.0 == key).for_each(|peer| peer.1.clear());
            }
            true => {}
        }
        for allowed_ip in &change.allowed_ips {
            let (AllowedIp::Add(prefix) | AllowedIp::Remove(prefix)) = allowed_ip;
            let adds = matches!(allowed_ip, AllowedIp::Add(_));
            for (owner, owned) in roster.iter_mut() {
                if adds || *owner == key {
                    owned.retain(|other| other != prefix);
                }
                if adds && *owner == key {
                    owned.push(*prefix);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn however_changes_are_cut_into_requests_the_roster_is_that_of_the_rules(
            requests in prop::collection::vec(prop::collection::vec(change(), 0..8), 0..8),
        ) {
            let mut roster = Roster::default();
            let mut expected = Vec::new();
            for request in requests {
                request.iter().for_each(|change| naive(&mut expected, change));
                roster.apply(request).unwrap();
                let sorted = |key: PublicKey, owned: &[IpNet]| {
                    let mut owned = owned.to_vec();
                    owned.sort();
                    (key, owned)
                };
                let found: Vec<_> =
                    roster.peers.iter().map(|peer| sorted(peer.public_key, &peer.allowed_ips)).collect();
                let expected: Vec<_> = expected.iter().map(|(key, owned)| sorted(*key, owned)).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
