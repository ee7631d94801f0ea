//! What both workers share.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use device::Mode;
use proto::PeerTable;
use proto::mtu::Content;
use transport::udp::UdpSocket;
use wire::offload::LinkLayer;

use crate::metrics::Counters;
use crate::stop::Stop;

/// How a worker came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was told to.
    Stopped,
    /// The device was deleted.
    DeviceGone,
    /// The device answered with an error that it should not have.
    Failed(io::Error),
}

/// What a worker tells the tunnel that it cannot treat itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A peer without endpoint has one now.
    PathLearned,
    /// A worker has ended by itself.
    WorkerEnded,
}

/// Notices on their way to the tunnel; at most one of each kind waits.
#[derive(Debug)]
pub(crate) struct Notices {
    pub(crate) event: OwnedFd,
    waiting: Mutex<Vec<Notice>>,
}

impl Notices {
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, waiting: Mutex::default() })
    }

    pub(crate) fn send(&self, notice: Notice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.contains(&notice) {
            waiting.push(notice);
        }
        // A full counter means that the tunnel is woken already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    pub(crate) fn take(&self) -> Vec<Notice> {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What every worker gets.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) mode: Mode,
    pub(crate) sockets: Arc<[UdpSocket]>,
    pub(crate) peers: Arc<ArcSwap<PeerTable>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) notices: Arc<Notices>,
    pub(crate) busy_poll: Option<Duration>,
}

impl Shared {
    pub(crate) fn notify(&self, notice: Notice) {
        self.notices.send(notice);
    }
}

/// How long an idle worker looks again before it sleeps.
///
/// A sleeping thread costs a wake-up of some tens of microseconds for the next packet. With
/// `busy-poll` the worker tries again for that long first, and burns its processor meanwhile.
pub(crate) struct Pause {
    busy_poll: Option<Duration>,
    since: Option<Instant>,
}

impl Pause {
    pub(crate) fn new(busy_poll: Option<Duration>) -> Self {
        Self { busy_poll, since: None }
    }

    /// Something came.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.since = None;
    }

    /// Nothing came; whether it is time to sleep.
    pub(crate) fn goes_on(&mut self) -> bool {
        let Some(busy_poll) = self.busy_poll else { return true };
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < busy_poll {
            std::hint::spin_loop();
            return false;
        }
        self.since = None;
        true
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
