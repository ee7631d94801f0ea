//! A lane: one direction of packets, from one source.
//!
//! An egress lane reads a device queue, an ingress lane a socket. Neither waits: a lane is given turns
//! by the thread that serves it, carries a batch at most, and says whether there was anything.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use device::Mode;
use proto::InnerMtu;
use proto::PeerTable;
use proto::directory::Directory;
use proto::mtu::Content;
use transport::udp::UdpSocket;
use wire::offload::LinkLayer;

use super::egress::Egress;
use super::folder::Folder;
use super::ingress::Ingress;
use super::slow_path::SlowPath;
use super::stop::Stop;
use crate::metrics::Counters;

/// What came of a lane's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// There was nothing.
    Idle,
    /// All that there was is carried.
    Drained,
    /// A batch was carried, and there may be more.
    More,
}

/// Why a thread ends.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was told to.
    Stopped,
    /// The device was deleted.
    DeviceGone,
    /// The device answered with an error that it should not have.
    Failed(io::Error),
}

/// An egress or an ingress lane.
pub(crate) enum Lane {
    Egress(Egress),
    Ingress(Ingress),
}

impl Lane {
    /// Carries a batch at most.
    pub(crate) fn turn(&mut self) -> Result<Turn, Ended> {
        match self {
            Self::Egress(egress) => egress.turn(),
            Self::Ingress(ingress) => ingress.turn(),
        }
    }

    /// What becomes readable when there is something to carry.
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        match self {
            Self::Egress(egress) => egress.source(),
            Self::Ingress(ingress) => ingress.source(),
        }
    }
}

/// Who the peers are, and how packets travel to them.
#[derive(Clone)]
pub(crate) enum Peers {
    /// As they are.
    Plain(Arc<ArcSwap<PeerTable>>),
    /// In sessions.
    Sealed {
        /// The sessions.
        directory: Arc<ArcSwap<Directory>>,
        /// Whether peers may send what WireGuard does not know.
        extensions: bool,
    },
}

/// What every lane gets.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) mode: Mode,
    pub(crate) sockets: Arc<[UdpSocket]>,
    pub(crate) folders: Arc<[Arc<Folder>]>,
    pub(crate) peers: Peers,
    pub(crate) mtu: Arc<AtomicU32>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) slow_path: Arc<SlowPath>,
}

impl Shared {
    /// The largest inner packet.
    pub(crate) fn mtu(&self) -> InnerMtu {
        InnerMtu(self.mtu.load(Ordering::Relaxed))
    }
}

/// What the datagrams of a tunnel over a device of `mode` hold.
pub(crate) fn content(mode: Mode) -> Content {
    match mode {
        Mode::Tun => Content::Packet,
        Mode::Tap => Content::Frame,
    }
}

/// How the packets of a device of `mode` begin.
pub(crate) fn link_layer(mode: Mode) -> LinkLayer {
    match mode {
        Mode::Tun => LinkLayer::Ip,
        Mode::Tap => LinkLayer::Ethernet,
    }
}
