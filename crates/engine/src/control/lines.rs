//! Lines of what a client sends.

use zeroize::Zeroizing;

/// What has come of a stream, and is not taken yet.
///
/// Invariant: its memory neither grows nor moves, and is overwritten in the end.
#[derive(Debug)]
pub(super) struct Lines {
    octets: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Lines {
    /// Nothing yet; a line has at most `longest` octets without its end.
    pub(super) fn new(longest: usize) -> Self {
        Self { octets: Zeroizing::new(vec![0; longest + 1]), start: 0, end: 0 }
    }

    /// Where octets that come are put; none if a line is too long.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.octets.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.octets.get_mut(self.end..).unwrap_or_default()
    }

    /// The first `count` octets of the room are filled.
    pub(super) fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.octets.len());
    }

    /// Whether there is a complete line.
    pub(super) fn has_line(&self) -> bool {
        self.length().is_some()
    }

    /// The next complete line without its end.
    pub(super) fn take(&mut self) -> Option<&[u8]> {
        let (start, length) = (self.start, self.length()?);
        self.start += length + 1;
        self.octets.get(start..start + length)
    }

    fn length(&self) -> Option<usize> {
        let rest = self.octets.get(self.start..self.end)?;
        rest.iter().position(|&octet| octet == b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_fits_or_leaves_no_room() {
        let mut lines = Lines::new(3);
        lines.room().copy_from_slice(b"abc\n");
        lines.fill(4);
        assert_eq!(lines.take(), Some(&b"abc"[..]));
        assert!(!lines.has_line());
        lines.room().copy_from_slice(b"abcd");
        lines.fill(4);
        assert_eq!(lines.take(), None);
        assert!(lines.room().is_empty());
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_its_lines_are_the_same(
            text in "[ab\n]{0,200}",
            sizes in prop::collection::vec(1_usize..7, 1..9),
        ) {
            // Longer ones are refused, so there are none.
            let expected: Vec<_> = text.split('\n').map(|line| &line[..line.len().min(5)]).collect();
            let text = expected.join("\n");
            let (mut lines, mut found) = (Lines::new(5), Vec::new());
            let (mut rest, mut sizes) = (text.as_bytes(), sizes.iter().cycle());
            while !rest.is_empty() {
                let room = lines.room();
                let count = room.len().min(rest.len()).min(*sizes.next().unwrap());
                prop_assert!(count > 0);
                room[..count].copy_from_slice(&rest[..count]);
                lines.fill(count);
                rest = &rest[count..];
                while let Some(line) = lines.take() {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(&found[..], &expected[..expected.len() - 1]);
        }
    }
}
