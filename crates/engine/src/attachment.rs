//! The device that a tunnel has at the moment, with its workers.
//!
//! Sockets and peers live as long as the tunnel. A device can vanish and come back, so everything that
//! depends on it is together here: it is made as a whole and ended as a whole.

use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use device::{Builder, Device, DeviceName, Observed, OpenError, Presence, Queue};
use netlink::Socket as Netlink;
use proto::{PeerTable, SocketIndex};
use thiserror::Error;
use transport::udp::UdpSocket;
use wire::offload::Accepts;

use crate::config::Config;
use crate::egress::Egress;
use crate::ingress::Ingress;
use crate::lane::{Ended, Lane, Shared};
use crate::metrics::{Counters, Traffic};
use crate::notice::{Notice, Notices};
use crate::stop::Stop;
use crate::worker::Worker;

/// The device cannot be opened, or its workers cannot be started.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A worker cannot be started.
    #[error("start the workers of device {device:?}")]
    Start {
        /// The device's name.
        device: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// The threads that carry the packets of a device. It closes when the last of them ends.
pub(crate) struct Attachment {
    created: bool,
    stop: Arc<Stop>,
    workers: Vec<JoinHandle<Ended>>,
    egress: Vec<Arc<Counters>>,
    ingress: Vec<Arc<Counters>>,
}

/// Opens the tunnel's device.
pub(crate) fn open(config: &Config, presence: Presence) -> Result<Device, OpenError> {
    let wanted = &config.device;
    let offload = if wanted.offload { device::Offload::ALL } else { device::Offload::NONE };
    let builder = Builder::new(wanted.name.clone(), wanted.mode)
        .queues(NonZeroU16::new(wanted.queues).unwrap_or(NonZeroU16::MIN))
        .multi_queue(is_multi_queue(&wanted.name))
        .presence(presence)
        .observe(observe);
    match builder.clone().vnet_hdr(true).offload(offload).open() {
        // A kernel without virtio-net headers; packets then come and go singly.
        Err(OpenError::KernelRefusedFlags { .. }) => builder.open(),
        result => result,
    }
}

/// What rtnetlink knows of a device, for [`Builder::observe`]; none if it does not answer.
pub fn observe(name: &DeviceName) -> Option<Observed> {
    let tun = Netlink::open().ok()?.link(name.as_str()).ok()??.tun?;
    let queues = tun.queues.saturating_add(tun.disabled_queues);
    Some(Observed { queues, owner: tun.owner, group: tun.group })
}

/// Whether a device that exists already must be opened as a multi-queue device.
fn is_multi_queue(name: &DeviceName) -> bool {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(name.as_str()));
    link.ok().flatten().and_then(|link| link.tun).is_some_and(|tun| tun.multi_queue)
}

/// What of the tunnel outlives a device.
pub(crate) struct Lasting<'a> {
    pub(crate) config: &'a Config,
    pub(crate) sockets: &'a Arc<[UdpSocket]>,
    pub(crate) peers: &'a Arc<ArcSwap<PeerTable>>,
    pub(crate) notices: &'a Arc<Notices>,
}

impl Attachment {
    /// Starts a worker for each queue of `device`; the sockets are dealt out among them.
    pub(crate) fn start(device: Device, lasting: &Lasting<'_>) -> Result<Self, AttachError> {
        let name = device.name().to_string();
        let failed = |cause| AttachError::Start { device: name.clone(), cause };
        let mut attachment = Self {
            created: device.created(),
            stop: Arc::new(Stop::new().map_err(failed)?),
            workers: Vec::new(),
            egress: Vec::new(),
            ingress: Vec::new(),
        };
        let accepts = accepts(&device);
        let queues: Vec<Arc<Queue>> = device.into_queues().into_iter().map(Arc::new).collect();
        let mut lanes: Vec<Vec<Lane>> = queues.iter().map(|_| Vec::new()).collect();
        for (queue, lanes) in queues.iter().zip(&mut lanes) {
            let shared = attachment.shared(lasting);
            attachment.egress.push(Arc::clone(&shared.counters));
            lanes.push(Lane::Egress(Egress::new(shared, Arc::clone(queue))));
        }
        for socket in 0..lasting.sockets.len() {
            let shared = attachment.shared(lasting);
            attachment.ingress.push(Arc::clone(&shared.counters));
            let place = socket % queues.len();
            let queue = Arc::clone(&queues[place]);
            let ingress = Ingress::new(shared, SocketIndex(socket), queue, accepts);
            lanes[place].push(Lane::Ingress(ingress));
        }
        for (place, lanes) in lanes.into_iter().enumerate() {
            attachment.spawn(format!("worker-{place}"), lanes, lasting).map_err(failed)?;
        }
        Ok(attachment)
    }

    /// Whether the tunnel has made the device, rather than attached to it.
    pub(crate) fn created(&self) -> bool {
        self.created
    }

    /// How a worker came to its end by itself, if one did.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        let place = self.workers.iter().position(JoinHandle::is_finished)?;
        Some(join(self.workers.swap_remove(place)))
    }

    /// What was carried so far: to the wire, and from it.
    pub(crate) fn traffic(&self) -> (Traffic, Traffic) {
        (sum(&self.egress), sum(&self.ingress))
    }

    /// Ends the workers and closes the device; returns what they carried.
    pub(crate) fn end(mut self) -> (Traffic, Traffic) {
        self.stop_workers();
        self.traffic()
    }

    fn stop_workers(&mut self) {
        self.stop.set();
        for worker in self.workers.drain(..) {
            join(worker);
        }
    }

    fn shared(&self, lasting: &Lasting<'_>) -> Shared {
        Shared {
            mode: lasting.config.device.mode,
            sockets: Arc::clone(lasting.sockets),
            peers: Arc::clone(lasting.peers),
            counters: Arc::default(),
            stop: Arc::clone(&self.stop),
            notices: Arc::clone(lasting.notices),
        }
    }

    fn spawn(&mut self, name: String, lanes: Vec<Lane>, lasting: &Lasting<'_>) -> io::Result<()> {
        let busy_poll = lasting.config.local.busy_poll;
        let worker = Worker::new(lanes, Arc::clone(&self.stop), busy_poll)?;
        let farewell = Farewell(Arc::clone(lasting.notices));
        let work = move || {
            let _farewell = farewell;
            worker.run()
        };
        self.workers.push(thread::Builder::new().name(name).spawn(work)?);
        Ok(())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.stop_workers();
    }
}

/// Tells the tunnel that a worker ends, in whatever way.
struct Farewell(Arc<Notices>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.send(Notice::WorkerEnded);
    }
}

fn join(worker: JoinHandle<Ended>) -> Ended {
    let name = worker.thread().name().unwrap_or("worker").to_owned();
    worker.join().unwrap_or_else(|_| Ended::Failed(io::Error::other(format!("{name} panicked"))))
}

fn sum(counters: &[Arc<Counters>]) -> Traffic {
    let mut sum = Traffic::default();
    for counters in counters {
        sum += &counters.traffic();
    }
    sum
}

/// Which super-packets may be written to the device: those that it hands out, too.
fn accepts(device: &Device) -> Accepts {
    let offload = device.offload();
    Accepts { tso4: offload.tso4, tso6: offload.tso6, uso: offload.uso4 && offload.uso6 }
}
