//! `adit key`: keys, in the text format of `wg genkey`, `wg pubkey` and `wg genpsk`.

mod input;
mod random;
mod sink;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use proto::key::{PresharedKey, PrivateKey};

use self::sink::Sink;
use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a private key and prints it.
    New(SecretArgs),
    /// Reads a private key from standard input and prints its public key.
    Public,
    /// Makes a key for two peers to share beforehand and prints it.
    Preshared(SecretArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// Writes the key to a file that did not exist, and that only its owner may read.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(command: KeyCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        KeyCommand::New(args) => {
            let sink = Sink::open(args.output)?;
            sink.write(&PrivateKey::from_bytes(*random::octets()?).to_text(), output)?;
        }
        KeyCommand::Public => output.line(input::private_key()?.public_key())?,
        KeyCommand::Preshared(args) => {
            let sink = Sink::open(args.output)?;
            sink.write(&PresharedKey::from_bytes(*random::octets()?).to_text(), output)?;
        }
    }
    Ok(Exit::Done)
}
