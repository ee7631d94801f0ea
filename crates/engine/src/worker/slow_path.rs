//! What lanes cannot treat themselves, on its way to the first thread.
//!
//! # Theory of operation
//!
//! A lane carries data of sessions that there are. Handshakes, packets that wait for a session, control messages, and a
//! peer whose timers have to be looked at are for the state machine that the first thread drives. The
//! lane leaves them here and wakes that thread. This is off the fast path, so a lock serves.
//!
//! Everything has a limit, since strangers can have lanes put things here: what does not fit is dropped by the
//! lane that has it, and counted there.
//!
//! The first thread takes handshakes in portions, so that a flood of them, each some hundred microseconds of work,
//! does not keep it from timers and from sessions that there are. While many wait, it is *under load*, and for
//! a second after (`wg_receive_handshake_packet` in drivers/net/wireguard/receive.c).

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::{Path, PeerIndex};
use rustix::event::{EventfdFlags, eventfd};
use wire::message::INITIATION_LEN;

/// The most handshake messages that wait (`MAX_QUEUED_INCOMING_HANDSHAKES` in drivers/net/wireguard/messages.h).
const HANDSHAKES: usize = 4096;

/// As many handshake messages are a load (the same file's function has an eighth).
const LOAD: usize = HANDSHAKES / 8;

/// Handshake messages that are taken at a time.
const PORTION: usize = 64;

/// The most octets of packets that wait.
const PACKETS: usize = 4 << 20;

/// The most control messages that wait.
const CONTROLS: usize = 1024;

/// The longest handshake message.
const LONGEST: usize = INITIATION_LEN;

/// A handshake message, as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshake {
    pub(crate) from: Path,
    octets: [u8; LONGEST],
    length: usize,
}

impl Handshake {
    pub(crate) fn datagram(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) handshakes: VecDeque<Handshake>,
    /// Packets for a peer without session; complete.
    pub(crate) packets: VecDeque<(PeerIndex, Box<[u8]>)>,
    /// Control messages, with the receiver index of the session that they came in.
    pub(crate) controls: VecDeque<(u32, Box<[u8]>)>,
    /// Peers whose marks have changed.
    pub(crate) looks: BTreeSet<u16>,
    /// Whether a peer without endpoint has one now.
    pub(crate) path_learned: bool,
    /// Whether a folder is not what it was when it was opened.
    pub(crate) folder_gone: bool,
    /// Whether many handshakes wait.
    pub(crate) is_loaded: bool,
    /// Whether handshakes are left for the next time.
    pub(crate) is_rest: bool,
}

/// Between the lanes and the first thread.
#[derive(Debug)]
pub(crate) struct SlowPath {
    event: OwnedFd,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    work: Work,
    /// Octets of the packets.
    octets: usize,
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl SlowPath {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, waiting: Mutex::default() })
    }

    /// A handshake message; one that is too long is none.
    pub(crate) fn handshake(&self, from: Path, datagram: &[u8]) -> Result<(), Full> {
        let mut handshake = Handshake { from, octets: [0; LONGEST], length: datagram.len() };
        handshake.octets.get_mut(..datagram.len()).ok_or(Full)?.copy_from_slice(datagram);
        let handshakes = &mut self.waiting().work.handshakes;
        if handshakes.len() >= HANDSHAKES {
            return Err(Full);
        }
        handshakes.push_back(handshake);
        self.wake();
        Ok(())
    }

    /// A complete packet for a peer that has no session.
    pub(crate) fn packet(&self, peer: PeerIndex, packet: &[u8]) -> Result<(), Full> {
        let mut waiting = self.waiting();
        if waiting.octets + packet.len() > PACKETS {
            return Err(Full);
        }
        waiting.octets += packet.len();
        waiting.work.packets.push_back((peer, packet.into()));
        self.wake();
        Ok(())
    }

    /// A control message that came in the session with the receiver index `index`.
    pub(crate) fn control(&self, index: u32, message: &[u8]) -> Result<(), Full> {
        let controls = &mut self.waiting().work.controls;
        if controls.len() >= CONTROLS {
            return Err(Full);
        }
        controls.push_back((index, message.into()));
        self.wake();
        Ok(())
    }

    /// A peer's marks have changed.
    pub(crate) fn look(&self, peer: PeerIndex) {
        self.waiting().work.looks.insert(peer.0);
        self.wake();
    }

    /// A peer without endpoint has one now.
    pub(crate) fn path_learned(&self) {
        self.waiting().work.path_learned = true;
        self.wake();
    }

    /// A folder is not what it was when it was opened.
    pub(crate) fn folder_gone(&self) {
        self.waiting().work.folder_gone = true;
        self.wake();
    }

    /// A thread has ended; there is nothing else to say about it.
    pub(crate) fn wake(&self) {
        // A full counter means that it is woken already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// What waits; of handshakes a portion.
    pub(crate) fn take(&self) -> Work {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        let mut waiting = self.waiting();
        waiting.octets = 0;
        let mut work = std::mem::take(&mut waiting.work);
        work.is_loaded = work.handshakes.len() >= LOAD;
        if work.handshakes.len() > PORTION {
            waiting.work.handshakes = work.handshakes.split_off(PORTION);
            work.is_rest = true;
            self.wake();
        }
        work
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for SlowPath {
    /// Readable when something waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::TransportIndex;

    fn from() -> Path {
        Path { transport: TransportIndex(0), remote: "10.0.0.2:1".parse().unwrap(), local: None }
    }

    #[test]
    fn a_flood_of_handshakes_is_a_load_that_is_taken_in_portions() {
        let path = SlowPath::new().unwrap();
        let taken = (0..HANDSHAKES + 10).filter(|_| path.handshake(from(), &[1; 148]).is_ok());
        assert_eq!(taken.count(), HANDSHAKES);
        path.look(PeerIndex(3));
        let work = path.take();
        assert!(work.is_loaded && work.looks.contains(&3));
        assert_eq!(work.handshakes.len(), PORTION);
        let rest = std::iter::from_fn(|| Some(path.take().handshakes.len()).filter(|&len| len > 0));
        assert_eq!(rest.sum::<usize>(), HANDSHAKES - PORTION);
        assert!(!path.take().is_loaded);
    }

    #[test]
    fn what_waits_is_bounded_by_its_octets() {
        let path = SlowPath::new().unwrap();
        let packet = vec![0; 1 << 20];
        let taken = (0..9).filter(|_| path.packet(PeerIndex(0), &packet).is_ok()).count();
        assert_eq!(taken, 4);
        assert_eq!(path.take().packets.len(), 4);
        assert_eq!(path.packet(PeerIndex(0), &packet), Ok(()));
    }

    #[test]
    fn what_is_longer_than_every_handshake_message_is_not_taken() {
        let path = SlowPath::new().unwrap();
        assert_eq!(path.handshake(from(), &[0; LONGEST + 1]), Err(Full));
        assert_eq!(path.handshake(from(), &[7; 64]), Ok(()));
        assert_eq!(path.take().handshakes[0].datagram(), [7; 64]);
    }
}
