//! The worker: the process that faces the network.
//!
//! # Theory of operation
//!
//! The supervisor starts a worker for a device, and another one when that has died. A worker gets everything that it
//! needs over its standard input, a socket (`channel`): what to do, the queues of the device and
//! the UDP sockets. It has no privilege, and needs none:
//!
//! 1. It receives its setup and the descriptors.
//! 2. It confines itself, while it has one thread (`confine`); of all files it keeps those in the folders of its setup.
//! 3. It makes lanes and a thread for each queue (`crew`); these wait at a gate.
//! 4. It gives the system calls up that are not needed any more, for all threads at once.
//! 5. It opens the gate, says that it has started, and serves the channel until it is told to stop.
//!
//! | event | what happens |
//! |---|---|
//! | `Stop` | the threads end, what they carried is told, the process ends |
//! | the channel ends: the supervisor is gone | the process ends at once, and with it the device |
//! | a thread ends by itself | why is told, and the process ends |
//! | a first sender, a peer that moves | its path is told, so that the next worker knows it |
//! | lanes have what they cannot treat, or a timer is due | the sessions treat it (`sessions`) |

#[cfg(test)]
mod allocations;
pub(crate) mod clock;
pub(crate) mod confine;
mod crew;
mod egress;
pub(crate) mod folder;
mod glimpse;
mod ingress;
pub(crate) mod lane;
pub(crate) mod sessions;
mod slow_path;
mod stop;
mod thread;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use proto::{Peer, PeerIndex, PeerTable};
use rustix::event::{PollFd, PollFlags};
use thiserror::Error;

use self::crew::{Common, Crew, CrewError};
use self::lane::{Ended, content};
use self::sessions::Sessions;
use self::slow_path::SlowPath;
use crate::channel::message::{Ending, PathEntry, PeerEntry, Peers, Setup, ToSupervisor, ToWorker};
use crate::channel::{self, Arrival, Channel, ChannelError};
use crate::poll::poll_until;
use crate::with_causes::WithCauses;

/// The name of the process in ps(1) and top(1).
const NAME: &std::ffi::CStr = c"adit-worker";

/// A process cannot be a worker, or not any longer.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// Nobody but a supervisor can start a worker.
    #[error("start a worker: standard input is not the supervisor's socket")]
    NotStarted,
    /// The supervisor cannot be understood.
    #[error("serve the supervisor")]
    Channel(#[source] io::Error),
    /// Waiting failed.
    #[error("wait for events")]
    Wait(#[source] io::Error),
}

/// How a worker came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The supervisor asked for it, or is gone.
    Asked,
    /// It could not go on; the supervisor knows why.
    ByItself,
}

/// Is a worker, for the supervisor at the other end of standard input.
///
/// # Errors
///
/// When standard input is not that, or the supervisor says what cannot be understood.
pub fn run() -> Result<Exit, WorkerError> {
    let stdin = rustix::stdio::stdin();
    if !channel::is_channel(stdin) {
        return Err(WorkerError::NotStarted);
    }
    match serve(Channel::of_worker(stdin)) {
        // Who cannot be reached is gone.
        Err(Failure::Channel(ChannelError::Io { .. })) => Ok(Exit::Asked),
        Err(Failure::Channel(error)) => Err(WorkerError::Channel(io::Error::other(error))),
        Err(Failure::Wait(error)) => Err(WorkerError::Wait(error)),
        Ok(exit) => Ok(exit),
    }
}

enum Failure {
    Channel(ChannelError),
    Wait(io::Error),
}

