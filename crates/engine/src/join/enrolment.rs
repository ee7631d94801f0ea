//! The holder of a ticket asks to be a peer.
//!
//! `proto::tunnel::Tunnel` does it ([`proto::enrol`]); this brings clock, randomness and datagrams, on one thread, without a
//! device and without a lane: all that passes are handshakes and control frames.

use std::sync::Arc;
use std::time::Duration;

use proto::enrol::{ANSWER_PATIENCE, Answer, Enrolment, Message};
use proto::key::PublicKey;
use proto::keypair::Ciphers;
use proto::mtu::Content;
use proto::session::Received;
use proto::ticket::{Settings, Ticket};
use proto::time::Instant;
use proto::tunnel::{Context, Event, PeerConfig, Timing, Tunnel, TunnelConfig};
use proto::{InnerMtu, Path, PeerIndex, Side};
use thiserror::Error;
use wire::frame::{self, Mode};
use wire::message::{self, DataHeader, Kind};

use super::line::{Line, LineError};
use crate::worker::clock;
use crate::worker::sessions::Entropy;

/// How long the inviter may take for its first sign of life: three initiations, which are 5 s
/// apart.
const GREETING_PATIENCE: Duration = Duration::from_secs(15);

/// How long it may take for an answer after that, with another session if it needs one.
const PATIENCE: Duration = Duration::from_secs(30);

/// A joiner is not made a peer. Nothing of the ticket is told.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// Nobody speaks there.
    #[error("nobody at {endpoints} answers, or the ticket is unknown there")]
    NoAnswer {
        /// Where the inviter was looked for.
        endpoints: String,
    },
    /// The inviter was there, and says nothing more.
    #[error("the inviter was reached, but does not say whether this machine has joined")]
    Silent,
    /// Somebody else has joined.
    #[error("the ticket was used already: another machine has joined with it")]
    Used,
    /// The ticket's time is over.
    #[error("the ticket has expired, by the clock of the inviter")]
    Expired,
    /// For another reason.
    #[error("the inviter refuses: {0}")]
    Refused(String),
    /// There is no way to the inviter.
    #[error("reach the inviter")]
    Line(#[from] LineError),
}

impl EnrolError {
    /// Whether the inviter may have accepted the key.
    pub(super) fn may_be_accepted(&self) -> bool {
        matches!(self, Self::Silent)
    }
}

/// The joiner is a peer.
pub(super) struct Accepted {
    /// What the inviter says now, if that differs from the ticket.
    pub(super) settings: Option<Settings>,
    /// Where it is, as URLs; the one at which it has answered first.
    pub(super) endpoints: Vec<String>,
}

/// Asks the inviter at `endpoints` to make `own` a peer, which proposes to be called `name`.
pub(super) fn enrol(
    ticket: &Ticket,
    endpoints: &[String],
    own: PublicKey,
    name: Option<String>,
) -> Result<Accepted, EnrolError> {
    let identity = Side::of(&ticket.secret.identity().public_key());
    let line = Line::open(endpoints, identity, Side::of(&ticket.inviter))?;
    let asker = Asker::new(ticket, line, Enrolment { public_key: own, name });
    let (answer, place) = asker.run(&endpoints.join(", "))?;
    let mut endpoints = endpoints.to_vec();
    if let Some(place) = place.filter(|&place| place < endpoints.len()) {
        let answered = endpoints.remove(place);
        endpoints.insert(0, answered);
    }
    match answer {
        Answer::Accepted(settings) => {
            Ok(Accepted { settings: settings.map(|settings| *settings), endpoints })
        }
        Answer::Used => Err(EnrolError::Used),
        Answer::Expired => Err(EnrolError::Expired),
        Answer::Refused(reason) => Err(EnrolError::Refused(reason)),
    }
}

/// Who asks.
struct Asker {
    tunnel: Tunnel,
    inviter: PeerIndex,
    line: Line,
    wish: Enrolment,
    /// When the wish was last said.
    asked: Option<Instant>,
    answer: Option<Answer>,
    /// Whether a message of the inviter has come that proves who it is.
    is_found: bool,
}

impl Asker {
    fn new(ticket: &Ticket, line: Line, wish: Enrolment) -> Self {
        let content = match ticket.settings.mode {
            Mode::Packets => Content::Packet,
            Mode::Frames => Content::Frame,
        };
        let config = TunnelConfig {
            private_key: ticket.secret.identity(),
            ciphers: Ciphers { chacha: true, aes: false },
            content,
            mtu: InnerMtu::SMALLEST_IPV6,
            offload: false,
            timing: Timing::default(),
            extensions: true,
        };
        let random = &mut Entropy;
        let context = &mut context(random);
        let mut tunnel = Tunnel::new(config, context);
        let inviter = PeerConfig {
            public_key: ticket.inviter,
            preshared_key: ticket.secret.preshared_key(),
            path: line.first(),
            keepalive: None,
            allowed_ips: Vec::new(),
            invitation: true,
        };
        let inviter = tunnel.set_peers(context, vec![inviter]).first().copied();
        let inviter = inviter.unwrap_or(PeerIndex(0));
        tunnel.initiate(context, inviter);
        Self { tunnel, inviter, line, wish, asked: None, answer: None, is_found: false }
    }

