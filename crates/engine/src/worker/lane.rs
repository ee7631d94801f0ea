//! A lane: one direction of packets, from one source.
//!
//! An egress lane reads a device queue, an ingress lane a socket. Neither waits: a lane is given turns
//! by the thread that serves it, carries a batch at most, and says whether there was anything.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arc_swap::ArcSwap;
use device::Mode;
use proto::PeerTable;
use proto::mtu::Content;
use transport::udp::UdpSocket;
use wire::offload::LinkLayer;

use super::egress::Egress;
use super::ingress::Ingress;
use super::notice::{Notice, Notices};
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

/// What every lane gets.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) mode: Mode,
    pub(crate) sockets: Arc<[UdpSocket]>,
    pub(crate) peers: Arc<ArcSwap<PeerTable>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) notices: Arc<Notices>,
}

impl Shared {
    pub(crate) fn notify(&self, notice: Notice) {
        self.notices.send(notice);
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