impl From<ChannelError> for Failure {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

fn serve(mut channel: Channel<BorrowedFd<'static>>) -> Result<Exit, Failure> {
    // Only what is shown to people; the kernel calls it "exe" otherwise.
    let _ = rustix::thread::set_name(NAME);
    let inherited = confine::before_secrets();
    let Some((mut setup, descriptors)) = await_setup(&mut channel)? else {
        return Ok(Exit::Asked);
    };
    let folders = setup.queues + setup.sockets.len();
    let mut confinement =
        confine::privileges(&inherited, descriptors.get(folders..).unwrap_or_default());
    let slow_path = Arc::new(SlowPath::new().map_err(Failure::Wait)?);
    let mtu = Arc::new(AtomicU32::new(setup.mtu));
    let carriage = Carriage::new(&mut setup);
    let common = Common {
        peers: carriage.peers(),
        mtu: Arc::clone(&mtu),
        slow_path: Arc::clone(&slow_path),
    };
    let crew = match Crew::gather(&setup, descriptors, common) {
        Ok(crew) => crew,
        Err(error) => return end(&channel, ending(error)),
    };
    drop(setup);
    if let Err(error) = confine::system_calls(!crew.folders().is_empty()) {
        confinement.missing.push(format!("system calls: {error}"));
    }
    channel.send(&ToSupervisor::Confined(confinement))?;
    crew.begin();
    channel.send(&ToSupervisor::Started)?;
    Worker { channel, crew, carriage, slow_path, mtu }.run()
}

/// The first message, with its descriptors; none if the supervisor is gone or takes too long.
fn await_setup(
    channel: &mut Channel<BorrowedFd<'static>>,
) -> Result<Option<(Setup, Vec<OwnedFd>)>, ChannelError> {
    let deadline = Instant::now() + channel::PATIENCE;
    loop {
        if !channel.wait(deadline)? || channel.receive_descriptors()? == Arrival::End {
            return Ok(None);
        }
        match channel.take()? {
            Some(ToWorker::Setup(setup)) => {
                let transports = setup.sockets.len() + setup.folders.len();
                let count = setup.queues.saturating_add(transports);
                let descriptors = channel.take_descriptors(count);
                return Ok(descriptors.map(|descriptors| (*setup, descriptors)));
            }
            Some(_) => return Ok(None),
            None => {}
        }
    }
}

/// Tells why the worker ends by itself.
fn end(channel: &Channel<BorrowedFd<'static>>, ending: Ending) -> Result<Exit, Failure> {
    channel.send(&ToSupervisor::Ended(ending))?;
    Ok(Exit::ByItself)
}

fn ending(error: CrewError) -> Ending {
    match error {
        CrewError::DeviceGone => Ending::DeviceGone,
        CrewError::Failed { operation, cause } => {
            Ending::Failed { text: format!("{operation}: {cause}") }
        }
        CrewError::Folder { folder, cause } => {
            Ending::Failed { text: format!("folder {folder}: {}", WithCauses(&*cause)) }
        }
    }
}

/// The places of the peers that wait for a first sender.
fn without_path(table: &PeerTable) -> BTreeSet<u16> {
    (0..).zip(table.peers()).filter(|(_, peer)| peer.path.is_none()).map(|(at, _)| at).collect()
}

/// How packets travel to the peers.
enum Carriage {
    /// As they are.
    Plain {
        peers: Arc<ArcSwap<PeerTable>>,
        /// Peers of which the supervisor knows no path.
        waiting: BTreeSet<u16>,
    },
    /// In sessions.
    Sealed(Box<Sessions>),
}

impl Carriage {
    /// Takes the peers and keys of `setup`.
    fn new(setup: &mut Setup) -> Self {
        let peers = std::mem::replace(&mut setup.peers, Peers::Plain(Vec::new()));
        let session = setup.session.take();
        match (peers, session) {
            (Peers::Sealed(peers), Some(session)) => {
                let (content, offload) = (content(setup.mode), setup.accepts.all());
                let mut sessions = Sessions::new(&session, setup.mtu, content, offload);
                sessions.replace_peers(peers, session.lost);
                Self::Sealed(Box::new(sessions))
            }
            (Peers::Plain(peers), _) => {
                let table = PeerEntry::table(peers);
                let waiting = without_path(&table);
                Self::Plain { peers: Arc::new(ArcSwap::from_pointee(table)), waiting }
            }
            // Nobody to talk to is safer than talking to somebody in clear.
            (Peers::Sealed(_), None) => {
                let table = PeerTable::new(Vec::new());
                let peers = Arc::new(ArcSwap::from_pointee(table));
                Self::Plain { peers, waiting: BTreeSet::new() }
            }
        }
    }

