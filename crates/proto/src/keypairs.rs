//! Finding the keypair that a message is for, by its receiver index.
//!
//! # Theory of operation
//!
//! Whoever sends a message writes the receiver's index into it, which the receiver has chosen (whitepaper,
//! section 5.4). Here an index is a *slot* in its low 18 bits and a random number above. The slot is
//! where the keypair is, so a lookup searches nothing; the number tells it from the one that had the
//! slot before.
//!
//! [`Indices`] hands them out, to the one task that makes handshakes; slots come back into use in the
//! order in which they were given back, so as late as possible. [`KeypairTable`] is shared: lookups
//! take no lock, and whoever looks up keeps what it found, even if it is removed meanwhile.
//!
//! Slots lie in chunks that are made when first needed and never move, so a small tunnel has a small table.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};

use crate::keypair::Keypair;
use crate::peer::{PeerIndex, PeerTable};
use crate::random::Random;

/// The most indices in use at a time: three keypairs and one handshake for every peer.
pub const MAX_INDICES: usize = 4 * (PeerTable::CAPACITY + 1);

const SLOT_BITS: u32 = MAX_INDICES.ilog2();
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// A returned slot is not used again before so many others.
const RESTING: usize = 64;

const CHUNK_LEN: usize = 256;
const CHUNKS: usize = MAX_INDICES / CHUNK_LEN;

type Chunk = [ArcSwapOption<Entry>; CHUNK_LEN];

/// Keypairs by receiver index, shared by all threads.
pub struct KeypairTable {
    chunks: Box<[OnceLock<Box<Chunk>>; CHUNKS]>,
}

struct Entry {
    peer: PeerIndex,
    keypair: Arc<Keypair>,
}

impl KeypairTable {
    /// A table of no keypairs.
    pub fn new() -> Self {
        Self { chunks: Box::new([const { OnceLock::new() }; CHUNKS]) }
    }

    /// The keypair with this receiver index, and whose it is.
    #[inline]
    pub fn get(&self, index: u32) -> Option<Found> {
        let (chunk, slot) = place(index);
        let entry = self.chunks[chunk].get()?[slot].load();
        let found = entry.as_ref().is_some_and(|entry| entry.keypair.local() == index);
        found.then_some(Found(entry))
    }

    /// Puts a peer's keypair at its local index, in the place of whatever is in that slot.
    pub fn insert(&self, peer: PeerIndex, keypair: Arc<Keypair>) {
        let (chunk, slot) = place(keypair.local());
        let chunk = self.chunks[chunk]
            .get_or_init(|| Box::new([const { ArcSwapOption::const_empty() }; CHUNK_LEN]));
        chunk[slot].store(Some(Arc::new(Entry { peer, keypair })));
    }

    /// Forgets the keypair with this index, if there is one.
    pub fn remove(&self, index: u32) {
        let (chunk, slot) = place(index);
        if self.get(index).is_some()
            && let Some(chunk) = self.chunks[chunk].get()
        {
            chunk[slot].store(None);
        }
    }
}

/// A keypair in the table; it stays alive as long as this does.
pub struct Found(Guard<Option<Arc<Entry>>>);

impl Found {
    /// Whose it is.
    #[inline]
    pub fn peer(&self) -> PeerIndex {
        self.entry().peer
    }

    /// The keypair.
    #[inline]
    pub fn keypair(&self) -> &Arc<Keypair> {
        &self.entry().keypair
    }

    #[inline]
    fn entry(&self) -> &Entry {
        self.0.as_ref().expect("only what is there is found")
    }
}

/// The indices that are free.
#[derive(Debug, Default)]
pub struct Indices {
    /// Slots from here on have never been used.
    unused: u32,
    returned: VecDeque<u32>,
}

impl Indices {
    /// All indices are free.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an index, or none if [`MAX_INDICES`] are in use.
    pub fn claim(&mut self, random: &mut dyn Random) -> Option<u32> {
        let slot = self.slot()?;
        Some(random.u32() & !SLOT_MASK | slot)
    }

    /// Gives an index back, which the caller has from [`Self::claim`] and no longer uses.
    pub fn release(&mut self, index: u32) {
        self.returned.push_back(index & SLOT_MASK);
    }

    /// An unused slot as long as few have been returned, so that those rest for a while.
    fn slot(&mut self) -> Option<u32> {
        let rested = self.returned.len() >= RESTING || self.unused > SLOT_MASK;
        if rested && let Some(slot) = self.returned.pop_front() {
            return Some(slot);
        }
        let slot = (self.unused <= SLOT_MASK).then_some(self.unused)?;
        self.unused += 1;
        Some(slot)
    }
}

