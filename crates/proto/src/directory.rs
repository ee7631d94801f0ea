//! What the lanes know of all peers: a snapshot that never changes.
//!
//! # Theory of operation
//!
//! A lane asks three questions for every packet: whose it is ([`Routing`]), with what to seal it or whose
//! keypair opens it ([`Session`], [`KeypairTable`]), and where to send it. Only the first changes with the
//! configuration alone, so a directory is made when peers are set, and published as a whole. Sessions
//! and keypairs are shared between one directory and the next, so that replacing it disturbs nothing.

use std::sync::Arc;

use crate::keypairs::KeypairTable;
use crate::peer::PeerIndex;
use crate::routing::Routing;
use crate::session::Session;

/// The peers of a tunnel, immutable.
#[derive(Debug)]
pub struct Directory {
    /// Whose inner packets are.
    pub routing: Routing,
    /// Whose messages are, by receiver index.
    pub keypairs: Arc<KeypairTable>,
    sessions: Vec<Option<Arc<Session>>>,
}

impl Directory {
    /// The directory of these sessions, each at the place of its peer.
    pub fn new(
        routing: Routing,
        keypairs: Arc<KeypairTable>,
        sessions: Vec<Option<Arc<Session>>>,
    ) -> Self {
        Self { routing, keypairs, sessions }
    }

    /// What the lanes share of a peer, unless it was removed.
    #[inline]
    pub fn session(&self, peer: PeerIndex) -> Option<&Arc<Session>> {
        self.sessions.get(usize::from(peer.0))?.as_ref()
    }

    /// All sessions, in the order of their peers' indices.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.iter().flatten()
    }
}