    fn peers(&self) -> lane::Peers {
        match self {
            Self::Plain { peers, .. } => lane::Peers::Plain(Arc::clone(peers)),
            Self::Sealed(sessions) => sessions.peers(),
        }
    }

    /// Publishes other peers.
    fn replace_peers(&mut self, entries: Peers) {
        match (self, entries) {
            (Self::Plain { peers, waiting }, Peers::Plain(entries)) => {
                let entries: Vec<Peer> = entries.into_iter().map(Peer::from).collect();
                peers.rcu(|table| with_paths_of(table, entries.clone()));
                *waiting = without_path(&peers.load());
            }
            (Self::Sealed(sessions), Peers::Sealed(entries)) => {
                sessions.replace_peers(entries, false);
            }
            // A tunnel keeps its security as long as it lives.
            _ => {}
        }
    }

    /// The paths of peers that had none and have one now.
    fn learned(&mut self) -> Vec<ToSupervisor> {
        let Self::Plain { peers, waiting } = self else { return Vec::new() };
        let table = peers.load();
        let path = |&peer: &u16| Some((peer, PathEntry::from(*table.path(PeerIndex(peer))?)));
        let learned: Vec<_> = waiting.iter().filter_map(path).collect();
        waiting.retain(|&peer| table.path(PeerIndex(peer)).is_none());
        learned.into_iter().map(|(peer, path)| ToSupervisor::PathLearned { peer, path }).collect()
    }
}

/// A worker that carries packets.
struct Worker {
    channel: Channel<BorrowedFd<'static>>,
    crew: Crew,
    carriage: Carriage,
    slow_path: Arc<SlowPath>,
    mtu: Arc<AtomicU32>,
}

impl Worker {
    fn run(mut self) -> Result<Exit, Failure> {
        loop {
            self.drain()?;
            let deadline = match &self.carriage {
                Carriage::Plain { .. } => None,
                Carriage::Sealed(sessions) => {
                    sessions.timeout().map(|timeout| Instant::now() + timeout)
                }
            };
            let mut fds = [
                PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.slow_path.as_fd(), PollFlags::IN),
            ];
            poll_until(&mut fds, deadline).map_err(Failure::Wait)?;
            let [told, woken] = fds.map(|fd| !fd.revents().is_empty());
            // What lanes have first, so that what happened before a report is told before it.
            if woken && let Some(exit) = self.handle_work()? {
                return Ok(exit);
            }
            if told && let Some(exit) = self.handle_messages()? {
                return Ok(exit);
            }
            if let Carriage::Sealed(sessions) = &mut self.carriage {
                sessions.handle_timeout();
            }
        }
    }

    /// Sends and tells what the sessions have to send and to tell.
    fn drain(&mut self) -> Result<(), ChannelError> {
        let Carriage::Sealed(sessions) = &mut self.carriage else { return Ok(()) };
        sessions.transmit(self.crew.sockets(), self.crew.folders());
        for news in sessions.news() {
            self.channel.send(&news)?;
        }
        Ok(())
    }

    /// Does what the supervisor says; whether that is to end.
    fn handle_messages(&mut self) -> Result<Option<Exit>, Failure> {
        let arrival = self.channel.receive()?;
        while let Some(message) = self.channel.take()? {
            match message {
                // A device has one worker, and a worker one device.
                ToWorker::Setup(_) => {}
                ToWorker::Peers(entries) => self.carriage.replace_peers(entries),
                ToWorker::Path { key, path } => {
                    if let Carriage::Sealed(sessions) = &mut self.carriage {
                        sessions.set_path(key, path);
                    }
                }
                ToWorker::Try { key, path } => {
                    if let Carriage::Sealed(sessions) = &mut self.carriage {
                        sessions.try_path(key, path);
                    }
                }
                ToWorker::Answer { index, answer } => {
                    if let Carriage::Sealed(sessions) = &mut self.carriage {
                        sessions.answer(index, answer.into());
                    }
                }
                ToWorker::Mtu(mtu) => self.set_mtu(mtu),
                ToWorker::Report => self.tell_traffic()?,
                ToWorker::Stop => {
                    self.crew.stop();
                    self.tell_traffic()?;
                    return Ok(Some(Exit::Asked));
                }
            }
        }
        Ok((arrival == Arrival::End).then_some(Exit::Asked))
    }

