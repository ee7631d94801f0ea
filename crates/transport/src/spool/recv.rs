//! Receiving: one file at a time.

use std::ops::Range;

use super::file::FILE_MAX;
use super::side::Side;

/// The records of one file, as [`Reader::recv`](super::Reader::recv) left them.
///
/// Made once for each receiving thread; it holds a little more than 1 MiB, of which only what was written to
/// takes memory.
pub struct RecvBatch {
    arena: Box<[u8]>,
    records: Vec<Range<usize>>,
    from: Option<Side>,
}

impl RecvBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self { arena: vec![0; FILE_MAX].into_boxed_slice(), records: Vec::new(), from: None }
    }

    /// Who says to have written the records; nobody has proved it. `None` if there are none.
    pub fn from(&self) -> Option<&Side> {
        self.from.as_ref()
    }

    /// The octets that the ranges of records refer to.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// Where the records stand in the arena, in the order in which they were written.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        self.records.iter().cloned()
    }

    /// The records together with the arena, to open them in place while going through them.
    pub fn split(&mut self) -> (impl ExactSizeIterator<Item = Range<usize>>, &mut [u8]) {
        (self.records.iter().cloned(), &mut self.arena)
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.from = None;
    }

    pub(super) fn set_from(&mut self, from: Side) {
        self.from = Some(from);
    }

    /// The arena to read a file into, and where the ranges of its records go.
    pub(super) fn parts(&mut self) -> (&mut [u8], &mut Vec<Range<usize>>) {
        (&mut self.arena, &mut self.records)
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}
