//! What tunnels say, to the engine and on the wire.

use std::net::SocketAddr;

use proto::Tunnel;
use proto::path::Path;
use proto::tunnel::{Context, Event, Transmit};
use wire::message::{self, Cipher, DATA_OVERHEAD, DataHeader, Initiation, Kind, Response};

use super::super::host::Output;
use super::super::model::{ACKNOWLEDGMENT_LEN, Arrival, HELLO_LEN, Inner, Link, Meaning};
use super::super::packet::PLAINTEXT;
use super::{Flight, World};

/// The most datagrams on the wire; more are lost.
const WIRE_MAX: usize = 512;

impl World {
    pub(super) fn act(&mut self, host: usize, act: impl FnOnce(&mut Tunnel, &mut Context<'_>)) {
        let ((), output) = self.hosts[host].with_tunnel(self.now, act);
        self.settle(host, output, None);
    }

    /// Holds what a tunnel says against the model, after what arrived from somewhere, if anything did, and was
    /// accepted, if it was.
    pub(super) fn settle(
        &mut self,
        host: usize,
        output: Output,
        answers: Option<(Option<Arrival>, SocketAddr)>,
    ) {
        // Nothing tells the order of events and datagrams. Who gives up may have said something before.
        let is_end = |event: &Event| matches!(event, Event::GaveUp { .. });
        let (ends, events): (Vec<_>, Vec<_>) = output.events.into_iter().partition(is_end);
        events.iter().for_each(|event| self.hear_event(host, event));
        for transmit in output.transmits {
            let known = address(&transmit.path);
            match message::kind(&transmit.datagram).expect("only messages are sent") {
                Kind::Initiation => self.post_initiation(host, transmit),
                Kind::Response => {
                    let (arrival, from) = answers.expect("a response answers");
                    assert_eq!(known, from, "a response goes back");
                    self.post_response(host, transmit, arrival.expect("what it accepts"));
                }
                Kind::CookieReply => {
                    let (_, from) = answers.expect("a cookie answers");
                    assert_eq!(known, from, "a cookie goes back");
                    assert!(self.hosts[host].under_load, "a cookie is not needed");
                    self.post(host, transmit, Meaning::CookieReply);
                }
                Kind::Data => self.post_data(host, transmit, None),
            }
        }
        ends.iter().for_each(|event| self.hear_event(host, event));
    }

    fn hear_event(&mut self, host: usize, event: &Event) {
        let side = &mut self.model.sides[host];
        let other =
            *side.places.get(&event.peer()).expect("no event tells of a peer that was removed");
        match event {
            Event::Established { .. } => side.told += 1,
            Event::PathChanged { .. } => {}
            Event::HandshakeFailed { .. } => side.links[&other].fail(self.now),
            Event::GaveUp { .. } => side.give_up(self.now, other),
            Event::Greeted { .. } | Event::Said { .. } | Event::Unsaid { .. } => {
                panic!("nobody is invited");
            }
        }
    }

    fn post_initiation(&mut self, host: usize, transmit: Transmit) {
        let to = self.checkers.iter().position(|checker| checker.check_mac1(&transmit.datagram));
        let to = to.expect("it is for somebody");
        let index = Initiation::parse(&transmit.datagram).expect("it is one").sender;
        let path = address(&transmit.path);
        let letter = self.post(host, transmit, Meaning::Initiation { to, index });
        let side = &mut self.model.sides[host];
        side.initiations += 1;
        let link = side.links.get_mut(&to).expect("it is for a peer");
        assert_eq!(link.path, Some(path), "it goes to where the peer is");
        link.initiate(self.now, letter);
    }

    fn post_response(&mut self, host: usize, transmit: Transmit, arrival: Arrival) {
        let response = Response::parse(&transmit.datagram).expect("it is one");
        let initiation = &self.model.letters[arrival.letter];
        let (to, Meaning::Initiation { index: remote, .. }) =
            (initiation.from, &initiation.meaning)
        else {
            panic!("a response answers an initiation");
        };
        let (remote, index) = (*remote, response.sender);
        assert_eq!(response.receiver, remote);
        let psk = self.model.sides[host].links[&to].psk;
        let meaning = Meaning::Response { to, initiation: arrival.letter, index, psk };
        let session = self.post(host, transmit, meaning);
        let side = &mut self.model.sides[host];
        side.responses += 1;
        let link = side.links.get_mut(&to).expect("it is for a peer");
        link.responded(session, index, remote, self.now);
    }

    /// A data message leaves, with this packet if a lane sealed it.
    pub(super) fn post_data(&mut self, host: usize, transmit: Transmit, packet: Option<&[u8]>) {
        let header = DataHeader::parse(&transmit.datagram).expect("it is one");
        let (mtu, remote) = (self.hosts[host].mtu, header.receiver);
        let side = &self.model.sides[host];
        let to = side.sealing_for(remote).expect("data is sealed with a key that is there");
        let other = &self.model.sides[to];
        let (is_adit, has_aes) = (side.is_adit && other.is_adit, side.has_aes && other.has_aes);
        let link = self.model.sides[host].links.get_mut(&to).expect("it was found");
        assert_eq!(link.path, Some(address(&transmit.path)), "it goes to where the peer is");
        let may_aes = is_adit && has_aes && link.has_hello(remote);
        assert!(header.cipher == Cipher::ChaCha20Poly1305 || may_aes, "the peer knows no AES");
        let inner = inner(link, packet, mtu, transmit.datagram.len() - DATA_OVERHEAD);
        let is_frame = matches!(inner, Inner::Hello | Inner::Acknowledgment);
        assert!(is_adit || !is_frame, "a stock peer sees a frame");
        let session = link.seal(self.now, remote, header.counter, &inner);
        self.post(host, transmit, Meaning::Data { session, counter: header.counter, inner });
    }

    /// Puts a datagram on the wire; its number.
    fn post(&mut self, host: usize, transmit: Transmit, meaning: Meaning) -> usize {
        let Transmit { path, datagram } = transmit;
        let shows = datagram.windows(PLAINTEXT.len()).any(|window| window == PLAINTEXT);
        assert!(!shows, "a plaintext shows");
        let letter = self.model.post(host, datagram, meaning);
        if self.wire.len() == WIRE_MAX {
            self.wire.pop_front();
        }
        let from = self.hosts[host].address();
        self.wire.push_back(Flight { letter, from, to: address(&path) });
        letter
    }
}

/// What is sealed in `len` octets: this packet, or the one that has waited longest, if it is one.
fn inner(link: &mut Link, packet: Option<&[u8]>, mtu: u32, len: usize) -> Inner {
    match len {
        0 => Inner::Keepalive,
        HELLO_LEN => Inner::Hello,
        ACKNOWLEDGMENT_LEN => Inner::Acknowledgment,
        _ => {
            let waited = packet.is_none().then(|| link.staged.pop_front()).flatten();
            let packet = packet.or(waited.as_deref()).expect("a packet waits");
            Inner::Packet(padded(packet, mtu, len))
        }
    }
}

/// The packet and its padding, which must make `len` octets: up to a multiple of 16, but not beyond the MTU (section
/// 5.4.6).
fn padded(packet: &[u8], mtu: u32, len: usize) -> Vec<u8> {
    let multiple = packet.len().div_ceil(16) * 16;
    let expected = multiple.min(usize::try_from(mtu).expect("MTUs are small")).max(packet.len());
    assert_eq!(len, expected, "a packet of {} octets is padded", packet.len());
    [packet, &vec![0; len - packet.len()]].concat()
}

/// Where a path leads, which is always one of UDP here.
fn address(path: &Path) -> SocketAddr {
    path.remote.socket_addr().expect("it is one of UDP")
}
