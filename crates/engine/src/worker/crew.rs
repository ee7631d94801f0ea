//! The threads of a worker: one for each queue, with the lanes that it serves, and one for each folder.
//!
//! They are made with everything that they need, and wait at a gate. So the system calls that only
//! the making needs can be given up before the first packet is looked at.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

use device::Queue;
use proto::TransportIndex;
use rustix::io::Errno;
use transport::spool::OpenError;
use transport::udp::UdpSocket;

use super::egress::Egress;
use super::folder::Folder;
use super::folder::thread::FolderThread;
use super::ingress::Ingress;
use super::ingress::folder::FolderIngress;
use super::lane::{Ended, Lane, Peers, Shared};
use super::slow_path::SlowPath;
use super::stop::Stop;
use super::thread::LaneThread;
use crate::channel::message::{FolderSetup, Setup};
use crate::metrics::{Counters, Totals, Traffic};

/// The threads cannot be made.
#[derive(Debug)]
pub(super) enum CrewError {
    /// The device was deleted meanwhile.
    DeviceGone,
    /// The kernel refused something.
    Failed {
        /// What.
        operation: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// A folder cannot be shared.
    Folder {
        /// Which.
        folder: String,
        /// Why.
        cause: Box<OpenError>,
    },
}

/// What the threads and the first one have in common.
#[derive(Clone)]
pub(super) struct Common {
    /// Who the peers are.
    pub(super) peers: Peers,
    /// The largest inner packet, in octets.
    pub(super) mtu: Arc<AtomicU32>,
    /// The way to the first thread.
    pub(super) slow_path: Arc<SlowPath>,
}

/// The threads that carry the packets of a device.
pub(super) struct Crew {
    sockets: Arc<[UdpSocket]>,
    folders: Arc<[Arc<Folder>]>,
    stop: Arc<Stop>,
    gate: Arc<Barrier>,
    threads: Vec<JoinHandle<Ended>>,
    egress: Vec<Arc<Counters>>,
    ingress: Vec<Arc<Counters>>,
}

impl Crew {
    /// Makes a thread for each queue, the sockets dealt out among them; returns when all wait at the gate.
    ///
    /// If it fails, threads may be left that wait for ever.
    pub(super) fn gather(
        setup: &Setup,
        mut descriptors: Vec<OwnedFd>,
        common: Common,
    ) -> Result<Self, CrewError> {
        let mut sockets = descriptors.split_off(setup.queues.min(descriptors.len()));
        let folders = sockets.split_off(setup.sockets.len().min(sockets.len()));
        let queues = queues(descriptors)?;
        let shared = Shared {
            mode: setup.mode,
            sockets: adopt_sockets(setup, sockets)?,
            folders: open_folders(setup, folders)?,
            peers: common.peers,
            mtu: common.mtu,
            counters: Arc::default(),
            stop: Arc::new(Stop::new().map_err(failed("make an eventfd"))?),
            slow_path: common.slow_path,
        };
        let mut crew = Self {
            sockets: Arc::clone(&shared.sockets),
            folders: Arc::clone(&shared.folders),
            stop: Arc::clone(&shared.stop),
            gate: Arc::new(Barrier::new(queues.len() + shared.folders.len() + 1)),
            threads: Vec::new(),
            egress: Vec::new(),
            ingress: Vec::new(),
        };
        for (place, lanes) in crew.lanes(setup, &shared, &queues).into_iter().enumerate() {
            let thread = LaneThread::new(lanes, Arc::clone(&shared.stop), setup.busy_poll);
            let thread = thread.map_err(failed("make an epoll descriptor"))?;
            crew.spawn(format!("queue-{place}"), &shared.slow_path, || thread.run())?;
        }
        crew.serve_folders(setup, &shared, &queues)?;
        crew.gate.wait();
        Ok(crew)
    }

    /// Opens the gate.
    pub(super) fn begin(&self) {
        self.gate.wait();
    }

    /// The sockets that the threads serve.
    pub(super) fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// The folders that the threads serve.
    pub(super) fn folders(&self) -> &[Arc<Folder>] {
        &self.folders
    }

    /// How a thread came to its end by itself, if one did.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        let place = self.threads.iter().position(JoinHandle::is_finished)?;
        Some(join(self.threads.swap_remove(place)))
    }

