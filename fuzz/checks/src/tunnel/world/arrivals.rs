//! What becomes of what is on the wire.

use std::net::SocketAddr;

use proto::tunnel::{Event, Transmit};
use wire::message::{self, Kind};

use super::super::host::{Host, Opened, path};
use super::super::model::{Arrival, Inner, Verdict};
use super::super::packet;
use super::{Flight, NOWHERE, TURNS_MAX, World};

impl World {
    pub(super) fn pick(&mut self, which: usize, stays: bool) -> Option<Flight> {
        let which = which % self.wire.len().max(1);
        if stays { self.wire.get(which).copied() } else { self.wire.remove(which) }
    }

    pub(super) fn fly(&mut self, Flight { letter, from, to }: Flight) {
        if let Some(to) = self.hosts.iter().position(|host| host.address() == to) {
            let datagram = self.model.letters[letter].datagram.clone();
            self.arrive(Some(letter), to, from, &datagram);
        }
    }

    pub(super) fn deliver_all(&mut self) {
        for _ in 0..TURNS_MAX {
            let Some(flight) = self.wire.pop_front() else { return };
            self.fly(flight);
        }
        panic!("every answer has an answer");
    }

    pub(super) fn corrupt(&mut self, which: usize, at: usize, change: u8) {
        let Some(Flight { letter, from, to }) = self.pick(which, false) else { return };
        let Some(to) = self.hosts.iter().position(|host| host.address() == to) else { return };
        let mut datagram = self.model.letters[letter].datagram.clone();
        let at = at % datagram.len();
        datagram[at] ^= change;
        // Who is not under load does not look at mac2.
        let is_handshake = matches!(datagram[0], 1 | 2) && at + 16 >= datagram.len();
        let is_whole = is_handshake && !self.hosts[to].under_load;
        self.arrive(is_whole.then_some(letter), to, from, &datagram);
    }

    pub(super) fn replay(&mut self, letter: usize, to: usize, from: usize) {
        let count = self.model.letters.len().max(1);
        let Some(found) = self.model.letters.get(letter % count) else { return };
        let datagram = found.datagram.clone();
        let from = self.hosts.get(from).map_or_else(|| NOWHERE.into(), Host::address);
        self.arrive(Some(letter % count), to, from, &datagram);
    }

    /// A datagram arrives, which is this letter if it is any.
    pub(super) fn arrive(
        &mut self,
        letter: Option<usize>,
        to: usize,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        let arrival = letter.map(|letter| Arrival { letter, to, from, now: self.now });
        if message::kind(datagram) == Some(Kind::Data) {
            self.arrive_at_lane(arrival, to, from, datagram);
        } else {
            self.arrive_at_tunnel(arrival, to, from, datagram);
        }
    }

    fn arrive_at_lane(
        &mut self,
        arrival: Option<Arrival>,
        to: usize,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        let sender = arrival.and_then(|arrival| self.model.judge_data(arrival));
        let opened = self.hosts[to].open(self.now, from, datagram);
        let reason = opened.as_ref().err();
        assert_eq!(sender.is_some(), opened.is_ok(), "{reason:?} for a message of {sender:?}");
        let (Some(arrival), Some(sender), Ok(opened)) = (arrival, sender, opened) else { return };
        assert_eq!(self.model.sides[to].places.get(&opened.peer), Some(&sender));
        assert!(self.delivered.insert(arrival.letter), "a message is opened twice");
        let Opened { peer, receiver, plaintext, must_look } = opened;
        let could_look = self.model.sides[to].links[&sender].must_look();
        let inner = self.model.accept_data(arrival);
        let is_new = !could_look && self.model.sides[to].links[&sender].must_look();
        let is_told = must_look || self.hosts[to].pending.contains(&peer);
        assert!(!is_new || is_told, "nobody is told that keys are confirmed");
        self.tell(to, peer, must_look);
        if matches!(inner, Inner::Hello | Inner::Acknowledgment) {
            self.foresee_look(to, peer);
            self.act(to, |tunnel, ctx| tunnel.handle_control(ctx, receiver, &plaintext));
        }
        let got = self.hosts[to].admit(peer, &plaintext);
        assert_eq!(got, self.expected(to, sender, &inner), "the device gets another packet");
    }

    /// What the device gets of what `sender` has sealed.
    fn expected<'a>(&self, to: usize, sender: usize, inner: &'a Inner) -> Option<&'a [u8]> {
        let Inner::Packet(sealed) = inner else { return None };
        let packet = packet::whole(sealed)?;
        let [source, _] = packet::ends(packet)?;
        (self.model.sides[to].owner(source) == Some(sender)).then_some(packet)
    }

    fn arrive_at_tunnel(
        &mut self,
        arrival: Option<Arrival>,
        to: usize,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        let under_load = self.hosts[to].under_load;
        let judge = |arrival| self.model.judge_handshake(arrival, under_load);
        let verdict = arrival.map_or(Verdict::Refused, judge);
        let (now, refused) = (self.now, self.hosts[to].drops().1);
        let ((), output) = self.hosts[to].with_tunnel(now, |tunnel, ctx| {
            tunnel.handle_handshake(ctx, &path(from), datagram, under_load);
        });
        let refused = self.hosts[to].drops().1 - refused;
        let has_keys = |event: &Event| matches!(event, Event::Established { .. });
        let is_response = |transmit: &Transmit| transmit.datagram[0] == 2;
        let is_accepted =
            output.events.iter().any(has_keys) || output.transmits.iter().any(is_response);
        if verdict != Verdict::Open {
            assert_eq!(is_accepted, verdict == Verdict::Accepted, "of {arrival:?}");
        }
        assert!(
            refused == u64::from(!is_accepted)
                || message::kind(datagram) == Some(Kind::CookieReply)
        );
        self.model.sides[to].refused += refused;
        if is_accepted && let Some(arrival) = arrival {
            let has_mac2 = datagram[datagram.len() - 16..] != [0; 16];
            assert!(!under_load || has_mac2, "who has no cookie is heard under load");
            self.model.accept_handshake(arrival);
        }
        self.settle(to, output, Some((arrival.filter(|_| is_accepted), from)));
    }
}
