//! A worker, as the supervisor sees it: a child process that carries packets, and that may die at any time.
//!
//! # Theory of operation
//!
//! A worker is the same program (`/proc/self/exe`, which stays the same when the file is replaced), started with
//! one end of a channel as its standard input. It gets an environment of its own, since it shall know nothing that it does
//! not need, and a process group of its own, so that Ctrl-C reaches the supervisor alone.
//!
//! Nothing that a worker does can hold the supervisor up for longer than a deadline, and nothing that it says is taken
//! on trust: [`Carrier::take`] hands out only messages that make sense, with text that is fit for a terminal. A worker
//! that says anything else is killed, and so is one that says more than it was asked ([`Allowance`]), or
//! takes nothing: so what it can have the supervisor do and keep is limited.
//!
//! The kernel kills a worker with the *thread* that has started it, so that has to be the one that lives as long
//! as the supervisor.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::level_filters::LevelFilter;

use crate::channel::message::{
    Confinement, Ending, PathEntry, SessionEntry, Setup, ToSupervisor, ToWorker,
};
use crate::channel::{self, Arrival, Channel, ChannelError};
use crate::metrics::Totals;
use crate::status::{FolderStatus, Handshakes};
use crate::with_causes::WithCauses;
use crate::worker::confine::ENVIRONMENT;
use crate::worker::sessions::PEERS_A_MESSAGE;

/// This program, also when its file was replaced or deleted meanwhile.
const PROGRAM: &str = "/proc/self/exe";

/// How long a worker may take to start.
const START: Duration = Duration::from_secs(5);

/// How long a worker that has hung up may take to end, and how often that is looked at.
const END: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1));

/// The most characters of a text that are passed on.
const TEXT: usize = 512;

/// A worker cannot be started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// There is no process.
    #[error("start a worker")]
    Spawn(#[source] io::Error),
    /// It does not take its setup.
    #[error("set a worker up")]
    Channel(#[from] ChannelError),
    /// A folder cannot be opened.
    #[error("open folder {}", .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The device was deleted meanwhile.
    #[error("the device is gone")]
    DeviceGone,
    /// It could not do what it was told.
    #[error("the worker cannot work: {0}")]
    Failed(String),
    /// It has ended.
    #[error("the worker ended: {0}")]
    Died(Death),
    /// It does not say that it has started.
    #[error("the worker does not start")]
    Slow,
}

/// How a worker has ended by itself.
#[derive(Clone, Debug)]
pub(crate) enum Death {
    /// The process ended.
    Ended(ExitStatus),
    /// It was killed for what it said.
    Misbehaved(String),
    /// The kernel cannot say.
    Unknown(String),
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(status) if status.signal() == Some(libc::SIGSYS) => {
                formatter.write_str("it made a system call that it may not make (SIGSYS)")
            }
            Self::Ended(status) => status.fmt(formatter),
            Self::Misbehaved(what) => write!(formatter, "it was killed, since it sent {what}"),
            Self::Unknown(why) => formatter.write_str(why),
        }
    }
}

/// What a worker has carried, and how it stands with the peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) totals: Totals,
    pub(crate) sessions: Vec<SessionEntry>,
    pub(crate) handshakes: Handshakes,
    pub(crate) folders: Vec<FolderStatus>,
}

impl Report {
    /// What was carried, without a word of the peers.
    pub(crate) fn of(totals: Totals) -> Self {
        Self { totals, ..Self::default() }
    }
}

/// A worker that has started; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Carrier {
    child: Child,
    channel: Channel<OwnedFd>,
    peers: usize,
    sockets: usize,
    folders: usize,
    allowance: Allowance,
    since: Instant,
    /// What came while something else was waited for.
    waiting: Vec<ToSupervisor>,
    confinement: Confinement,
    /// What it has carried, as far as it was asked.
    totals: Totals,
    death: Option<Death>,
}

