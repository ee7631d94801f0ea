//! What the tests of a running tunnel are made of.
//!
//! | file | holds |
//! |---|---|
//! | `tunnel` | `adit up` in a host: what it says, what it counted, how it ends |
//! | `pair` | two hosts, each with its end of one tunnel |
//! | `sealed` | hosts with keys, whose tunnels are sessions |
//! | `folder` | hosts with nothing in common but a folder, and tunnels through it |
//! | `numbered` | numbered datagrams: which arrived, and when |
//! | `gateway` | two hosts with a tunnel, and a third behind it |
//! | `udp`, `tcp`, `ping` | traffic whose every octet is compared |
//! | `packet` | inner packets made by hand |
//! | `wire` | outer datagrams, each of them judged |
//! | `sh` | a host as an administrator sees it |
//! | `state` | what a host's network looks like, and the kernel's counters |
//! | `program` | programs of others |
//! | `names` | a server that tells where names lead |
//! | `private` | programs with mounts of their own |
//! | `sys` | system calls that have no safe wrapper |

use std::time::Duration;

use lab::Deadline;

pub(crate) mod folder;
pub(crate) mod gateway;
pub(crate) mod names;
pub(crate) mod numbered;
pub(crate) mod packet;
pub(crate) mod pair;
pub(crate) mod ping;
pub(crate) mod private;
pub(crate) mod program;
pub(crate) mod sealed;
pub(crate) mod sh;
pub(crate) mod state;
#[expect(unsafe_code, reason = "UDP_SEGMENT and packet sockets have no safe wrapper")]
pub(crate) mod sys;
pub(crate) mod tcp;
pub(crate) mod tunnel;
pub(crate) mod udp;
pub(crate) mod wire;

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// [`PATIENCE`] from here on.
pub(crate) fn soon() -> Deadline<'static> {
    Deadline::after(PATIENCE)
}

/// Octets that depend on `seed` and do not repeat.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(u64);

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Fills `octets` with the next octets (xorshift64).
    pub(crate) fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// The next `length` octets.
    pub(crate) fn octets(&mut self, length: usize) -> Vec<u8> {
        let mut octets = vec![0; length];
        self.fill(&mut octets);
        octets
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
