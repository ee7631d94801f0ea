//! Frames: where a message in a stream of octets begins and ends.
//!
//! ```text
//! | length (4, little endian) | octets of the message |
//! ```

use thiserror::Error;
use zeroize::Zeroizing;

use super::octets::Octets;

/// Octets of the length.
const HEADER: usize = size_of::<u32>();

/// Room that is kept when a longer message has been taken.
const KEPT: usize = 64 << 10;

/// A frame is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a message of {length} octets, where {limit} are the most")]
pub(crate) struct FrameError {
    /// How long the message is, or pretends to be.
    pub(crate) length: usize,
    /// How long it may be.
    pub(crate) limit: usize,
}

/// The header of a message of `length` octets, of which it has at most `limit`.
pub(crate) fn header(length: usize, limit: usize) -> Result<[u8; HEADER], FrameError> {
    let header = u32::try_from(length).ok().filter(|_| length <= limit);
    header.map(u32::to_le_bytes).ok_or(FrameError { length, limit })
}

/// What has come of a stream and is not taken yet.
///
/// Invariant: it grows by what is pushed only, never by what a header promises.
#[derive(Debug)]
pub(crate) struct Frames {
    octets: Octets,
    limit: usize,
}

impl Frames {
    /// Nothing yet; messages have at most `limit` octets.
    pub(crate) fn new(limit: usize) -> Self {
        Self { octets: Octets::default(), limit }
    }

    /// Adds what came.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        self.octets.push(octets);
    }

    /// The next message that is complete. After an error there is none ever again.
    pub(crate) fn take(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, FrameError> {
        let Some((header, rest)) = self.octets.as_slice().split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let limit = self.limit;
        let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        if length > limit {
            return Err(FrameError { length, limit });
        }
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.octets.remove(HEADER + length, KEPT);
        Ok(Some(Zeroizing::new(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message with its header.
    fn emit(message: &[u8], limit: usize) -> Vec<u8> {
        [&header(message.len(), limit).unwrap(), message].concat()
    }

    #[test]
    fn a_header_is_a_length() {
        assert_eq!(header(3, 3), Ok([3, 0, 0, 0]));
        assert_eq!(header(4, 3), Err(FrameError { length: 4, limit: 3 }));
        assert_eq!(header(0, 0), Ok([0; 4]));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_header_alone() {
        let mut frames = Frames::new(1000);
        frames.push(&[0xe9, 0x03, 0, 0]);
        let refused = Err(FrameError { length: 1001, limit: 1000 });
        assert_eq!(frames.take(), refused);
        frames.push(&[0; 2000]);
        assert_eq!(frames.take(), refused);
    }

    #[test]
    fn a_part_of_a_message_is_none() {
        let mut frames = Frames::new(1000);
        frames.push(&[2, 0, 0]);
        assert_eq!(frames.take(), Ok(None));
        frames.push(&[0, 7]);
        assert_eq!(frames.take(), Ok(None));
        frames.push(&[8, 1, 0, 0, 0]);
        assert_eq!(frames.take(), Ok(Some(vec![7, 8].into())));
        assert_eq!(frames.take(), Ok(None));
    }

    /// Cuts `stream` into pieces of these sizes, over and over.
    fn pieces<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for &size in sizes.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            let (piece, rest) = stream.split_at(size.min(stream.len()));
            pieces.push(piece);
            stream = rest;
        }
        pieces
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_the_messages_are_those_that_were_sent(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
            sizes in prop::collection::vec(1_usize..40, 1..10),
        ) {
            let stream: Vec<u8> =
                messages.iter().flat_map(|message| emit(message, 50)).collect();
            let mut frames = Frames::new(50);
            let mut arrived = Vec::new();
            for piece in pieces(&stream, &sizes) {
                frames.push(piece);
                while let Some(message) = frames.take().unwrap() {
                    arrived.push(message.to_vec());
                }
            }
            prop_assert_eq!(arrived, messages);
        }

        #[test]
        fn garbage_yields_no_message_that_is_longer_than_allowed(
            garbage in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let mut frames = Frames::new(30);
            let mut pushed = 0;
            for piece in garbage {
                frames.push(&piece);
                pushed += piece.len();
                prop_assert!(frames.octets.as_slice().len() <= pushed);
                while let Ok(Some(message)) = frames.take() {
                    prop_assert!(message.len() <= 30);
                }
            }
        }
    }
}