impl Carrier {
    /// Starts a worker, and returns when it carries packets.
    ///
    /// `descriptors` are those of the device's queues, then those of the sockets, then those of the folders.
    pub(crate) fn start(setup: Setup, descriptors: &[BorrowedFd<'_>]) -> Result<Self, StartError> {
        let (channel, there) = channel::pair().map_err(StartError::Spawn)?;
        // Whatever the supervisor was started with is not for the worker. Where the kernel cannot do that, the
        // worker tells what it has got.
        if let Err(error) = device::close_on_exec() {
            tracing::debug!("keep descriptors from the worker: {error}");
        }
        let mut carrier = Self {
            child: command(there).spawn().map_err(StartError::Spawn)?,
            channel,
            peers: setup.peers.len(),
            sockets: setup.sockets.len(),
            folders: setup.folders.len(),
            allowance: Allowance::for_peers(setup.peers.len(), Instant::now()),
            since: Instant::now(),
            waiting: Vec::new(),
            confinement: Confinement::default(),
            totals: Totals::default(),
            death: None,
        };
        let sent = carrier.channel.send_with(&ToWorker::Setup(Box::new(setup)), descriptors);
        // A worker that has died meanwhile is told of below.
        if !matches!(sent, Err(ChannelError::Io { .. })) {
            sent?;
        }
        carrier.await_start(Instant::now() + START)?;
        Ok(carrier)
    }

    /// How long ago it was started.
    pub(crate) fn life(&self) -> Duration {
        self.since.elapsed()
    }

    /// What it could not confine itself by.
    pub(crate) fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// What it has carried, when it was last asked.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Whether [`Self::take`] has something, although the descriptor may not be readable.
    pub(crate) fn has_messages(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What it has to say: paths that it learned, and why it ends. An error when it has ended, and everything
    /// that it said is taken.
    pub(crate) fn take(&mut self) -> Result<Vec<ToSupervisor>, Death> {
        if self.has_messages() {
            return Ok(std::mem::take(&mut self.waiting));
        }
        if let Some(death) = &self.death {
            return Err(death.clone());
        }
        match self.receive() {
            Ok((Arrival::End, messages)) if messages.is_empty() => Err(self.bury()),
            Ok((_, messages)) => Ok(messages),
            Err(error) => {
                let death = Death::Misbehaved(error.to_string());
                self.kill();
                Err(self.death.insert(death).clone())
            }
        }
    }

    /// Tells it something. A worker that does not take that has half of a message, and is killed; the next
    /// [`Self::take`] tells.
    pub(crate) fn tell(&mut self, message: &ToWorker) {
        if let ToWorker::Peers(peers) = message {
            self.peers = peers.len();
            self.allowance.replace_peers(peers.len());
        }
        self.send(message);
    }

    /// Asks what it has carried; none if it does not answer in time.
    pub(crate) fn report(&mut self, deadline: Instant) -> Option<Report> {
        self.allowance.expect_report();
        if !self.send(&ToWorker::Report) {
            return None;
        }
        self.await_report(deadline)
    }

    /// Ends it, if need be by force when the deadline has passed; returns what it has carried.
    pub(crate) fn stop(mut self, deadline: Instant) -> Totals {
        if self.channel.send(&ToWorker::Stop).is_ok() && self.await_report(deadline).is_some() {
            self.bury();
        }
        std::mem::take(&mut self.totals)
    }

    /// Whether the worker took the message; one that does not is killed.
    fn send(&mut self, message: &ToWorker) -> bool {
        let stuck = match self.channel.send(message) {
            Ok(()) => return true,
            // It has ended, which is told when everything that it said is taken.
            Err(ChannelError::Io { .. }) => return false,
            Err(stuck) => stuck,
        };
        tracing::warn!("the worker is killed: {}", WithCauses(&stuck));
        self.kill();
        false
    }

    fn await_start(&mut self, deadline: Instant) -> Result<(), StartError> {
        while self.channel.wait(deadline)? {
            let mut messages = self.take().map_err(StartError::Died)?.into_iter();
            while let Some(message) = messages.next() {
                match message {
                    ToSupervisor::Started => {
                        self.waiting.extend(messages);
                        return Ok(());
                    }
                    ToSupervisor::Ended(Ending::DeviceGone) => return Err(StartError::DeviceGone),
                    ToSupervisor::Ended(Ending::Failed { text }) => {
                        return Err(StartError::Failed(text));
                    }
                    // There is nothing else to do before the start.
                    _ => {}
                }
            }
        }
        Err(StartError::Slow)
    }

    fn await_report(&mut self, deadline: Instant) -> Option<Report> {
        let mut others = std::mem::take(&mut self.waiting);
        let (mut totals, mut report) = (None, Report::default());
        while totals.is_none() && matches!(self.channel.wait(deadline), Ok(true)) {
            let Ok(messages) = self.take() else { break };
            for message in messages {
                match message {
                    ToSupervisor::Traffic(traffic) => totals = Some(*traffic),
                    ToSupervisor::Sessions(entries) => report.sessions.extend(entries),
                    ToSupervisor::Handshakes(counters) => report.handshakes = counters,
                    ToSupervisor::Folders(folders) => report.folders = folders,
                    other => others.push(other),
                }
            }
        }
        self.waiting = others;
        Some(Report { totals: totals?, ..report })
    }

    /// The messages that have come, each of them understood.
    fn receive(&mut self) -> Result<(Arrival, Vec<ToSupervisor>), Misbehaviour> {
        let arrival = self.channel.receive()?;
        let mut messages = Vec::new();
        while let Some(message) = self.channel.take()? {
            messages.push(self.judge(message)?);
        }
        Ok((arrival, messages))
    }

    /// Remembers what concerns the worker alone, and refuses what cannot be.
    fn judge(&mut self, message: ToSupervisor) -> Result<ToSupervisor, Misbehaviour> {
        if !self.allowance.allows(&message, Instant::now()) {
            return Err(Misbehaviour::TooMuch);
        }
        Ok(match message {
            ToSupervisor::Confined(confinement) => {
                let missing = confinement.missing.iter().map(|text| legible(text)).collect();
                let still_root = confinement.still_root.as_deref().map(legible);
                self.confinement = Confinement { still_root, missing };
                ToSupervisor::Confined(self.confinement.clone())
            }
            ToSupervisor::Traffic(totals) => {
                self.totals = Totals::clone(&totals);
                ToSupervisor::Traffic(totals)
            }
            ToSupervisor::PathLearned { peer, path } => {
                if usize::from(peer) >= self.peers || !self.can_be(path) {
                    return Err(Misbehaviour::Path);
                }
                ToSupervisor::PathLearned { peer, path }
            }
            ToSupervisor::Roamed(roamed) => {
                if !roamed.iter().all(|(_, path)| self.can_be(*path)) {
                    return Err(Misbehaviour::Path);
                }
                ToSupervisor::Roamed(roamed)
            }
            ToSupervisor::Folders(folders) => {
                let folders = folders.iter().take(self.folders);
                ToSupervisor::Folders(folders.map(legible_folder).collect())
            }
            ToSupervisor::Ended(Ending::Failed { text }) => {
                ToSupervisor::Ended(Ending::Failed { text: legible(&text) })
            }
            ToSupervisor::Started
            | ToSupervisor::Unanswered(_)
            | ToSupervisor::FolderGone
            | ToSupervisor::Enrols(_)
            | ToSupervisor::Sessions(_)
            | ToSupervisor::Handshakes(_)
            | ToSupervisor::Ended(Ending::DeviceGone) => message,
        })
    }

    /// Whether a peer can have been heard of there.
    fn can_be(&self, path: PathEntry) -> bool {
        path.is_among(self.sockets, self.folders) && path.can_be_sender()
    }

    /// Waits for the end of a worker that has hung up, and kills it if that does not come; how it ended.
    fn bury(&mut self) -> Death {
        let deadline = Instant::now() + END.0;
        let death = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Death::Ended(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(END.1),
                Ok(None) => break self.kill(),
                Err(error) => break Death::Unknown(error.to_string()),
            }
        };
        self.death.insert(death).clone()
    }

    fn kill(&mut self) -> Death {
        // Fails only if it has ended and is waited for already.
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => Death::Ended(status),
            Err(error) => Death::Unknown(error.to_string()),
        }
    }
}

