//! Octets that may hold keys: memory that they have left is overwritten.
//!
//! A vector that grows or shrinks leaves its octets where they were. This one overwrites them first. So of a key that
//! travels between the processes nothing stays but the key itself.

use std::io::{self, Write};

use zeroize::{Zeroize, Zeroizing};

/// The least room.
const LEAST: usize = 4096;

/// A growing run of octets.
#[derive(Debug, Default)]
pub(crate) struct Octets(Zeroizing<Vec<u8>>);

impl Octets {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn push(&mut self, octets: &[u8]) {
        let length = self.0.len() + octets.len();
        if length > self.0.capacity() {
            self.move_to(length.max(2 * self.0.capacity()).max(LEAST));
        }
        self.0.extend_from_slice(octets);
    }

    /// Takes the first `length` octets away; room for more than `kept` octets is given back.
    pub(crate) fn remove(&mut self, length: usize, kept: usize) {
        let (removed, rest) = (length.min(self.0.len()), self.0.len());
        self.0.copy_within(removed.., 0);
        let rest = rest - removed;
        if let Some(left) = self.0.get_mut(rest..) {
            left.zeroize();
        }
        self.0.truncate(rest);
        if self.0.capacity() > kept.max(rest) {
            self.move_to(kept.max(rest));
        }
    }

    /// Moves what is there into memory with room for `capacity` octets.
    fn move_to(&mut self, capacity: usize) {
        let mut moved = Zeroizing::new(Vec::with_capacity(capacity));
        moved.extend_from_slice(&self.0);
        self.0 = moved;
    }
}

impl Write for Octets {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.push(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_stays_in_order_while_room_grows_and_shrinks() {
        let mut octets = Octets::default();
        let long: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        octets.push(&long);
        octets.push(b"end");
        assert_eq!(octets.as_slice(), [&long[..], b"end"].concat());
        octets.remove(9_999, 100);
        assert_eq!(octets.as_slice(), [&long[9_999..], b"end"].concat());
        assert!(octets.0.capacity() < 10_000);
        octets.remove(99, 100);
        assert!(octets.as_slice().is_empty());
    }
}
