//! A host: a network namespace with a name, and one thread that lives in it.
//!
//! Only threads are inside a namespace, and only what a thread does there happens there: sockets
//! belong to the namespace in which they were opened and programs run in that of the thread that
//! started them. So every host keeps one thread for its whole life, and everybody else hands it
//! closures. Sockets opened by such a closure may be used from any thread.
//!
//! Nothing of a host has a name in a filesystem. The namespace, with all devices, addresses and
//! routes in it, lives as long as the thread, the descriptor and the programs inside; the programs
//! are killed when the thread ends. The kernel therefore removes everything when the lab ends, even
//! when it is killed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use netlink::Netns;

use crate::process::{Process, ProcessError};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a name; see the description of this module.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    netns: Netns,
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a host could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no network namespace for it.
    #[error("create network namespace of host {host}")]
    Create {
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// No thread could be started or moved inside.
    #[error("enter network namespace of host {host}")]
    Enter {
        /// The host's name.
        host: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl Host {
    /// Makes a host without any link except the loopback device, which is down.
    pub fn new(name: &'static str) -> Result<Self, HostError> {
        let netns = Netns::create().map_err(|source| HostError::Create { host: name, source })?;
        let entering = |source| HostError::Enter { host: name, source };
        let inside = Netns::from(netns.as_fd().try_clone_to_owned().map_err(entering)?);
        let (jobs, queue) = mpsc::channel::<Job>();
        let (entered, outcome) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("host {name}"))
            .spawn(move || {
                let entry = inside.enter();
                // One descriptor is enough, and the host has it.
                drop(inside);
                let stays = entry.is_ok();
                let _ = entered.send(entry);
                if stays {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .map_err(entering)?;
        // Made before the outcome is known so that the thread is joined in any case.
        let host = Self { name, netns, jobs: Some(jobs), thread: Some(thread) };
        match outcome.recv() {
            Ok(Ok(())) => Ok(host),
            Ok(Err(error)) => Err(entering(error)),
            Err(_) => Err(entering(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The name, as in the drawing.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs `job` on the host's thread and returns what it returns.
    ///
    /// A panic of `job` goes on in the caller and leaves the host usable. A job that never ends
    /// stops the host.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // Nobody is left to hear it when the caller is gone.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(job)));
        });
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .expect("the thread takes jobs until the host is dropped");
        match result.recv().expect("the job sends its result, or its panic") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Starts a program inside the host, with nothing on its standard input.
    ///
    /// The program is killed when the host is dropped before it.
    pub fn spawn(&self, command: Command) -> Result<Process, ProcessError> {
        self.run(|| Process::start(command))
    }
}

impl AsFd for Host {
    /// The network namespace.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Without a sender the thread finds the end of its queue.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
