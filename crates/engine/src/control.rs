//! What a running tunnel is asked from outside, and how it answers.
//!
//! # Theory of operation
//!
//! A tunnel has two UNIX stream sockets, which only the owner of their directory may connect to:
//!
//! | socket | protocol |
//! |---|---|
//! | `NAME.sock` in the runtime directory | a [`Request`] a line in JSON, a [`Response`] a line |
//! | `wireguard/DEVICE.sock` beside that directory | WireGuard's configuration protocol ([`crate::uapi`]) |
//!
//! With `/run/adit` as the runtime directory the second is where `wg` looks, `/var/run/wireguard`.
//!
//! The tunnel's side, [`ControlSockets`], has no thread and never waits. The loop that serves it polls
//! [`ControlSockets::poll_fds`] until [`ControlSockets::deadline`], and calls [`ControlSockets::handle_ready`] then; each
//! [`Question`] that comes out is answered with [`ControlSockets::answer`]. A client is in one of three states:
//!
//! ```text
//!              a request is complete            the loop answers
//!   Listening ---------------------> Owed ---------------------> Answering
//!       ^                                                            |
//!       +------------------------------------------------------------+
//!                               all is taken
//! ```
//!
//! Nothing is read of a client but while it is listened to, so it has one request at a time, and one answer. A client that
//! takes longer than [`PATIENCE`] for its request or with its answer is dropped, and so is one that says nothing for so
//! long. While [`MAX_CLIENTS`] are there, others wait to be accepted.
//!
//! Whoever is connected holds secrets in the end, so what comes and goes on the second socket is overwritten before its
//! memory is given back.

mod client;
mod connection;
mod lines;
mod listener;
mod sockets;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::client::{AskError, ask, invite, reload, running, status};
pub use self::listener::ControlError;
pub use self::sockets::ControlSockets;

use crate::invite::{Granted, InviteRequest};
use crate::status::TunnelStatus;
use crate::uapi;

/// The most clients at a time.
pub const MAX_CLIENTS: usize = 16;

/// How long a client may take to send a request, and to take an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The longest request in JSON, in octets.
pub const MAX_REQUEST: usize = 64 << 10;

/// The longest answer, in octets: that of 65,535 peers, each of which owns ten prefixes.
pub const MAX_ANSWER: usize = 96 << 20;

/// How the name of a socket ends.
const SUFFIX: &str = ".sock";

/// The directory of the sockets for `wg`, beside that of the tunnels.
const WIREGUARD: &str = "wireguard";

/// What a command asks a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How it is.
    Status,
    /// To read its configuration again.
    Reload,
    /// To let the holder of a ticket become a peer.
    Invite(Box<InviteRequest>),
}

/// What a tunnel answers a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// How it is.
    Status(Box<TunnelStatus>),
    /// It has read its configuration, and this has changed.
    Reloaded {
        /// A line for each change; none if there is none.
        changes: Vec<String>,
    },
    /// Who holds the ticket can become a peer.
    Invited(Box<Granted>),
    /// It did not do what was asked.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Who asked. The number of a client is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(u64);

/// What was asked.
#[derive(Debug)]
pub enum Question {
    /// By a command.
    Command(Request),
    /// By `wg`: [`uapi::emit_get`] makes the answer.
    Get,
    /// By `wg`: to make these changes.
    Set(Vec<uapi::Change>),
}

/// What is answered; each question has its kind of answer.
#[derive(Debug)]
pub enum Answer {
    /// To a command.
    Command(Response),
    /// To [`Question::Get`].
    Get(Zeroizing<String>),
    /// To [`Question::Set`].
    Set(Result<(), uapi::Refusal>),
}

/// The directory of the sockets for `wg`, where `runtime` is that of the tunnels.
pub fn uapi_directory(runtime: &Path) -> PathBuf {
    runtime.parent().unwrap_or(runtime).join(WIREGUARD)
}

/// The socket of `name` in `directory`; `None` if it would be in another.
fn path(directory: &Path, name: &str) -> Option<PathBuf> {
    let file = format!("{name}{SUFFIX}");
    let path = directory.join(&file);
    (path.file_name() == Some(file.as_ref()) && path.parent() == Some(directory)).then_some(path)
}
