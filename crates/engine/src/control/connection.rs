//! One client: its request, its answer, and how long it may take.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;
use zeroize::Zeroizing;

use super::lines::Lines;
use super::{Answer, Client, MAX_ANSWER, MAX_REQUEST, PATIENCE, Question, Response};
use crate::uapi::{self, MAX_LINE, Reader, Step};

/// How often is read of one client, or answered without the loop, before others have their turn.
const STEPS: usize = 16;

/// A client is done with, for whatever reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over;

/// What a client speaks.
#[derive(Debug)]
pub(super) enum Dialect {
    /// A request a line.
    Json,
    /// WireGuard's lines, which make requests together.
    Uapi(Reader),
}

/// A client that was accepted.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    socket: UnixStream,
    dialect: Dialect,
    lines: Lines,
    state: State,
    /// Since when it has been in this state.
    since: Instant,
}

#[derive(Debug)]
enum State {
    /// A request is awaited.
    Listening,
    /// An answer is awaited from the loop.
    Owed,
    /// The client takes the answer.
    Answering { answer: Zeroizing<Vec<u8>>, taken: usize },
}

impl Connection {
    pub(super) fn new(client: Client, socket: UnixStream, dialect: Dialect, now: Instant) -> Self {
        let longest = match dialect {
            Dialect::Json => MAX_REQUEST,
            Dialect::Uapi(_) => MAX_LINE,
        };
        let (lines, state) = (Lines::new(longest), State::Listening);
        Self { client, socket, dialect, lines, state, since: now }
    }

    pub(super) fn client(&self) -> Client {
        self.client
    }

    /// What is waited for; nothing while an answer is owed, as a client that hangs up would be ready all the time.
    pub(super) fn source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let flags = match self.state {
            State::Listening => PollFlags::IN,
            State::Owed => return None,
            State::Answering { .. } => PollFlags::OUT,
        };
        Some((self.socket.as_fd(), flags))
    }

    /// When it has to be looked at, whether it is ready or not.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Owed => None,
            State::Listening if self.lines.has_line() => Some(self.since),
            State::Listening | State::Answering { .. } => Some(self.since + PATIENCE),
        }
    }

    /// Goes on where that is possible; what is asked, if a request is complete.
    pub(super) fn handle_ready(&mut self, now: Instant) -> Result<Option<Question>, Over> {
        if matches!(self.state, State::Answering { .. }) {
            self.write(now)?;
        }
        for _ in 0..STEPS {
            if let Some(question) = self.take_lines(now)? {
                return Ok(Some(question));
            }
            let is_listening = matches!(self.state, State::Listening);
            if !is_listening || (!self.lines.has_line() && !self.read()?) {
                break;
            }
        }
        match self.deadline() {
            Some(deadline) if deadline <= now && !self.lines.has_line() => Err(Over),
            _ => Ok(None),
        }
    }

    /// Answers, as far as the client takes it at once.
    pub(super) fn answer(&mut self, answer: Answer, now: Instant) -> Result<(), Over> {
        self.state = State::Answering { answer: emit(answer), taken: 0 };
        self.since = now;
        self.write(now)
    }

    /// Treats the lines that are there, up to the end of a request; one that is refused is answered.
    fn take_lines(&mut self, now: Instant) -> Result<Option<Question>, Over> {
        if !matches!(self.state, State::Listening) {
            return Ok(None);
        }
        while let Some(line) = self.lines.take() {
            match self.dialect.handle_line(line)? {
                None => {}
                Some(Ok(question)) => {
                    self.state = State::Owed;
                    return Ok(Some(question));
                }
                Some(Err(refusal)) => return self.answer(refusal, now).map(|()| None),
            }
        }
        Ok(None)
    }

    /// Reads what has come; whether there was anything.
    fn read(&mut self) -> Result<bool, Over> {
        let room = self.lines.room();
        if room.is_empty() {
            return Err(Over);
        }
        match self.socket.read(room) {
            Ok(0) => Err(Over),
            Ok(count) => {
                self.lines.fill(count);
                Ok(true)
            }
            Err(error) => patient(&error).map(|()| false),
        }
    }

    /// Writes what the client takes of its answer.
    fn write(&mut self, now: Instant) -> Result<(), Over> {
        let State::Answering { answer, taken } = &mut self.state else { return Ok(()) };
        while let Some(rest @ [_, ..]) = answer.get(*taken..) {
            match self.socket.write(rest) {
                Ok(0) => return Err(Over),
                Ok(count) => *taken += count,
                Err(error) => return patient(&error),
            }
        }
        self.state = State::Listening;
        self.since = now;
        Ok(())
    }
}

impl Dialect {
    /// What a line completes: a question, or one that is answered here.
    fn handle_line(&mut self, line: &[u8]) -> Result<Option<Result<Question, Answer>>, Over> {
        Ok(match self {
            Self::Json => Some(match serde_json::from_slice(line) {
                Ok(request) => Ok(Question::Command(request)),
                Err(error) => Err(Answer::Command(Response::Failed {
                    reason: format!("this version of adit does not understand that: {error}"),
                })),
            }),
            Self::Uapi(reader) => match reader.handle_line(line) {
                Step::More => None,
                Step::Complete(Ok(uapi::Request::Get)) => Some(Ok(Question::Get)),
                Step::Complete(Ok(uapi::Request::Set(changes))) => Some(Ok(Question::Set(changes))),
                Step::Complete(Err(refusal)) => Some(Err(Answer::Set(Err(refusal)))),
                Step::Unknown => return Err(Over),
            },
        })
    }
}

/// Whether a client may be tried again later.
fn patient(error: &io::Error) -> Result<(), Over> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(Over),
    }
}

/// The octets of an answer.
fn emit(answer: Answer) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match answer {
        Answer::Command(response) => line(&response),
        Answer::Get(mut text) => std::mem::take(&mut *text).into_bytes(),
        Answer::Set(outcome) => uapi::emit_end(outcome).into_bytes(),
    })
}

fn line(response: &Response) -> Vec<u8> {
    let failed = |reason: &str| {
        let response = Response::Failed { reason: reason.to_owned() };
        serde_json::to_vec(&response).unwrap_or_default()
    };
    let mut octets = match serde_json::to_vec(response) {
        Ok(octets) if octets.len() > MAX_ANSWER => failed("the answer is too long"),
        Ok(octets) => octets,
        Err(error) => failed(&error.to_string()),
    };
    octets.push(b'\n');
    octets
}