    fn set_mtu(&mut self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
        if let Carriage::Sealed(sessions) = &mut self.carriage {
            sessions.set_mtu(mtu);
        }
    }

    /// Treats what lanes could not; whether the worker ends.
    fn handle_work(&mut self) -> Result<Option<Exit>, Failure> {
        let work = self.slow_path.take();
        if work.path_learned {
            for learned in self.carriage.learned() {
                self.channel.send(&learned)?;
            }
        }
        if work.folder_gone {
            self.channel.send(&ToSupervisor::FolderGone)?;
        }
        if let Carriage::Sealed(sessions) = &mut self.carriage {
            sessions.handle(work);
        }
        let Some(ended) = self.crew.ended() else { return Ok(None) };
        self.crew.stop();
        self.tell_traffic()?;
        let ending = match ended {
            Ended::Stopped => return Ok(Some(Exit::Asked)),
            Ended::DeviceGone => Ending::DeviceGone,
            Ended::Failed(error) => Ending::Failed { text: error.to_string() },
        };
        end(&self.channel, ending).map(Some)
    }

    fn tell_traffic(&self) -> Result<(), ChannelError> {
        let mut totals = self.crew.totals();
        if let Carriage::Sealed(sessions) = &self.carriage {
            totals += &sessions.drops();
            self.channel.send(&ToSupervisor::Handshakes(sessions.handshakes()))?;
            for entries in sessions.entries() {
                self.channel.send(&entries)?;
            }
        }
        if !self.crew.folders().is_empty() {
            let folders = self.crew.folders().iter().map(|folder| folder.status()).collect();
            self.channel.send(&ToSupervisor::Folders(folders))?;
        }
        self.channel.send(&ToSupervisor::Traffic(Box::new(totals)))
    }
}

/// The table of `peers`, in which those without a path have the one that `known` has.
///
/// A first sender may have come while the table was on its way.
fn with_paths_of(known: &PeerTable, mut peers: Vec<Peer>) -> PeerTable {
    for peer in peers.iter_mut().filter(|peer| peer.path.is_none()) {
        let same = known.peers().iter().find(|known| known.name == peer.name);
        peer.path = same.and_then(|known| known.path);
    }
    PeerTable::new(peers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{Path, TransportIndex};

    fn peer(name: &str, remote: Option<&str>) -> Peer {
        let path = remote.map(|remote| Path {
            transport: TransportIndex(0),
            remote: remote.parse().unwrap(),
            local: None,
        });
        Peer { name: name.into(), path, allowed_ips: Vec::new() }
    }

    #[test]
    fn a_first_sender_stays_known_when_the_peers_are_replaced() {
        let known = PeerTable::new(vec![peer("b", Some("10.0.0.2:1")), peer("c", None)]);
        let table = with_paths_of(&known, vec![peer("d", None), peer("b", None)]);
        assert_eq!(table.peers(), [peer("d", None), peer("b", Some("10.0.0.2:1"))]);
        assert_eq!(without_path(&table), BTreeSet::from([0]));
    }

    #[test]
    fn an_endpoint_that_is_given_counts_more_than_one_that_was_learned() {
        let known = PeerTable::new(vec![peer("b", Some("10.0.0.2:1"))]);
        let table = with_paths_of(&known, vec![peer("b", Some("10.0.0.9:9"))]);
        assert_eq!(table.peers(), [peer("b", Some("10.0.0.9:9"))]);
    }
}