impl AsFd for Carrier {
    /// Readable when [`Carrier::take`] has something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a worker may still say.
#[derive(Debug)]
struct Allowance {
    confined: usize,
    started: usize,
    ended: usize,
    /// Once at the end, and for each time that it is asked.
    traffic: usize,
    /// For each peer once, and again when they are replaced.
    paths: usize,
    /// As many as it takes to tell of all peers, as often as `traffic`.
    sessions: usize,
    /// As many as it takes to tell of all peers twice, every second.
    news: usize,
    /// When there was more of `news` last.
    since: Instant,
    peers: usize,
    /// The most peers that there were, since news of those that are gone may be on their way.
    most_peers: usize,
}

impl Allowance {
    fn for_peers(peers: usize, now: Instant) -> Self {
        Self {
            confined: 1,
            started: 1,
            ended: 1,
            traffic: 1,
            paths: peers,
            sessions: report(peers),
            news: NEWS_AHEAD * messages(peers),
            since: now,
            peers,
            most_peers: peers,
        }
    }

    fn replace_peers(&mut self, peers: usize) {
        self.peers = peers;
        self.most_peers = self.most_peers.max(peers);
        self.paths += peers;
        self.sessions += report(peers);
    }

    fn expect_report(&mut self) {
        self.traffic += 1;
        self.sessions += report(self.peers);
    }

