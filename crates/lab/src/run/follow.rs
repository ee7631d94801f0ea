//! Following one message through the hosts.
//!
//! Every message of `adit probe` carries the time at which it was sent and the number of its run,
//! and the answer repeats both (see [`crate::probe::message`]). Without encryption these octets are
//! the same in the inner packet and in the outer datagram around it, so a packet that has them is
//! that message, wherever it is seen. Times are the kernel's, from one clock for all hosts.

use std::time::Duration;

use serde::Serialize;
use wire::ethernet;
use wire::ipv4;
use wire::offload::LinkLayer;
use wire::summary::Summary;
use wire::udp;

use crate::capture::{Capture, CaptureError, NextError, Packet};
use crate::deadline::Deadline;
use crate::filter::Filter;
use crate::host::Host;

/// The mark before the time and the run in a message; answers have another.
const MESSAGE_MARK: u8 = b'@';

/// Octets of the time and the run.
const STAMP_LEN: usize = 15;

/// A message was seen on a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hop {
    /// The host.
    pub host: &'static str,
    /// The device.
    pub device: &'static str,
    /// Whether it was on its way out of the device.
    pub outgoing: bool,
    /// Whether it is the answer.
    pub answer: bool,
    /// Time since the message was seen first, in microseconds.
    pub offset_us: f64,
    /// What it was, in one line, without the Ethernet header.
    pub packet: String,
}

/// A place where messages pass.
#[derive(Debug)]
pub(super) struct Place {
    host: &'static str,
    device: &'static str,
    link: LinkLayer,
    /// Whether messages leave by this device; answers then enter by it.
    outgoing: bool,
    capture: Capture,
}

/// A message to be followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    stamp: [u8; STAMP_LEN],
    since: Duration,
}

impl Place {
    /// Watches `device` of `host`, which messages leave by (`outgoing`) or enter by.
    pub(super) fn watch(
        host: &Host,
        device: &'static str,
        link: LinkLayer,
        outgoing: bool,
        filter: &Filter,
    ) -> Result<Self, CaptureError> {
        let capture = Capture::start(host, device, filter)?;
        Ok(Self { host: host.name(), device, link, outgoing, capture })
    }

    /// Waits for the first message.
    pub(super) fn first(&mut self, deadline: Deadline<'_>) -> Result<(Message, Hop), NextError> {
        let outgoing = self.outgoing;
        let (packet, stamp) = self.capture.find(deadline, |packet| {
            let stamp = stamp_of(&packet.octets).filter(|_| packet.outgoing == outgoing)?;
            Some((packet, stamp))
        })?;
        let message = Message { stamp, since: packet.at };
        Ok((message, self.hop(&message, &packet, false)))
    }

    /// Waits for `message`, or for the answer to it.
    pub(super) fn find(
        &mut self,
        message: &Message,
        answer: bool,
        deadline: Deadline<'_>,
    ) -> Result<Hop, NextError> {
        let outgoing = self.outgoing != answer;
        let packet = self.capture.find(deadline, |packet| {
            let found = packet.outgoing == outgoing && message.is_in(&packet);
            found.then_some(packet)
        })?;
        Ok(self.hop(message, &packet, answer))
    }

    /// What is behind the Ethernet header, if there is one.
    fn ip_packet<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        match self.link {
            LinkLayer::Ip => octets,
            LinkLayer::Ethernet => ethernet::Frame::parse(octets).map_or(octets, |f| f.payload()),
        }
    }

    fn hop(&self, message: &Message, packet: &Packet, answer: bool) -> Hop {
        Hop {
            host: self.host,
            device: self.device,
            outgoing: packet.outgoing,
            answer,
            offset_us: offset_us(message.since, packet.at),
            packet: Summary::new(LinkLayer::Ip, self.ip_packet(&packet.octets)).to_string(),
        }
    }
}

impl Message {
    fn is_in(&self, packet: &Packet) -> bool {
        packet.octets.windows(STAMP_LEN).any(|window| window == self.stamp)
    }
}

/// What stands behind the mark of the first message in an IPv4 packet.
///
/// The UDP header is skipped and not checked: its length is that of one message, even if the packet
/// is a super-packet, and its checksum may be left to the device.
fn stamp_of(packet: &[u8]) -> Option<[u8; STAMP_LEN]> {
    let datagram = ipv4::Packet::parse(packet).ok()?.payload();
    let payload = datagram.get(udp::HEADER_LEN..)?;
    let mark = payload.iter().position(|&octet| octet == MESSAGE_MARK)?;
    payload.get(mark + 1..)?.first_chunk().copied()
}

/// From `since` to `at` in microseconds; negative if `at` is earlier.
fn offset_us(since: Duration, at: Duration) -> f64 {
    let later = at.saturating_sub(since).as_secs_f64();
    let earlier = since.saturating_sub(at).as_secs_f64();
    (later - earlier) * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_found_behind_the_mark_and_not_in_a_header() {
        // From port 0xa140 with checksum 0x4040: both headers have octets that look like the mark.
        let mut packet = vec![
            0x45, 0, 0, 51, 0, 0x40, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, 0xa1, 0x40,
            0x1f, 0x90, 0, 31, 0x40, 0x40,
        ];
        packet.extend(b"0 Hello@dookvspq0l3k7wz");
        assert_eq!(stamp_of(&packet), Some(*b"dookvspq0l3k7wz"));
        packet.truncate(40);
        packet[3] = 40;
        assert_eq!(stamp_of(&packet), None);
    }
}