impl Default for KeypairTable {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for KeypairTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeypairTable(..)")
    }
}

/// The chunk of an index's slot, and where in it.
fn place(index: u32) -> (usize, usize) {
    let slot = (index & SLOT_MASK) as usize;
    (slot / CHUNK_LEN, slot % CHUNK_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    use crate::keypair::{Ciphers, Role};
    use crate::noise::{CipherKeys, SessionKeys};
    use crate::random::Count;
    use crate::time::Instant;

    fn keypair(local: u32) -> Arc<Keypair> {
        let keys = || CipherKeys { chacha: [1; 32], aes: [2; 32] };
        let keys = SessionKeys { send: keys(), receive: keys() };
        let ciphers = Ciphers { chacha: true, aes: false };
        Arc::new(Keypair::new(keys, local, 9, Role::Initiator, Instant::ZERO, ciphers))
    }

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let table = KeypairTable::new();
        let index = Indices::new().claim(&mut Count(0)).unwrap();
        assert!(table.get(index).is_none());
        table.insert(PeerIndex(3), keypair(index));
        let found = table.get(index).unwrap();
        assert_eq!((found.peer(), found.keypair().local()), (PeerIndex(3), index));
        table.remove(index);
        assert!(table.get(index).is_none());
        assert_eq!(found.keypair().local(), index, "what is found stays");
    }

    #[test]
    fn an_index_with_another_number_is_not_found() {
        let table = KeypairTable::new();
        let index = 5 << SLOT_BITS | 77;
        table.insert(PeerIndex(0), keypair(index));
        for other in [77, 4 << SLOT_BITS | 77, 5 << SLOT_BITS | 78, u32::MAX, 0] {
            assert!(table.get(other).is_none(), "{other:#x}");
            table.remove(other);
        }
        assert!(table.get(index).is_some());
        table.insert(PeerIndex(1), keypair(4 << SLOT_BITS | 77));
        assert!(table.get(index).is_none());
    }

    #[test]
    fn every_index_has_a_slot_of_its_own_and_they_end() {
        let (mut indices, mut random) = (Indices::new(), Count(0));
        let claimed: Vec<_> = std::iter::from_fn(|| indices.claim(&mut random)).collect();
        let slots: HashSet<_> = claimed.iter().map(|index| index & SLOT_MASK).collect();
        assert_eq!((claimed.len(), slots.len()), (MAX_INDICES, MAX_INDICES));
        indices.release(claimed[5]);
        let again = indices.claim(&mut random).unwrap();
        assert_eq!(again & SLOT_MASK, claimed[5] & SLOT_MASK);
        assert!(indices.claim(&mut random).is_none());
        let table = KeypairTable::new();
        table.insert(PeerIndex(0), keypair(again));
        assert!(table.get(again).is_some());
    }

    #[test]
    fn a_slot_rests_before_it_is_used_again() {
        let (mut indices, mut random) = (Indices::new(), Count(0));
        let slots: Vec<_> = (0..3 * RESTING)
            .map(|_| {
                let index = indices.claim(&mut random).unwrap();
                indices.release(index);
                index & SLOT_MASK
            })
            .collect();
        for window in slots.windows(RESTING) {
            assert_eq!(window.iter().collect::<HashSet<_>>().len(), RESTING);
        }
        assert!(
            slots.iter().all(|&slot| (slot as usize) < 2 * RESTING),
            "and the table stays small"
        );
    }

    #[test]
    fn lookups_go_on_while_keypairs_are_replaced() {
        let (table, first, second) = (KeypairTable::new(), 1 << SLOT_BITS, 2 << SLOT_BITS);
        table.insert(PeerIndex(1), keypair(first));
        let (one, two) = (keypair(first), keypair(second));
        std::thread::scope(|scope| {
            let readers: Vec<_> = [(first, PeerIndex(1)), (second, PeerIndex(2))]
                .into_iter()
                .map(|(index, peer)| {
                    let table = &table;
                    scope.spawn(move || {
                        for found in (0..20_000).filter_map(|_| table.get(index)) {
                            assert_eq!((found.keypair().local(), found.peer()), (index, peer));
                        }
                    })
                })
                .collect();
            while !readers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                table.insert(PeerIndex(2), two.clone());
                table.insert(PeerIndex(1), one.clone());
            }
        });
    }
}
