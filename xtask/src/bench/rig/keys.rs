//! Keys of both hosts, made by wg(8).

use std::io::Write;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::program;

/// A private key and its public key, as text.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) private: String,
    pub(super) public: String,
}

impl Keys {
    /// New ones.
    pub(super) fn new() -> Result<Self, Failure> {
        let private = text(&program::output(Command::new("wg").arg("genkey"))?);
        let failed = |error| Failure::of("run wg pubkey", error);
        let mut wg = Command::new("wg");
        wg.arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut wg = wg.spawn().map_err(failed)?;
        if let Some(mut input) = wg.stdin.take() {
            input.write_all(private.as_bytes()).map_err(failed)?;
        }
        let public = text(&wg.wait_with_output().map_err(failed)?.stdout);
        Ok(Self { private, public })
    }

    /// The keys of host `number`, then those of the other one.
    pub(super) fn own_first(keys: &[Self; 2], number: u8) -> [&Self; 2] {
        let [a, b] = keys;
        if number == 1 { [a, b] } else { [b, a] }
    }

    /// The public key of a peer that is never met, another one for each `number`: any octets are one.
    pub(super) fn of_nobody(number: u32) -> String {
        // 42 digits are 252 bits, and one more with two bits of padding makes 256.
        format!("{number:042}A=")
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_nobody_are_of_the_right_length_and_differ() {
        assert_eq!(Keys::of_nobody(9999).len(), 44);
        assert_ne!(Keys::of_nobody(1), Keys::of_nobody(10));
    }
}
