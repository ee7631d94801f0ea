//! What the supervisor waits for: descriptors, and deadlines.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use device::Presence;
use netlink::Change;
use rustix::event::{PollFd, PollFlags};

use super::attachment::Attachment;
use super::names;
use super::{Supervisor, TunnelError};
use crate::control::ControlSockets;
use crate::poll::poll_until;
use crate::signal::{Request, Signals};

/// What the supervisor reacts to.
pub(super) enum Event {
    Signal(Request),
    Changes(Vec<Change>),
    Worker,
    Found(Vec<names::Found>),
    Asked,
    Deadline,
}

/// What is to be done later, and when.
#[derive(Default)]
pub(super) struct Due {
    /// The plan is made anew: when, and when at the latest although changes go on.
    pub(super) fit: Option<(Instant, Instant)>,
    /// The last time that it was.
    pub(super) fitted: Option<Instant>,
    /// It is looked whether other folders are there than the worker has.
    pub(super) folders: Option<Instant>,
    /// The device is opened again: when, after which interval, and whether it may be made anew.
    pub(super) reopen: Option<(Instant, Duration, Presence)>,
}

/// Which descriptors have something.
struct Ready {
    signal: bool,
    worker: bool,
    names: bool,
    change: bool,
    asked: bool,
}

impl Supervisor {
    /// Waits for the next event, or until something is due.
    pub(super) fn wait(&mut self, signals: &mut Signals) -> Result<Event, TunnelError> {
        loop {
            if self.attachment.as_ref().is_some_and(Attachment::has_messages) {
                return Ok(Event::Worker);
            }
            let Some(ready) = self.poll(signals).map_err(TunnelError::Wait)? else {
                return Ok(Event::Deadline);
            };
            if let Some(event) = self.event(&ready, signals) {
                return Ok(event);
            }
        }
    }

    /// Which descriptors are ready; none if something was due first.
    fn poll(&self, signals: &Signals) -> io::Result<Option<Ready>> {
        let worker = self.attachment.as_ref().and_then(Attachment::source);
        let names = self.names.as_ref().map(AsFd::as_fd);
        let sources = [Some(signals.as_fd()), worker, names, Some(self.monitor.as_fd())];
        let told = sources.into_iter().flatten();
        let mut fds: Vec<_> = told.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let asking = self.control.as_ref().map(ControlSockets::poll_fds).unwrap_or_default();
        let asking = asking.into_iter();
        fds.extend(asking.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        if poll_until(&mut fds, self.next_due())? == 0 {
            return Ok(None);
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let [signal, worker, names, change] =
            sources.map(|source| source.is_some() && ready.next() == Some(true));
        Ok(Some(Ready { signal, worker, names, change, asked: ready.any(|ready| ready) }))
    }

    /// The most urgent event of those that are ready.
    fn event(&mut self, ready: &Ready, signals: &mut Signals) -> Option<Event> {
        if ready.signal
            && let Some(request) = signals.take()
        {
            return Some(Event::Signal(request));
        }
        if ready.worker {
            return Some(Event::Worker);
        }
        if let Some(names) = self.names.as_ref().filter(|_| ready.names) {
            return Some(Event::Found(names.take()));
        }
        if ready.asked {
            return Some(Event::Asked);
        }
        ready.change.then(|| {
            // What cannot be read is as good as missed.
            Event::Changes(self.monitor.changes().unwrap_or_else(|_| vec![Change::Missed]))
        })
    }

    /// When something is due next.
    fn next_due(&self) -> Option<Instant> {
        let worker = self.attachment.as_ref().and_then(Attachment::deadline);
        let reopen = self.due.reopen.map(|(at, ..)| at);
        let fit = self.due.fit.map(|(at, _)| at);
        let asked = self.control.as_ref().and_then(ControlSockets::deadline);
        [fit, reopen, self.due.folders, worker, asked].into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub(super) fn handle_due(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.due.reopen.map(|(at, ..)| at)) {
            self.reopen();
        }
        self.with_attachment(|attachment, lasting| attachment.handle_deadline(now, lasting));
        if is_due(self.due.folders) {
            self.look_at_folders();
        }
        if is_due(self.due.fit.map(|(at, _)| at)) {
            self.fit();
        }
        if is_due(self.control.as_ref().and_then(ControlSockets::deadline)) {
            self.handle_control();
        }
    }
}
