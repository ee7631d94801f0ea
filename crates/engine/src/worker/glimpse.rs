//! Some of the packets, in one line each, for who asks to see more (`-v`).
//!
//! A lane shows a few packets a second and says how many it did not show; a flood costs no more than that. Whether
//! packets are shown at all is decided when the lane is made.

use std::time::{Duration, Instant};

use wire::offload::LinkLayer;
use wire::summary::Summary;

/// So many packets are shown in one [`INTERVAL`].
const MOST: u32 = 10;

const INTERVAL: Duration = Duration::from_secs(1);

/// What a lane shows of its packets.
pub(super) struct Glimpse {
    /// None if packets are not shown.
    since: Option<Instant>,
    link: LinkLayer,
    direction: &'static str,
    shown: u32,
    hidden: u64,
}

impl Glimpse {
    /// What is shown of packets in this direction: all of them if that was asked for, at a bounded rate.
    pub(super) fn new(link: LinkLayer, direction: &'static str) -> Self {
        let shows = tracing::enabled!(tracing::Level::DEBUG);
        let since = shows.then(Instant::now);
        Self { since, link, direction, shown: 0, hidden: 0 }
    }

    /// Shows a packet or super-packet, if it is shown.
    #[inline]
    pub(super) fn pass(&mut self, packet: &[u8]) {
        if self.since.is_some()
            && let Some(line) = self.look(Instant::now(), packet)
        {
            tracing::debug!("{line}");
        }
    }

    #[cold]
    fn look(&mut self, now: Instant, packet: &[u8]) -> Option<String> {
        let since = self.since?;
        let mut more = String::new();
        if now.duration_since(since) >= INTERVAL {
            if self.hidden > 0 {
                more = format!(" (and {} before it)", self.hidden);
            }
            (self.since, self.shown, self.hidden) = (Some(now), 0, 0);
        }
        if self.shown == MOST {
            self.hidden += 1;
            return None;
        }
        self.shown += 1;
        Some(format!("{} {}{more}", self.direction, Summary::new(self.link, packet)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ICMP echo request from 10.9.0.1 to 10.9.0.2.
    const PACKET: [u8; 28] =
        [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, 8, 0, 0, 0, 0, 1, 0, 1];

    #[test]
    fn a_flood_is_shown_by_its_first_packets_and_counted() {
        let start = Instant::now();
        let mut glimpse = Glimpse::new(LinkLayer::Ip, "out");
        glimpse.since = Some(start);
        let shown: Vec<_> = (0..50).filter_map(|_| glimpse.look(start, &PACKET)).collect();
        assert_eq!(shown.len(), 10);
        assert!(shown[0].starts_with("out IPv4 10.9.0.1 > 10.9.0.2: ICMP"), "{}", shown[0]);
        let later = glimpse.look(start + INTERVAL, &PACKET).unwrap();
        assert!(later.ends_with("(and 40 before it)"), "{later}");
        assert!(!glimpse.look(start + INTERVAL, &PACKET).unwrap().contains("before it"));
    }

    #[test]
    fn nothing_is_shown_to_who_did_not_ask() {
        let mut glimpse = Glimpse { since: None, ..Glimpse::new(LinkLayer::Ip, "in") };
        assert_eq!(glimpse.look(Instant::now(), &PACKET), None);
    }
}
