//! What was seen on the wire: the four messages of WireGuard, by type.

use std::net::IpAddr;

use lab::topology::ETH0;
use lab::{Capture, Filter, Host};
use wire::ethernet::{self, Frame};
use wire::{ipv4, ipv6, udp};

use crate::party::PORT;
use crate::rig::{soon, wire::refuse_super_packets};

/// The octets of IP and UDP headers around a message, by family.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// The longest packet that the wire carries, in octets.
const WIRE_MTU: usize = 1500;

/// The type of a message (whitepaper, section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Initiation = 1,
    Response = 2,
    CookieReply = 3,
    Data = 4,
}

/// A message that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: Type,
    pub(crate) source: IpAddr,
    /// In octets.
    pub(crate) length: usize,
}

/// Sees every message on the Ethernet of one host.
#[derive(Debug)]
pub(crate) struct Messages {
    capture: Capture,
    seen: Vec<Seen>,
}

impl Messages {
    /// Sees messages at `host` from here on, each as it is on a wire that knows no super-packets; `others` are at the
    /// other ends of that wire.
    pub(crate) fn watch(host: &Host, others: &[&Host]) -> Self {
        for end in [host].iter().chain(others) {
            refuse_super_packets(end);
        }
        let capture = Capture::start(host, ETH0, &Filter::everything()).unwrap();
        Self { capture, seen: Vec::new() }
    }

    /// All messages so far, in their order.
    pub(crate) fn so_far(&mut self) -> &[Seen] {
        while let Some(packet) = self.capture.take().unwrap() {
            self.seen.extend(Seen::parse(&packet.octets));
        }
        assert_eq!(self.capture.tally().unwrap().lost, 0, "not every packet was seen");
        &self.seen
    }

    /// How many messages of a type there were so far.
    pub(crate) fn count(&mut self, kind: Type) -> usize {
        self.so_far().iter().filter(|seen| seen.kind == kind).count()
    }

    /// Waits until there were `count` messages of a type.
    pub(crate) fn wait_for(&mut self, kind: Type, count: usize) {
        let came = soon().wait_until(|| (self.count(kind) >= count).then_some(()));
        came.unwrap_or_else(|error| panic!("{count} of {kind:?}: {error}: {:?}", self.seen));
    }

    /// The first message of a type, if there was one.
    pub(crate) fn first(&mut self, kind: Type) -> Option<Seen> {
        self.so_far().iter().copied().find(|seen| seen.kind == kind)
    }
}

impl Seen {
    /// The message in a frame, which is not fragmented and no longer than the wire is wide.
    fn parse(frame: &[u8]) -> Option<Self> {
        let frame = Frame::parse(frame).unwrap();
        let (source, datagram) = match frame.ethertype() {
            ethernet::IPV4 => {
                let packet = ipv4::Packet::parse(frame.payload()).unwrap();
                assert!(!packet.is_fragment(), "a fragment on the wire");
                let is_udp = packet.protocol() == udp::PROTOCOL;
                (packet.source().into(), is_udp.then(|| packet.payload())?)
            }
            ethernet::IPV6 => {
                let packet = ipv6::Packet::parse(frame.payload()).unwrap();
                assert!(packet.fragment().is_none(), "a fragment on the wire");
                let is_udp = packet.protocol() == udp::PROTOCOL;
                (packet.source().into(), is_udp.then(|| packet.payload())?)
            }
            _ => return None,
        };
        let datagram = udp::Packet::parse(datagram).unwrap();
        let (from, to) = (datagram.source_port(), datagram.destination_port());
        ([from, to].contains(&PORT)).then(|| Self::of(source, datagram.payload()))
    }

    fn of(source: IpAddr, message: &[u8]) -> Self {
        let headers = if source.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        assert!(message.len() + headers <= WIRE_MTU, "{} octets in a message", message.len());
        let kind = match (message.first(), message.len()) {
            (Some(1), 148) => Type::Initiation,
            (Some(2), 92) => Type::Response,
            (Some(3), 64) => Type::CookieReply,
            (Some(4), 32..) => Type::Data,
            _ => panic!("no message of WireGuard: {message:02x?}"),
        };
        Self { kind, source, length: message.len() }
    }
}
