//! All clients of a tunnel, for a loop that waits for other things as well.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::PollFlags;

use super::connection::{Connection, Dialect};
use super::listener::{ControlError, Listener};
use super::{Answer, Client, MAX_CLIENTS, Question};
use crate::uapi::Reader;

/// The sockets on which a tunnel is asked, and those who ask. When it is dropped, the files go.
#[derive(Debug)]
pub struct ControlSockets {
    control: Listener,
    uapi: Option<Listener>,
    connections: Vec<Connection>,
    /// The number of the next client.
    next: u64,
}

impl ControlSockets {
    /// Listens for commands at `TUNNEL.sock` in `directory`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`ControlError::Live`] if another process listens there; the others if it cannot be done.
    pub fn open(directory: &Path, tunnel: &str) -> Result<Self, ControlError> {
        let control = Listener::open(directory, tunnel)?;
        Ok(Self { control, uapi: None, connections: Vec::new(), next: 0 })
    }

    /// Listens for `wg` at `DEVICE.sock` in `directory` ([`super::uapi_directory`]) as well.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; commands are answered all the same.
    pub fn open_uapi(&mut self, directory: &Path, device: &str) -> Result<(), ControlError> {
        self.uapi = Some(Listener::open(directory, device)?);
        Ok(())
    }

    /// Does not listen for `wg` any more. Clients that are there stay.
    pub fn close_uapi(&mut self) {
        self.uapi = None;
    }

    /// What to wait for, besides [`Self::deadline`].
    pub fn poll_fds(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let has_room = self.connections.len() < MAX_CLIENTS;
        let listeners = [Some(&self.control), self.uapi.as_ref()].into_iter().flatten();
        let listening = listeners.filter(|_| has_room).filter_map(Listener::source);
        let clients = self.connections.iter().filter_map(Connection::source);
        listening.map(|source| (source, PollFlags::IN)).chain(clients).collect()
    }

    /// When [`Self::handle_ready`] is to be called although nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let listeners = [Some(&self.control), self.uapi.as_ref()].into_iter().flatten();
        let clients = self.connections.iter().filter_map(Connection::deadline);
        listeners.filter_map(Listener::deadline).chain(clients).min()
    }

    /// Accepts, reads, writes and drops whatever is due, and returns what is asked. Costs nothing but a few system calls
    /// if nothing is.
    pub fn handle_ready(&mut self, now: Instant) -> Vec<(Client, Question)> {
        self.accept(now);
        let mut questions = Vec::new();
        self.connections.retain_mut(|connection| match connection.handle_ready(now) {
            Ok(question) => {
                questions.extend(question.map(|question| (connection.client(), question)));
                true
            }
            Err(_) => false,
        });
        questions
    }

    /// Answers what `client` has asked. One that is gone meanwhile does not matter.
    pub fn answer(&mut self, client: Client, answer: Answer, now: Instant) {
        let place = self.connections.iter().position(|connection| connection.client() == client);
        if let Some(place) = place
            && self.connections[place].answer(answer, now).is_err()
        {
            self.connections.swap_remove(place);
        }
    }

    fn accept(&mut self, now: Instant) {
        while self.connections.len() < MAX_CLIENTS {
            let (socket, dialect) = if let Some(socket) = self.control.accept(now) {
                (socket, Dialect::Json)
            } else if let Some(socket) = self.uapi.as_mut().and_then(|uapi| uapi.accept(now)) {
                (socket, Dialect::Uapi(Reader::default()))
            } else {
                return;
            };
            self.connections.push(Connection::new(Client(self.next), socket, dialect, now));
            self.next += 1;
        }
    }
}
