//! A program that runs in a host, and what it said.
//!
//! A thread for each of the two outputs appends what the program writes to a transcript and
//! rings an eventfd; whoever waits for a line polls that eventfd together with the program's pidfd,
//! so a program that ends ends the wait as well. Programs die with the host's thread: SIGTERM and a
//! deadline when a [`Process`] is dropped, SIGKILL from the kernel when the whole lab is killed.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::deadline::{Deadline, WaitError};
use crate::sys;

/// How long a program may take to end after SIGTERM before it is killed.
pub const GRACE: Duration = Duration::from_secs(5);

/// The most that is kept of what a program writes to one output; older octets are forgotten.
const MAX_TRANSCRIPT: usize = 1 << 20;

/// A running program; dropping it ends it and waits for its end.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: Child,
    pidfd: OwnedFd,
    stdout: Transcript,
    stderr: Transcript,
    readers: Vec<JoinHandle<()>>,
}

/// Why a program did not do what was expected of it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// The program's file.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// It ended before it said what was waited for.
    #[error("{program} ended ({status}) before {awaited}{}", said(.stderr))]
    Ended {
        /// The program's file.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What was waited for.
        awaited: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// What was waited for did not come.
    #[error("wait for {awaited} of {program}")]
    Wait {
        /// The program's file.
        program: String,
        /// What was waited for.
        awaited: String,
        /// The cause.
        source: WaitError,
    },
    /// Its state is unknown.
    #[error("ask how {program} ended")]
    Reap {
        /// The program's file.
        program: String,
        /// The cause.
        source: io::Error,
    },
}

fn said(stderr: &str) -> String {
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
    last.map(|line| format!(", saying {line:?}")).unwrap_or_default()
}

impl Process {
    /// Starts `command` from the calling thread, in whose namespaces the program then runs, and
    /// with whose end it is killed.
    pub(crate) fn start(mut command: Command) -> Result<Self, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| ProcessError::Start { program: program.clone(), source };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::kill_with_parent_thread(&mut command);
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stdout = Transcript::new(bell().map_err(|error| failed(error.into()))?);
        let stderr = Transcript::new(bell().map_err(|error| failed(error.into()))?);
        let mut child = command.spawn().map_err(failed)?;
        // An unreaped child keeps its pid, so this is the child and no other process.
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(error.into()));
            }
        };
        let mut readers = Vec::with_capacity(2);
        readers.extend(child.stdout.take().map(|pipe| stdout.follow(pipe)));
        readers.extend(child.stderr.take().map(|pipe| stderr.follow(pipe)));
        Ok(Self { program, child, pidfd, stdout, stderr, readers })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the program wrote to standard output so far, at most the last MiB.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What the program wrote to standard error so far, at most the last MiB.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for a whole line on standard error that contains `part`, and returns it.
    pub fn wait_for_line(
        &mut self,
        part: &str,
        deadline: Deadline<'_>,
    ) -> Result<String, ProcessError> {
        let awaited = format!("the line {part:?}");
        loop {
            // The order matters: a program that has ended writes nothing more after this look.
            let ended = self.try_wait()?;
            if ended.is_some() {
                self.join_readers();
            }
            if let Some(line) = self.stderr.find_line(part) {
                return Ok(line);
            }
            if let Some(status) = ended {
                return Err(self.ended(status, awaited));
            }
            deadline.wait_readable(&[self.stderr.bell.as_fd(), self.pidfd.as_fd()]).map_err(
                |source| ProcessError::Wait {
                    program: self.program.clone(),
                    awaited: awaited.clone(),
                    source,
                },
            )?;
            self.stderr.silence();
        }
    }

    /// Waits until the program has ended by itself and everything it wrote is here.
    pub fn wait(&mut self, deadline: Deadline<'_>) -> Result<ExitStatus, ProcessError> {
        loop {
            if let Some(status) = self.try_wait()? {
                self.join_readers();
                return Ok(status);
            }
            deadline.wait_readable(&[self.pidfd.as_fd()]).map_err(|source| ProcessError::Wait {
                program: self.program.clone(),
                awaited: "the end".to_owned(),
                source,
            })?;
        }
    }

    /// Asks the program to end with SIGTERM, kills it when `grace` is over, and reaps it.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM);
        match self.wait(Deadline::after(grace)) {
            Err(ProcessError::Wait { .. }) => {}
            result => return result,
        }
        self.kill()
    }

    /// Ends the program as `kill -9` does, and reaps it.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::KILL);
        self.wait(Deadline::after(GRACE))
    }

    /// How the program ended, if it did.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        self.child
            .try_wait()
            .map_err(|source| ProcessError::Reap { program: self.program.clone(), source })
    }

    fn signal(&self, signal: Signal) {
        // Fails only when the program is gone, which is what the signal is for.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    fn ended(&self, status: ExitStatus, awaited: String) -> ProcessError {
        let stderr = self.stderr();
        ProcessError::Ended { program: self.program.clone(), status, awaited, stderr }
    }

    fn join_readers(&mut self) {
        // A grandchild that inherited the outputs keeps them open; then what is here must do.
        let patience = Deadline::after(Duration::from_secs(1));
        let _ =
            patience.wait_until(|| self.readers.iter().all(JoinHandle::is_finished).then_some(()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop(GRACE) {
            tracing::warn!("{error}");
        }
    }
}

/// What a program wrote to one output.
#[derive(Clone, Debug)]
struct Transcript {
    octets: Arc<Mutex<VecDeque<u8>>>,
    /// Readable after something was added.
    bell: Arc<OwnedFd>,
}

impl Transcript {
    fn new(bell: OwnedFd) -> Self {
        Self { octets: Arc::default(), bell: Arc::new(bell) }
    }

    /// Adds everything from `pipe` until its end, on a thread of its own.
    fn follow(&self, mut pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let transcript = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            // An error of a pipe is its end.
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                transcript.add(buffer.get(..count).unwrap_or_default());
            }
            transcript.ring();
        })
    }

    fn add(&self, new: &[u8]) {
        let mut octets = self.octets.lock().unwrap_or_else(PoisonError::into_inner);
        octets.extend(new);
        let surplus = octets.len().saturating_sub(MAX_TRANSCRIPT);
        octets.drain(..surplus);
        drop(octets);
        self.ring();
    }

    fn ring(&self) {
        // Fails only when the counter is full, and then the bell rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn silence(&self) {
        // Fails only when the bell does not ring.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    fn text(&self) -> String {
        let mut octets = self.octets.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(octets.make_contiguous()).into_owned()
    }

    /// The first whole line with `part` in it.
    fn find_line(&self, part: &str) -> Option<String> {
        let text = self.text();
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines.find(|line| line.contains(part)).map(str::to_owned)
    }
}
