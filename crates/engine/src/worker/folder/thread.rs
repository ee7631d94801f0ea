//! The thread of a folder: it takes what comes in, and puts in what the first thread has to say.
//!
//! It waits for three things at once: inotify's announcements, mail, and the end; and looks into the folder by itself when
//! the reader says so, since nobody announces what another machine has written. Whatever the folder refuses is
//! said once, until it works again. A folder that is gone, since its server was started again or somebody has removed it, is for
//! the supervisor to open anew, which this process may not.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use transport::spool::{Fault, OpenError, Reader, Writer};

use super::Folder;
use crate::poll::poll_until;
use crate::with_causes::WithCauses;
use crate::worker::ingress::folder::FolderIngress;
use crate::worker::lane::Ended;
use crate::worker::stop::Stop;

/// The stream of the folder's thread; lanes have those from 0 on.
const STREAM: u8 = u8::MAX;

/// Does the folder not work for so long, another one may be there.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked what other sides have not taken.
const REVIEW: Duration = Duration::from_secs(1);

/// How often the supervisor is told that the folder is gone.
const TELL: Duration = Duration::from_secs(5);

/// Serves a folder.
pub(crate) struct FolderThread {
    folder: Arc<Folder>,
    reader: Reader,
    writer: Writer,
    ingress: FolderIngress,
    stop: Arc<Stop>,
    /// When it was looked last what other sides have not taken, and whether there was something.
    reviewed: Instant,
    has_outstanding: bool,
    complaint: Option<String>,
    /// When it ceased to work.
    down_since: Option<Instant>,
    /// When the supervisor was told that the folder is gone.
    told: Option<Instant>,
}

impl FolderThread {
    pub(crate) fn new(
        folder: Arc<Folder>,
        ingress: FolderIngress,
        stop: Arc<Stop>,
    ) -> Result<Self, OpenError> {
        let reader = folder.spool.reader(super::now())?;
        tell_character(&folder);
        let taken = || OpenError::Unfit {
            operation: "write",
            source: io::Error::from(io::ErrorKind::ResourceBusy),
        };
        let writer = folder.spool.writer(STREAM).ok_or_else(taken)?;
        Ok(Self {
            folder,
            reader,
            writer,
            ingress,
            stop,
            reviewed: Instant::now(),
            has_outstanding: false,
            complaint: None,
            down_since: None,
            told: None,
        })
    }

    /// Carries what comes in until the end has come or the device is gone.
    pub(crate) fn run(mut self) -> Ended {
        match self.serve() {
            Ok(()) => Ended::Stopped,
            Err(ended) => ended,
        }
    }

    fn serve(&mut self) -> Result<(), Ended> {
        while !self.stop.is_set() {
            self.deliver_mail();
            match self.reader.recv(self.ingress.batch(), super::now()) {
                Ok(0) => self.wait()?,
                Ok(_) => {
                    self.ingress.carry()?;
                    self.settle();
                }
                Err(fault) => self.handle_fault(&fault)?,
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Ended> {
        let mut pause = self.reader.next_look().saturating_sub(super::now());
        if self.reviewed.elapsed() >= REVIEW {
            self.reviewed = Instant::now();
            self.has_outstanding = self.folder.spool.review();
        }
        if self.has_outstanding {
            pause = pause.min(REVIEW);
        }
        if pause.is_zero() {
            return Ok(());
        }
        let mut fds = [self.reader.as_fd(), self.folder.mail.as_fd(), self.stop.as_fd()]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        poll_until(&mut fds, Some(Instant::now() + pause)).map_err(Ended::Failed)?;
        Ok(())
    }

    /// Puts what the first thread has to say into the folder.
    fn deliver_mail(&mut self) {
        for (to, message) in self.folder.mail.take() {
            for side in self.folder.find(to) {
                let Some(room) = self.writer.reserve(&side, message.len()) else { continue };
                room.copy_from_slice(&message);
                self.writer.commit(message.len());
                let outcome = self.writer.publish(super::now());
                if let Some(fault) = outcome.error {
                    self.complain(&fault);
                }
                // What cannot be left now is said again, or was never promised to arrive.
                self.writer.clear();
            }
        }
    }

    fn handle_fault(&mut self, fault: &Fault) -> Result<(), Ended> {
        let is_gone = match fault {
            Fault::InboxGone(_) => match self.reader.renew(super::now()) {
                Ok(()) => {
                    self.complain(fault);
                    false
                }
                // That says more than that the inbox is gone.
                Err(error) => {
                    self.complain(&error);
                    true
                }
            },
            fault => {
                self.complain(fault);
                // A server that is gone may answer anything for a while.
                let since = self.down_since.get_or_insert_with(Instant::now);
                matches!(fault, Fault::Dead { .. }) || since.elapsed() > PATIENCE
            }
        };
        if is_gone && self.told.is_none_or(|told| told.elapsed() > TELL) {
            self.told = Some(Instant::now());
            self.ingress.slow_path().folder_gone();
        }
        self.wait()
    }

    /// Says what is wrong, once.
    fn complain(&mut self, error: &dyn std::error::Error) {
        let complaint = format!("folder {}: {}", self.folder.name, WithCauses(error));
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::warn!("{complaint}");
            self.complaint = Some(complaint);
        }
    }

    /// Says that it works again, if it did not.
    fn settle(&mut self) {
        self.down_since = None;
        if self.complaint.take().is_some() {
            tracing::info!("folder {} works again", self.folder.name);
        }
    }
}

/// Says how the folder will be read, and what is left there.
fn tell_character(folder: &Folder) {
    tracing::debug!("folder {}: {}", folder.name, folder.spool.character());
    for side in folder.spool.leftovers() {
        tracing::warn!("folder {}: {side} is left, since something foreign is in it", folder.name);
    }
}