    /// Ends the threads.
    pub(super) fn stop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            join(thread);
        }
    }

    /// What was carried so far.
    pub(super) fn totals(&self) -> Totals {
        Totals { out: sum(&self.egress), back: sum(&self.ingress) }
    }

    /// The lanes of each thread.
    fn lanes(&mut self, setup: &Setup, shared: &Shared, queues: &[Arc<Queue>]) -> Vec<Vec<Lane>> {
        let counted = || Shared { counters: Arc::default(), ..shared.clone() };
        let mut lanes: Vec<Vec<Lane>> = Vec::new();
        for (queue, lane) in queues.iter().zip(0..) {
            let shared = counted();
            self.egress.push(Arc::clone(&shared.counters));
            lanes.push(vec![Lane::Egress(Egress::new(shared, Arc::clone(queue), lane))]);
        }
        let places = (0..queues.len()).cycle();
        for (socket, place) in (0..shared.sockets.len()).map(TransportIndex).zip(places) {
            let (shared, queue) = (counted(), Arc::clone(&queues[place]));
            self.ingress.push(Arc::clone(&shared.counters));
            let ingress = Ingress::new(shared, socket, queue, setup.accepts);
            lanes[place].push(Lane::Ingress(ingress));
        }
        lanes
    }

    /// Makes a thread for each folder; what comes in goes to the queues in turn.
    fn serve_folders(
        &mut self,
        setup: &Setup,
        shared: &Shared,
        queues: &[Arc<Queue>],
    ) -> Result<(), CrewError> {
        let folders = Arc::clone(&shared.folders);
        for ((place, folder), queue) in folders.iter().enumerate().zip(queues.iter().cycle()) {
            let shared = Shared { counters: Arc::default(), ..shared.clone() };
            self.ingress.push(Arc::clone(&shared.counters));
            let (slow_path, stop) = (Arc::clone(&shared.slow_path), Arc::clone(&shared.stop));
            let place = TransportIndex(place);
            let ingress = FolderIngress::new(shared, place, Arc::clone(queue), setup.accepts);
            let thread = FolderThread::new(Arc::clone(folder), ingress, stop);
            let thread = thread.map_err(unfit(&folder.name))?;
            self.spawn(format!("folder-{}", place.0), &slow_path, || thread.run())?;
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        name: String,
        slow_path: &Arc<SlowPath>,
        run: impl FnOnce() -> Ended + Send + 'static,
    ) -> Result<(), CrewError> {
        let (gate, farewell) = (Arc::clone(&self.gate), Farewell(Arc::clone(slow_path)));
        let work = move || {
            let _farewell = farewell;
            // Once to say that it is here, and once to wait for the gate to open.
            gate.wait();
            gate.wait();
            run()
        };
        let thread = thread::Builder::new().name(name).spawn(work);
        self.threads.push(thread.map_err(failed("start a thread"))?);
        Ok(())
    }
}

/// Says that a thread ends, in whatever way.
struct Farewell(Arc<SlowPath>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.wake();
    }
}

fn queues(descriptors: Vec<OwnedFd>) -> Result<Vec<Arc<Queue>>, CrewError> {
    let adopt = |descriptor| match Queue::from_descriptor(descriptor, false) {
        Ok(queue) => Ok(Arc::new(queue)),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::BADFD) => {
            Err(CrewError::DeviceGone)
        }
        Err(error) => Err(failed("take over a queue")(error)),
    };
    descriptors.into_iter().map(adopt).collect()
}

fn adopt_sockets(setup: &Setup, descriptors: Vec<OwnedFd>) -> Result<Arc<[UdpSocket]>, CrewError> {
    let adopt = |(descriptor, socket): (_, &crate::channel::message::SocketSetup)| {
        UdpSocket::from_descriptor(descriptor, socket.segmentation, socket.coalescing)
            .map_err(failed("take over a socket"))
    };
    descriptors.into_iter().zip(&setup.sockets).map(adopt).collect()
}

fn open_folders(setup: &Setup, descriptors: Vec<OwnedFd>) -> Result<Arc<[Arc<Folder>]>, CrewError> {
    let open = |(descriptor, setup): (_, &FolderSetup)| {
        Folder::open(setup, descriptor).map(Arc::new).map_err(unfit(&setup.name))
    };
    descriptors.into_iter().zip(&setup.folders).map(open).collect()
}

fn unfit(folder: &str) -> impl Fn(OpenError) -> CrewError {
    move |cause| CrewError::Folder { folder: folder.to_owned(), cause: cause.into() }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> CrewError {
    move |cause| CrewError::Failed { operation, cause }
}

fn join(thread: JoinHandle<Ended>) -> Ended {
    let name = thread.thread().name().unwrap_or("thread").to_owned();
    thread.join().unwrap_or_else(|_| Ended::Failed(io::Error::other(format!("{name} panicked"))))
}

fn sum(counters: &[Arc<Counters>]) -> Traffic {
    let mut sum = Traffic::default();
    for counters in counters {
        sum += &counters.traffic();
    }
    sum
}
