//! Groups: datagrams that may share a message.
//!
//! The joining rule is that of `UDP_SEGMENT` (udp(7), `udp_send_skb` in Linux `net/ipv4/udp.c`):
//! one destination, one size that is not zero, a last datagram that may be shorter and ends the
//! group, a limit on datagrams and one on octets. The datagrams of a group stand one behind the
//! other in the send buffer.

use std::ops::Range;

use super::address::Destination;

/// The most datagrams in one message (`UDP_MAX_SEGMENTS` since Linux 6.9).
pub const SEGMENTS: usize = 128;

/// The most datagrams in one message before Linux 6.9.
pub(super) const SEGMENTS_BEFORE_6_9: usize = 64;

/// The most octets in a group of several datagrams.
///
/// A packet of 65,535 octets leaves 65,507 (IPv4), but a device takes only what is shorter than its
/// `gso_max_size`, 65,536 octets unless set lower, *with* all headers (`gso_features_check` in
/// Linux `net/core/dev.c`); the kernel would cut a longer one itself. So: IPv6 (40), UDP (8),
/// Ethernet with a VLAN tag (18).
pub(super) const GROUP_OCTETS: usize = 65_535 - 40 - 8 - 18;

/// Consecutive datagrams of one size for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) destination: Destination,
    /// Whether its datagrams go one a message, because the kernel refused them together.
    pub(super) singly: bool,
    range: Range<usize>,
    /// Size of every datagram but the last.
    segment_size: u16,
    datagrams: usize,
}

impl Group {
    /// The group of the one datagram at `range`.
    pub(super) fn new(range: Range<usize>, destination: Destination) -> Self {
        let segment_size = u16::try_from(range.len()).expect("a datagram is shorter than 64 KiB");
        Self { destination, singly: false, range, segment_size, datagrams: 1 }
    }

    /// Adds the datagram of `len` octets that stands behind the group; `false` if the rule forbids
    /// it.
    pub(super) fn join(&mut self, len: usize, destination: &Destination) -> bool {
        let segment_size = usize::from(self.segment_size);
        let admitted = len > 0
            && len <= segment_size
            && self.range.len() == segment_size * self.datagrams
            && self.datagrams < SEGMENTS
            && self.range.len() + len <= GROUP_OCTETS
            && !self.singly
            && self.destination == *destination;
        if admitted {
            self.range.end += len;
            self.datagrams += 1;
        }
        admitted
    }

    /// The number of datagrams.
    pub(super) fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// Where in the send buffer its datagrams stand.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Size of every datagram but the last, for a group of several.
    pub(super) fn segment_size(&self) -> u16 {
        self.segment_size
    }

    /// The messages that it makes where the socket takes `segments` datagrams in one: where each
    /// stands in the send buffer and how many datagrams it holds.
    pub(super) fn messages(
        &self,
        segments: usize,
    ) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
        let segments = if self.singly { 1 } else { segments.max(1) };
        let Range { start, end } = self.range;
        let (size, datagrams) = (usize::from(self.segment_size), self.datagrams);
        (0..datagrams).step_by(segments).map(move |first| {
            let last = datagrams.min(first + segments);
            (start + first * size..end.min(start + last * size), last - first)
        })
    }

    /// Removes the first `datagrams`, which must be fewer than all.
    pub(super) fn remove_first(&mut self, datagrams: usize) {
        debug_assert!(datagrams < self.datagrams, "a group is never empty");
        self.range.start += datagrams * usize::from(self.segment_size);
        self.datagrams -= datagrams;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(port: u16) -> Destination {
        Destination { remote: ([127, 0, 0, 1], port).into(), local: None }
    }

    /// The groups that datagrams of these sizes for one destination make, each by the sizes in it.
    fn groups_of(sizes: &[usize]) -> Vec<Vec<usize>> {
        let mut groups: Vec<(Group, Vec<usize>)> = Vec::new();
        let mut end = 0;
        for &size in sizes {
            let open = groups.last_mut().map(|(group, _)| group.join(size, &destination(1)));
            if open != Some(true) {
                groups.push((Group::new(end..end + size, destination(1)), Vec::new()));
            }
            end += size;
            let (group, sizes) = groups.last_mut().unwrap();
            sizes.push(size);
            assert_eq!(group.datagrams(), sizes.len());
            assert_eq!(group.range(), end - sizes.iter().sum::<usize>()..end);
        }
        groups.into_iter().map(|(_, sizes)| sizes).collect()
    }

    #[test]
    fn equal_sizes_join() {
        assert_eq!(groups_of(&[100, 100, 100]), [vec![100, 100, 100]]);
    }

    #[test]
    fn a_shorter_datagram_ends_a_group() {
        assert_eq!(groups_of(&[100, 100, 99, 99, 100]), [vec![100, 100, 99], vec![99], vec![100]]);
        assert_eq!(groups_of(&[100, 1, 1, 1]), [vec![100, 1], vec![1, 1]]);
    }

    #[test]
    fn a_longer_datagram_starts_a_group() {
        assert_eq!(groups_of(&[99, 100, 100]), [vec![99], vec![100, 100]]);
    }

    #[test]
    fn a_datagram_without_octets_stands_alone() {
        assert_eq!(groups_of(&[0, 0]), [[0], [0]]);
        assert_eq!(groups_of(&[100, 0, 100]), [[100], [0], [100]]);
        assert_eq!(groups_of(&[0, 1, 1]), [vec![0], vec![1, 1]]);
    }

    #[test]
    fn a_group_holds_128_datagrams() {
        assert_eq!(groups_of(&[64; 129]), [vec![64; 128], vec![64]]);
    }

    #[test]
    fn a_group_of_several_fits_a_device() {
        assert_eq!(groups_of(&[1472; 45]), [vec![1472; 44], vec![1472]]);
        assert_eq!(groups_of(&[65_507, 1]), [[65_507], [1]]);
        assert_eq!(groups_of(&[65_468, 1, 1]), [vec![65_468, 1], vec![1]]);
        assert_eq!(groups_of(&[65_468, 2]), [[65_468], [2]]);
    }

    #[test]
    fn another_destination_starts_a_group() {
        let mut group = Group::new(0..100, destination(1));
        assert!(!group.join(100, &destination(2)));
        let local = Some(super::super::LocalAddr { ip: [127, 0, 0, 2].into(), interface: 0 });
        assert!(!group.join(100, &Destination { local, ..destination(1) }));
        assert!(group.join(100, &destination(1)));
    }

    #[test]
    fn messages_hold_what_the_socket_takes() {
        let mut group = Group::new(10..110, destination(1));
        for size in [100, 100, 100, 7] {
            assert!(group.join(size, &destination(1)));
        }
        let messages = |group: &Group, segments| group.messages(segments).collect::<Vec<_>>();
        assert_eq!(messages(&group, 128), [(10..417, 5)]);
        assert_eq!(messages(&group, 2), [(10..210, 2), (210..410, 2), (410..417, 1)]);
        group.remove_first(2);
        assert_eq!(messages(&group, 64), [(210..417, 3)]);
        group.singly = true;
        assert_eq!(messages(&group, 64), [(210..310, 1), (310..410, 1), (410..417, 1)]);
        assert!(!group.join(100, &destination(1)));
    }
}
