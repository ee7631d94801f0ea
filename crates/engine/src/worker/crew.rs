//! The threads of a worker: one for each queue, with the lanes that it serves.
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
use transport::udp::UdpSocket;

use super::egress::Egress;
use super::ingress::Ingress;
use super::lane::{Ended, Lane, Peers, Shared};
use super::slow_path::SlowPath;
use super::stop::Stop;
use super::thread::LaneThread;
use crate::channel::message::Setup;
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
        let sockets = descriptors.split_off(setup.queues.min(descriptors.len()));
        let queues = queues(descriptors)?;
        let shared = Shared {
            mode: setup.mode,
            sockets: adopt_sockets(setup, sockets)?,
            peers: common.peers,
            mtu: common.mtu,
            counters: Arc::default(),
            stop: Arc::new(Stop::new().map_err(failed("make an eventfd"))?),
            slow_path: common.slow_path,
        };
        let mut crew = Self {
            sockets: Arc::clone(&shared.sockets),
            stop: Arc::clone(&shared.stop),
            gate: Arc::new(Barrier::new(queues.len() + 1)),
            threads: Vec::new(),
            egress: Vec::new(),
            ingress: Vec::new(),
        };
        for (place, lanes) in crew.lanes(setup, &shared, &queues).into_iter().enumerate() {
            let thread = LaneThread::new(lanes, Arc::clone(&shared.stop), setup.busy_poll);
            let thread = thread.map_err(failed("make an epoll descriptor"))?;
            crew.spawn(format!("queue-{place}"), thread, &shared.slow_path)
                .map_err(failed("start a thread"))?;
        }
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
        for queue in queues {
            let shared = counted();
            self.egress.push(Arc::clone(&shared.counters));
            lanes.push(vec![Lane::Egress(Egress::new(shared, Arc::clone(queue)))]);
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

    fn spawn(
        &mut self,
        name: String,
        thread: LaneThread,
        slow_path: &Arc<SlowPath>,
    ) -> io::Result<()> {
        let (gate, farewell) = (Arc::clone(&self.gate), Farewell(Arc::clone(slow_path)));
        let work = move || {
            let _farewell = farewell;
            // Once to say that it is here, and once to wait for the gate to open.
            gate.wait();
            gate.wait();
            thread.run()
        };
        self.threads.push(thread::Builder::new().name(name).spawn(work)?);
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
