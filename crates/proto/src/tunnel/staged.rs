//! Packets that wait for a session.

use std::collections::VecDeque;

/// The most packets that wait for one peer (`MAX_STAGED_PACKETS` in Linux `messages.h`).
pub(super) const PACKETS_MAX: usize = 128;
/// The most octets that wait for all peers together.
pub(super) const OCTETS_MAX: usize = 16 << 20;

/// The packets that wait for one peer, oldest first.
#[derive(Debug, Default)]
pub(super) struct Staged {
    packets: VecDeque<Vec<u8>>,
}

impl Staged {
    /// Adds a packet and counts its octets into the `total` of all peers. The oldest ones of this peer make room for
    /// it; returns how many packets were dropped.
    pub(super) fn push(&mut self, total: &mut usize, packet: &[u8]) -> u64 {
        let mut dropped = 0;
        while self.is_full(*total, packet.len()) && self.pop(total).is_some() {
            dropped += 1;
        }
        if self.is_full(*total, packet.len()) {
            return dropped + 1;
        }
        *total += packet.len();
        self.packets.push_back(packet.to_vec());
        dropped
    }

    /// Takes the oldest packet.
    pub(super) fn pop(&mut self, total: &mut usize) -> Option<Vec<u8>> {
        let packet = self.packets.pop_front()?;
        *total -= packet.len();
        Some(packet)
    }

    /// Drops all packets; returns how many.
    pub(super) fn clear(&mut self, total: &mut usize) -> u64 {
        let mut dropped = 0;
        while self.pop(total).is_some() {
            dropped += 1;
        }
        dropped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn is_full(&self, total: usize, len: usize) -> bool {
        self.packets.len() >= PACKETS_MAX || total + len > OCTETS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_packet_makes_room() {
        let (mut staged, mut total) = (Staged::default(), 0);
        for octet in 0..=u8::try_from(PACKETS_MAX).unwrap() {
            let dropped = staged.push(&mut total, &[octet]);
            assert_eq!(dropped, u64::from(usize::from(octet) == PACKETS_MAX));
        }
        assert_eq!(total, PACKETS_MAX);
        assert_eq!(staged.pop(&mut total), Some(vec![1]));
        assert_eq!(staged.clear(&mut total), PACKETS_MAX as u64 - 1);
        assert_eq!(total, 0);
    }

    #[test]
    fn octets_of_all_peers_are_limited() {
        let (mut first, mut second, mut total) = (Staged::default(), Staged::default(), 0);
        let half = vec![0; OCTETS_MAX / 2];
        assert_eq!(first.push(&mut total, &half), 0);
        assert_eq!(first.push(&mut total, &half), 0);
        assert_eq!(second.push(&mut total, &[0]), 1);
        assert!(second.is_empty());
        assert_eq!(first.push(&mut total, &half), 1);
        assert_eq!(total, OCTETS_MAX);
    }
}
