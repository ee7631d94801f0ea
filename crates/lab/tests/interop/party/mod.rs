//! One implementation of WireGuard in a host, told what to do in the words of wg(8).

mod adit;
mod userspace;

use std::fmt;
use std::net::SocketAddr;

use lab::{Host, Process};
use rustix::process::Signal;

pub(crate) use userspace::{PeerState, Userspace};

use crate::common;
use crate::rig::program;
use crate::rig::sh::sh;
use crate::rig::tunnel::{Files, Traffic, Tunnel};

/// The device of every party.
pub(crate) const DEVICE: &str = "wg0";

/// The port that every party listens on, on all addresses.
pub(crate) const PORT: u16 = 51820;

/// The MTU of every device, which is what wg-quick(8) sets on an Ethernet.
pub(crate) const MTU: u32 = 1420;

/// An implementation of WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Adit,
    WireguardGo,
    Boringtun,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adit => "adit",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
        })
    }
}

impl Kind {
    /// Whether it can be run here. Says why not, and insists on it where `CI` is `true`.
    pub(crate) fn runnable(self) -> bool {
        // wg(8) makes the keys of every party.
        common::privileged()
            && program::available("wg")
            && match self {
                Self::Adit => common::adit().is_some(),
                Self::WireguardGo => userspace::has_wireguard_go(),
                Self::Boringtun => userspace::has_boringtun(),
            }
    }
}

/// A private key and its public key, as text.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) private: String,
    pub(crate) public: String,
}

impl Keys {
    /// New ones, by wg(8).
    pub(crate) fn new(host: &Host) -> Self {
        let private = sh(host, "wg genkey").trim().to_owned();
        let public = sh(host, &format!("echo {private} | wg pubkey")).trim().to_owned();
        Self { private, public }
    }
}

/// What a party is to be.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Its name among the files of a test.
    pub(crate) name: &'static str,
    pub(crate) keys: Keys,
    /// Of the device, with prefix lengths.
    pub(crate) addresses: Vec<String>,
    pub(crate) peers: Vec<Peer>,
    /// For adit: lines of `[local]` and of `[network]`.
    pub(crate) local: &'static str,
    pub(crate) network: &'static str,
}

/// What a party knows of another one.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) public_key: String,
    pub(crate) preshared_key: Option<String>,
    pub(crate) endpoint: Option<SocketAddr>,
    /// Prefixes, which are routed to the device, too.
    pub(crate) allowed_ips: Vec<String>,
    /// In seconds.
    pub(crate) keepalive: Option<u16>,
}

/// A running implementation; it ends when it is dropped.
#[derive(Debug)]
pub(crate) enum Party {
    Adit(Tunnel),
    Userspace(Userspace),
}

impl Party {
    /// Starts it and waits until its device is up.
    pub(crate) fn up(kind: Kind, host: &Host, files: &Files, spec: &Spec) -> Self {
        match kind {
            Kind::Adit => Self::Adit(adit::up(host, files, spec)),
            _ => Self::Userspace(Userspace::up(kind, host, files, spec)),
        }
    }

    /// Lets it be what `spec` says; who cannot change that while it runs starts anew.
    pub(crate) fn reconfigure(self, host: &Host, files: &Files, spec: &Spec) -> Self {
        match self {
            Self::Adit(tunnel) => {
                let ended = tunnel.end(Signal::TERM);
                assert_eq!(ended.code, Some(0), "{}", ended.said);
                Self::up(Kind::Adit, host, files, spec)
            }
            Self::Userspace(program) => Self::Userspace(program.reconfigure(host, files, spec)),
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(self) {
        match self {
            Self::Adit(tunnel) => drop(tunnel.end(Signal::KILL)),
            Self::Userspace(program) => program.kill(),
        }
    }

    /// What adit counted; nothing of other implementations.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        match self {
            Self::Adit(tunnel) => Some(tunnel.traffic()),
            Self::Userspace(_) => None,
        }
    }

    /// What it knows of its only peer, if wg(8) can ask it.
    pub(crate) fn only_peer(&self, host: &Host) -> Option<PeerState> {
        match self {
            Self::Adit(_) => None,
            Self::Userspace(program) => Some(program.only_peer(host)),
        }
    }
}

/// Waits until `condition` holds, or fails with what the process said.
fn wait_until(process: &Process, what: &str, condition: impl Fn() -> bool) {
    let held = crate::rig::soon().wait_until(|| condition().then_some(()));
    held.unwrap_or_else(|error| {
        panic!("{what}: {error}: {}{}", process.stdout(), process.stderr())
    });
}
