//! Who listens on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use wire::message::{self, Cipher, DATA_OVERHEAD, DataHeader, Kind};

use super::packet::PLAINTEXT;

/// A datagram, as far as anybody can see.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Duration,
    pub(crate) from: usize,
    pub(crate) to: Option<usize>,
    pub(crate) kind: Kind,
    pub(crate) datagram: Vec<u8>,
}

impl Heard {
    pub(crate) fn is_keepalive(&self) -> bool {
        self.kind == Kind::Data && self.datagram.len() == DATA_OVERHEAD
    }

    pub(crate) fn cipher(&self) -> Option<Cipher> {
        DataHeader::parse(&self.datagram).ok().map(|header| header.cipher)
    }
}

/// Keeps what was heard, and checks it.
#[derive(Default)]
pub(crate) struct WireTap {
    pub(crate) heard: Vec<Heard>,
    /// Who has ever had which sender index.
    pub(crate) indices: BTreeSet<(usize, u32)>,
    /// Receiver, receiver index, cipher and counter of every data message.
    nonces: BTreeSet<(Option<usize>, u32, bool, u64)>,
}

impl WireTap {
    pub(crate) fn hear(
        &mut self,
        at: Duration,
        from: usize,
        to: Option<usize>,
        is_for_stock: bool,
        datagram: &[u8],
    ) {
        let kind = message::kind(datagram).expect("only messages are sent");
        let shows = datagram.windows(PLAINTEXT.len()).any(|window| window == PLAINTEXT);
        assert!(!shows, "a plaintext shows");
        match kind {
            Kind::Data => {
                let header = DataHeader::parse(datagram).expect("it is a data message");
                let is_aes = header.cipher == Cipher::Aes256Gcm;
                assert!(!(is_aes && is_for_stock), "a stock peer knows no AES");
                let nonce = (to, header.receiver, is_aes, header.counter);
                assert!(self.nonces.insert(nonce), "a nonce is used twice: {nonce:?}");
            }
            // A sender index begins a life: what it meant before is over.
            Kind::Initiation | Kind::Response => {
                let index = u32::from_le_bytes(datagram[4..8].try_into().expect("4 octets"));
                self.indices.insert((from, index));
                self.nonces.retain(|&(to, receiver, ..)| to != Some(from) || receiver != index);
            }
            Kind::CookieReply => {}
        }
        self.heard.push(Heard { at, from, to, kind, datagram: datagram.to_vec() });
    }

    /// Keeps no more than what later checks need.
    pub(crate) fn forget(&mut self) {
        self.heard.clear();
    }
}