    /// Whether it may say that `now`, which it may once less then.
    fn allows(&mut self, message: &ToSupervisor, now: Instant) -> bool {
        let a_second = messages(self.most_peers);
        let most = NEWS_AHEAD * a_second;
        let seconds = now.duration_since(self.since).as_secs();
        self.since += Duration::from_secs(seconds);
        let more = usize::try_from(seconds).unwrap_or(usize::MAX).saturating_mul(2);
        self.news = self.news.saturating_add(more.saturating_mul(a_second)).min(most);
        let left = match message {
            ToSupervisor::Confined(_) => &mut self.confined,
            ToSupervisor::Started => &mut self.started,
            ToSupervisor::Ended(_) => &mut self.ended,
            ToSupervisor::Traffic(_) => &mut self.traffic,
            ToSupervisor::PathLearned { .. } => &mut self.paths,
            ToSupervisor::Sessions(_) | ToSupervisor::Handshakes(_) | ToSupervisor::Folders(_) => {
                &mut self.sessions
            }
            ToSupervisor::Roamed(_)
            | ToSupervisor::Unanswered(_)
            | ToSupervisor::Enrols(_)
            | ToSupervisor::FolderGone => &mut self.news,
        };
        let allowed = *left > 0;
        *left = left.saturating_sub(1);
        allowed
    }
}

/// How many seconds' news may come at once.
const NEWS_AHEAD: usize = 8;

/// How many messages it takes to tell of so many peers, and of what is theirs together.
fn messages(peers: usize) -> usize {
    peers.div_ceil(PEERS_A_MESSAGE) + 1
}

/// The same, and of folders.
fn report(peers: usize) -> usize {
    messages(peers) + 1
}

/// What is said of a folder, fit for a terminal.
fn legible_folder(status: &FolderStatus) -> FolderStatus {
    let skipped = status.skipped.iter().map(|(reason, times)| (legible(reason), *times));
    FolderStatus {
        folder: legible(&status.folder),
        filesystem: legible(&status.filesystem),
        skipped: skipped.collect(),
        ..*status
    }
}

/// A worker says what none says.
#[derive(Debug, Error)]
enum Misbehaviour {
    #[error("what cannot be understood ({0})")]
    Channel(#[from] ChannelError),
    #[error("a path of a peer, over a socket or to an address that there is not")]
    Path,
    #[error("more than it was asked")]
    TooMuch,
}

fn command(stdin: OwnedFd) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg0("adit").args(verbosity()).arg("worker");
    command.stdin(Stdio::from(stdin)).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.current_dir("/").process_group(0).env_clear().envs(ENVIRONMENT);
    command
}

/// The argument by which a worker says as much as the supervisor.
fn verbosity() -> Option<&'static str> {
    match LevelFilter::current() {
        LevelFilter::DEBUG => Some("-v"),
        LevelFilter::TRACE => Some("-vv"),
        _ => None,
    }
}

/// The beginning of `text`, without what a terminal would obey.
fn legible(text: &str) -> String {
    let replaced = text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char });
    replaced.take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    use proto::{Path, TransportIndex};

    use super::*;

    #[test]
    fn text_of_a_worker_cannot_command_a_terminal() {
        assert_eq!(legible("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(legible(&"x".repeat(10_000)).len(), TEXT);
    }

    #[test]
    fn a_worker_says_no_more_than_it_was_asked() {
        let now = Instant::now();
        let mut allowance = Allowance::for_peers(2, now);
        let path: Path = Path {
            transport: TransportIndex(0),
            remote: "10.0.0.2:4740".parse().unwrap(),
            local: None,
        };
        let mut allows = |message: &ToSupervisor| allowance.allows(message, now);
        let learned = ToSupervisor::PathLearned { peer: 0, path: path.into() };
        assert!(allows(&learned) && allows(&learned) && !allows(&learned));
        let traffic = ToSupervisor::Traffic(Box::default());
        assert!(allows(&traffic) && !allows(&traffic));
        for once in [ToSupervisor::Started, ToSupervisor::Ended(Ending::DeviceGone)] {
            assert!(allows(&once) && !allows(&once));
        }
        allowance.expect_report();
        assert!(allowance.allows(&traffic, now) && !allowance.allows(&traffic, now));
    }

    #[test]
    fn a_worker_has_news_every_second() {
        let now = Instant::now();
        let mut allowance = Allowance::for_peers(2, now);
        let news = ToSupervisor::Unanswered(Vec::new());
        let mut allowed = |at| (0..100).filter(|_| allowance.allows(&news, at)).count();
        assert_eq!(allowed(now), 2 * NEWS_AHEAD);
        assert_eq!(allowed(now + Duration::from_millis(999)), 0);
        assert_eq!(allowed(now + Duration::from_secs(2)), 8);
        assert_eq!(allowed(now + Duration::from_secs(1000)), 2 * NEWS_AHEAD);
    }

    #[test]
    fn news_of_peers_that_were_removed_may_still_come() {
        let now = Instant::now();
        let mut allowance = Allowance::for_peers(10_000, now);
        allowance.replace_peers(1);
        let news = ToSupervisor::Unanswered(Vec::new());
        assert!((0..2 * messages(10_000)).all(|_| allowance.allows(&news, now)));
    }

    #[test]
    fn a_death_is_told_by_its_signal_or_status() {
        let told = |raw| Death::Ended(ExitStatus::from_raw(raw)).to_string();
        assert_eq!(told(libc::SIGKILL), "signal: 9 (SIGKILL)");
        assert_eq!(told(3 << 8), "exit status: 3");
        assert_eq!(told(libc::SIGSYS), "it made a system call that it may not make (SIGSYS)");
    }
}