    /// Asks until there is an answer, or no hope for one; the answer, and the place of the endpoint it came from.
    fn run(mut self, endpoints: &str) -> Result<(Answer, Option<usize>), EnrolError> {
        let start = clock::now();
        loop {
            self.handle_events();
            self.transmit();
            if let Some(answer) = self.answer.take() {
                let path = self.path();
                return Ok((answer, path.and_then(|path| self.line.endpoint(&path))));
            }
            let now = clock::now();
            let patience = if self.asked.is_some() { PATIENCE } else { GREETING_PATIENCE };
            let deadline = start + patience;
            if now >= deadline {
                return Err(match self.asked {
                    Some(_) => EnrolError::Silent,
                    None => EnrolError::NoAnswer { endpoints: endpoints.to_owned() },
                });
            }
            let again = self.asked.map(|asked| asked + ANSWER_PATIENCE);
            let due = self.tunnel.poll_timeout().into_iter().chain(again).min();
            let wait = due.unwrap_or(deadline).min(deadline).since(now);
            self.receive(wait)?;
            if again.is_some_and(|again| clock::now() >= again) {
                // The inviter may have been started anew, and have lost the question.
                self.asked = Some(clock::now());
                self.initiate();
            }
            self.tunnel.handle_timeout(&mut context(&mut Entropy));
        }
    }

    fn initiate(&mut self) {
        self.tunnel.initiate(&mut context(&mut Entropy), self.inviter);
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                Event::Greeted { index, .. } => {
                    let wish = Message::Enrol(self.wish.clone());
                    if self.tunnel.say(&mut context(&mut Entropy), index, &wish) {
                        self.asked = Some(clock::now());
                    }
                }
                Event::Said { message: Message::Enrolled(answer), .. } => {
                    self.answer = Some(answer);
                }
                Event::Unsaid { .. } | Event::GaveUp { .. } => self.initiate(),
                Event::Established { .. }
                | Event::PathChanged { .. }
                | Event::HandshakeFailed { .. }
                | Event::Said { .. } => {}
            }
        }
    }

    /// Sends what there is, to everywhere as long as it is not known where the inviter is.
    fn transmit(&mut self) {
        while let Some(transmit) = self.tunnel.poll_transmit() {
            let path = self.is_found.then_some(&transmit.path);
            self.line.send(path, &transmit.datagram);
        }
    }

    fn path(&self) -> Option<Path> {
        self.tunnel.status(self.inviter, clock::now())?.path
    }

    /// Treats a datagram, if one comes in time.
    fn receive(&mut self, wait: Duration) -> Result<(), EnrolError> {
        let Some((from, datagram)) = self.line.receive(wait)? else { return Ok(()) };
        let random = &mut Entropy;
        let context = &mut context(random);
        if message::kind(datagram) != Some(Kind::Data) {
            self.tunnel.handle_handshake(context, &from, datagram, false);
        } else if let Some((index, frame)) = open(&mut self.tunnel, context, &from, datagram) {
            self.is_found = true;
            self.tunnel.handle_control(context, index, &frame);
        }
        Ok(())
    }
}

/// The control frame in a message, and the keypair that it was sealed with.
fn open(
    tunnel: &mut Tunnel,
    context: &mut Context<'_>,
    from: &Path,
    datagram: &mut [u8],
) -> Option<(u32, Vec<u8>)> {
    let header = DataHeader::parse(datagram).ok()?;
    let directory = Arc::clone(&tunnel.directory().load());
    let found = directory.keypairs.get(header.receiver)?;
    let (peer, keypair) = (found.peer(), found.keypair());
    if !keypair.is_alive(context.now) {
        return None;
    }
    let octets = datagram.len();
    let plaintext = keypair.open(&header, datagram).ok()?;
    let plaintext = datagram.get(plaintext)?;
    let session = directory.session(peer)?;
    if session.received(context.now, keypair, from, 1, octets, Received::Keepalive) {
        tunnel.handle_look(context, peer);
    }
    let is_control = frame::kind(plaintext) == frame::Kind::Control;
    is_control.then(|| (header.receiver, plaintext.to_vec()))
}

fn context(random: &mut Entropy) -> Context<'_> {
    Context { now: clock::now(), wall: clock::wall(), random }
}
