//! Octets that nobody can predict.

use std::io;

use rustix::io::{Errno, retry_on_intr};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

/// The kernel gives no randomness.
#[derive(Debug, thiserror::Error)]
#[error("read 32 random octets from the kernel")]
pub(super) struct RandomError {
    source: io::Error,
}

/// As many octets as a key has, from the kernel (getrandom(2)), which gives up to 256 at once.
pub(super) fn octets() -> Result<Zeroizing<[u8; 32]>, RandomError> {
    let mut octets = Zeroizing::new([0; 32]);
    let read = retry_on_intr(|| getrandom(&mut *octets, GetRandomFlags::empty()));
    match read {
        Ok(32) => Ok(octets),
        Ok(_) => Err(RandomError { source: Errno::AGAIN.into() }),
        Err(error) => Err(RandomError { source: error.into() }),
    }
}
