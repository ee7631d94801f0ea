//! What is checked again and again, and in the end.

use std::time::Duration;

use proto::DropReason;

use super::super::host::Host;
use super::super::model::{Inner, Meaning, Side, Told};
use super::super::packet;
use super::{SECOND, World};

/// An answer is missed after 15 s; the initiation after that may be 5 s early; it or the response may cross another one,
/// and is repeated after 5 s; with a jitter each.
const RECOVERY: Duration = Duration::from_secs(26);

/// When the last keepalive, hello and handshake must be over.
const SETTLED: Duration = Duration::from_secs(130);

impl World {
    pub(crate) fn check(&self) {
        for (host, side) in self.hosts.iter().zip(&self.model.sides) {
            self.check_counts(host, side);
            let keypairs = &host.tunnel.directory().load().keypairs;
            let is_there = |index: &u32| keypairs.get(*index).is_some();
            assert!(!side.gone.iter().any(is_there), "a key of a peer that is gone");
            for (&other, link) in &side.links {
                assert!(link.keys().all(|key| is_there(&key.local)), "a key is missing");
                assert!(!link.gone.iter().any(is_there), "a key outlives its time");
                let is_stuck = link.is_usable(self.now) && !link.staged.is_empty();
                assert!(!is_stuck, "a packet waits for keys that are there");
                let place = side.place(other).expect("a peer has a place");
                let status = host.tunnel.status(place, host.instant(self.now));
                let status = status.expect("a peer has a status");
                assert_eq!(status.path.and_then(|path| path.remote.socket_addr()), link.path);
                let traffic = (status.traffic.sent_messages, status.traffic.received_messages);
                assert_eq!(traffic, link.traffic, "messages sent and received");
            }
        }
    }

    fn check_counts(&self, host: &Host, side: &Side) {
        let (outgoing, refused) = host.drops();
        let mut expected = vec![0; outgoing.len()];
        expected[DropReason::NoPeer.index()] = side.no_peer;
        expected[DropReason::NoEndpoint.index()] = side.no_endpoint;
        expected[DropReason::NoSession.index()] = side.no_session;
        assert_eq!(outgoing, expected, "packets dropped by reason");
        assert_eq!(refused, side.refused);
        let counters = host.tunnel.counters();
        assert_eq!(counters.initiations_sent, side.initiations);
        assert_eq!(counters.responses_sent, side.responses);
        assert_eq!((counters.established, side.told), (side.established, side.established));
    }

    /// On a good wire, with everybody a peer of everybody, all must hear all soon.
    pub(crate) fn recover(&mut self) {
        self.wire.clear();
        for host in 0..self.hosts.len() {
            self.hosts[host].under_load = false;
            let told: Vec<_> = self.others(host).map(|other| self.told_well(host, other)).collect();
            self.set_peers(host, &told);
        }
        let start = self.now;
        let pairs =
            (0..self.hosts.len()).flat_map(|from| self.others(from).map(move |to| (from, to)));
        let mut deaf: Vec<_> = pairs.collect();
        while !deaf.is_empty() {
            let since = self.now - start;
            assert!(since < RECOVERY, "{deaf:?} hear nothing since {start:?}");
            let numbers: Vec<_> = deaf.iter().map(|&(from, to)| self.greet(from, to)).collect();
            self.pass(SECOND / 2, true);
            let mut numbers = numbers.into_iter();
            deaf.retain(|_| numbers.next().is_some_and(|number| !self.has_arrived(number)));
            self.check();
        }
    }

    /// What a host is told of another so that all is good: what both share is what the first of them has.
    fn told_well(&self, host: usize, other: usize) -> Told {
        let psk = |(host, other): (usize, usize)| {
            self.model.sides[host].links.get(&other).map(|link| link.psk)
        };
        let (first, second) = (host.min(other), host.max(other));
        let link = self.model.sides[host].links.get(&other);
        Told {
            other,
            psk: psk((first, second)).or_else(|| psk((second, first))).unwrap_or(0),
            keepalive: link.and_then(|link| link.keepalive),
            path: Some(self.hosts[other].address()),
            prefixes: packet::prefixes(other, 0),
        }
    }

    /// Sends a packet; its number.
    fn greet(&mut self, from: usize, to: usize) -> u64 {
        self.send(from, [packet::address(from), packet::address(to)], 61, 61);
        self.packets
    }

    fn has_arrived(&self, number: u64) -> bool {
        let number = number.to_le_bytes();
        self.delivered.iter().rev().any(|&letter| match &self.model.letters[letter].meaning {
            Meaning::Data { inner: Inner::Packet(sealed), .. } => sealed[28..36] == number,
            _ => false,
        })
    }

    /// Who has no reason to say anything says nothing.
    pub(crate) fn check_silence(&mut self) {
        self.pass(SETTLED, true);
        let letters = self.model.letters.len();
        self.pass(600 * SECOND, true);
        self.check();
        let mut links = self.model.sides.iter().flat_map(|side| side.links.values());
        if links.all(|link| link.keepalive.is_none()) {
            assert_eq!(self.model.letters.len(), letters, "nobody has a reason");
        }
    }
}
