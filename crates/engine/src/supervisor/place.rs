//! Where a peer may be, by one of its endpoints.

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};

use proto::key::PublicKey;
use proto::{Path, RemoteAddr, Side, TransportIndex};

use crate::config::{Config, Endpoint};

/// Where a peer may be: an endpoint, of which a name has been resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// At an address and port of UDP.
    Udp(SocketAddr),
    /// In a folder of the tunnel's ([`folders`]), whichever its present run is.
    Folder(usize),
}

impl Place {
    /// Where `path` leads.
    pub(super) fn of(path: &Path) -> Self {
        match path.remote {
            RemoteAddr::Udp(remote) => Self::Udp(remote),
            RemoteAddr::Side(_) => Self::Folder(path.transport.0),
        }
    }

    /// The address and port, if it is one of UDP.
    pub(super) fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(remote) => Some(*remote),
            Self::Folder(_) => None,
        }
    }
}

/// The way to a peer in a folder, before it has spoken. Who has no key is whoever else is there.
pub(super) fn way_in_folder(folder: usize, key: Option<&PublicKey>) -> Path {
    let side = key.map(Side::of).unwrap_or_default();
    Path { transport: TransportIndex(folder), remote: RemoteAddr::Side(side), local: None }
}

/// The folders of a tunnel, each once: those that it listens in first, then those that peers are in.
pub(super) fn folders(config: &Config) -> Vec<PathBuf> {
    let endpoints = config.peers.iter().flat_map(|peer| &peer.endpoints);
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in config.local.listen.iter().chain(endpoints).filter_map(folder) {
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    folders
}

/// The folder that an endpoint is.
pub(super) fn folder(endpoint: &Endpoint) -> Option<&FilePath> {
    match endpoint {
        Endpoint::Spool { folder } => Some(folder),
        Endpoint::Udp { .. } => None,
    }
}
