//! The private key on standard input.

use std::io::{self, Read};

use engine::keyfile::{self, KeyTextError, MAX_LENGTH};
use proto::key::PrivateKey;
use zeroize::Zeroizing;

/// There is no private key on standard input.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// It cannot be read.
    #[error("read a private key from standard input")]
    Read {
        /// What the system says.
        source: io::Error,
    },
    /// It holds something else.
    #[error("read a private key from standard input")]
    Text {
        /// What is wrong with its text.
        source: KeyTextError,
    },
}

pub(super) fn private_key() -> Result<PrivateKey, InputError> {
    // Room for all that is read, so that no half-read copy of a key stays behind in memory.
    let mut octets = Zeroizing::new(Vec::with_capacity(MAX_LENGTH + 2));
    let limit = MAX_LENGTH as u64 + 1;
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut octets)
        .map_err(|source| InputError::Read { source })?;
    keyfile::parse(&octets).map_err(|source| InputError::Text { source })
}
