//! How machines join with a ticket: who has it becomes a peer, once; who has not hears nothing.
//!
//! Host 0 is the inviter. What the engines of inviter and joiner do is a few lines here: they are asked for what has
//! happened every [`TURN`].

mod world;

use std::time::Duration;

use proto::enrol::{Answer, Enrolment, MESSAGES_MAX, Message};
use proto::mtu::Content;
use proto::ticket::{Invitation, TicketSecret};
use proto::tunnel::{Event, PeerConfig};
use proto::{DropReason, PrivateKey, PublicKey};
use simnet::{Conditions, Random};
use wire::frame::{Control, ControlKind};
use wire::message::Kind;
use world::{Options, World, millis, secs};

const TURN: Duration = millis(5);

/// When the ticket's time is over, in seconds since the Unix epoch; long after the worlds begin.
const EXPIRES: u64 = 1_800_000_000;

const INVITER: usize = 0;

/// A machine that has a ticket, or something like it.
struct Joiner {
    /// Its host while it enrols.
    host: usize,
    /// The key that it will have.
    key: PrivateKey,
    /// How many of its host's events it has seen.
    seen: usize,
    answers: Vec<Answer>,
    unsaid: usize,
    gave_up: bool,
}

struct Party {
    world: World,
    invitation: Invitation,
    /// How many of the inviter's events it has seen.
    seen: usize,
    /// Whom it was asked to accept, with the keypair.
    asked: Vec<(u32, PublicKey)>,
    joiners: Vec<Joiner>,
}

impl Party {
    fn new(seed: u64, conditions: Conditions, options: Options) -> Self {
        let mut world = World::new(seed, conditions);
        world.add(options);
        let invitation = Invitation::new(&secret(1), EXPIRES);
        let mut party = Self { world, invitation, seen: 0, asked: Vec::new(), joiners: Vec::new() };
        let peers = vec![party.invited()];
        party.world.set_peers(INVITER, peers);
        party
    }

    fn good() -> Self {
        Self::new(1, Conditions::GOOD, Options::default())
    }

    /// What the inviter has of the ticket's holder.
    fn invited(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.invitation.public_key,
            preshared_key: self.invitation.preshared_key.clone(),
            path: None,
            keepalive: None,
            allowed_ips: ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("a prefix")).to_vec(),
            invitation: true,
        }
    }

    /// Somebody comes with this secret and begins.
    fn comes_with(&mut self, secret: &TicketSecret) -> usize {
        let options = self.world.hosts[INVITER].options;
        let host = self.world.add_with_key(options, secret.identity());
        let inviter = PeerConfig {
            preshared_key: secret.preshared_key(),
            path: Some(self.world.hosts[INVITER].path()),
            invitation: true,
            ..self.world.config(host, INVITER)
        };
        self.world.set_peers(host, vec![inviter]);
        let number = u8::try_from(self.joiners.len()).expect("few joiners");
        let key = PrivateKey::from_bytes([100 + number; 32]);
        let (answers, unsaid, gave_up) = (Vec::new(), 0, false);
        self.joiners.push(Joiner { host, key, seen: 0, answers, unsaid, gave_up });
        self.begin(self.joiners.len() - 1);
        self.joiners.len() - 1
    }

    fn begin(&mut self, joiner: usize) {
        let (host, now) = (self.joiners[joiner].host, self.world.now);
        let inviter = self.world.hosts[INVITER].public_key;
        self.world.hosts[host].with_tunnel(now, |tunnel, ctx| {
            let peer = tunnel.peer(&inviter).expect("it knows the inviter");
            tunnel.initiate(ctx, peer);
        });
        self.world.drain(host);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.world.run_for(TURN);
            self.attend();
            for joiner in 0..self.joiners.len() {
                self.go_on(joiner);
            }
        }
    }

    /// What the inviter's engine does.
    fn attend(&mut self) {
        while let Some((_, event)) = self.world.hosts[INVITER].events.get(self.seen).cloned() {
            self.seen += 1;
            if let Event::Said { index, message: Message::Enrol(enrolment), .. } = event {
                let wall = self.world.hosts[INVITER].wall.at(self.world.now);
                let answer = self.invitation.answer(wall, &enrolment.public_key);
                if matches!(answer, Answer::Accepted(_)) {
                    self.invitation.joined = Some(enrolment.public_key);
                }
                self.asked.push((index, enrolment.public_key));
                self.say(INVITER, index, &Message::Enrolled(answer));
            }
        }
    }

    /// What a joiner's engine does: it asks with every session, until it has an answer.
    fn go_on(&mut self, joiner: usize) {
        let host = self.joiners[joiner].host;
        while let Some((_, event)) = self.world.hosts[host].events.get(self.joiners[joiner].seen) {
            let event = event.clone();
            let this = &mut self.joiners[joiner];
            this.seen += 1;
            match event {
                Event::Greeted { index, .. } => {
                    let (public_key, name) = (this.key.public_key(), Some("laptop".into()));
                    let enrol = Message::Enrol(Enrolment { public_key, name });
                    assert!(self.say(host, index, &enrol), "who has said hello can be asked");
                }
                Event::Said { message: Message::Enrolled(answer), .. } => this.answers.push(answer),
                Event::Unsaid { .. } => {
                    this.unsaid += 1;
                    self.begin(joiner);
                }
                Event::GaveUp { .. } => this.gave_up = true,
                _ => {}
            }
        }
    }

    fn say(&mut self, host: usize, index: u32, message: &Message) -> bool {
        let now = self.world.now;
        let act = |tunnel: &mut proto::Tunnel, ctx: &mut proto::tunnel::Context<'_>| {
            tunnel.say(ctx, index, message)
        };
        let is_said = self.world.hosts[host].with_tunnel(now, act);
        self.world.drain(host);
        is_said
    }

    /// Starts the joiner's own tunnel, and lets it and the inviter talk.
    fn assert_is_peer(&mut self, joiner: usize) {
        let key = self.joiners[joiner].key.clone();
        let options = self.world.hosts[INVITER].options;
        let host = self.world.add_with_key(options, key);
        let keys = (self.world.hosts[INVITER].public_key, self.world.hosts[host].public_key);
        let of_inviter = Invitation::peer_key(&self.invitation.preshared_key, &keys.0, &keys.1);
        let of_joiner = Invitation::peer_key(&secret(1).preshared_key(), &keys.0, &keys.1);
        let peer = PeerConfig { preshared_key: of_inviter, ..self.world.config(INVITER, host) };
        let invited = self.invited();
        self.world.set_peers(INVITER, vec![invited, peer]);
        let inviter = PeerConfig { preshared_key: of_joiner, ..self.world.config(host, INVITER) };
        self.world.set_peers(host, vec![inviter]);
        self.world.exchange(host, INVITER);
        self.world.exchange(INVITER, host);
    }

    fn drops(&self, host: usize, reason: DropReason) -> u64 {
        self.world.hosts[host].tunnel.drops()[reason.index()]
    }

    /// The receiver indices of the keypairs with which `host` was greeted.
    fn greeted(&self, host: usize) -> Vec<u32> {
        let events = self.world.hosts[host].events.iter();
        events
            .filter_map(|(_, event)| match event {
                Event::Greeted { index, .. } => Some(*index),
                _ => None,
            })
            .collect()
    }
}

fn secret(octet: u8) -> TicketSecret {
    TicketSecret::from_bytes([octet; 32])
}

#[test]
fn who_has_the_ticket_becomes_a_peer() {
    let mut party = Party::good();
    let joiner = party.comes_with(&secret(1));
    party.run_for(millis(200));
    assert_eq!(party.joiners[joiner].answers, [Answer::Accepted(None)]);
    assert_eq!(party.invitation.joined, Some(party.joiners[joiner].key.public_key()));
    party.assert_is_peer(joiner);
    // Nobody has anything more to say in the session of the ticket.
    let now = party.world.now;
    party.run_for(secs(100));
    assert_eq!(party.world.sent_since(party.joiners[joiner].host, now).len(), 0);
    assert_eq!(party.joiners[joiner].unsaid, 0);
}

#[test]
fn who_has_another_secret_hears_nothing() {
    let mut party = Party::good();
    let joiner = party.comes_with(&secret(2));
    party.run_for(secs(120));
    assert!(party.joiners[joiner].gave_up);
    assert_eq!(party.world.sent_since(INVITER, secs(0)).len(), 0);
    assert!(party.drops(INVITER, DropReason::UnknownPeer) >= 17);
    assert_eq!(party.asked, []);
}

#[test]
fn who_has_the_identity_but_not_the_preshared_key_enrols_nobody() {
    let mut party = Party::good();
    let joiner = party.comes_with(&secret(1));
    let host = party.joiners[joiner].host;
    let config = party.world.config(host, INVITER);
    party.world.set_peers(host, vec![PeerConfig { invitation: true, ..config }]);
    party.run_for(secs(60));
    assert_eq!((party.greeted(host), party.greeted(INVITER)), (vec![], vec![]));
    assert_eq!(party.asked, []);
}

#[test]
fn the_ticket_makes_one_peer_of_two_that_come_together() {
    let mut party = Party::good();
    for _ in 0..2 {
        party.comes_with(&secret(1));
    }
    party.run_for(secs(60));
    let answers: Vec<_> = party.joiners.iter().map(|joiner| joiner.answers.clone()).collect();
    let accepted = answers.iter().filter(|answers| answers[..] == [Answer::Accepted(None)]).count();
    let used = answers.iter().filter(|answers| answers[..] == [Answer::Used]).count();
    assert_eq!((accepted, used), (1, 1), "{answers:?}");
    let winner = answers.iter().position(|answers| answers[0] != Answer::Used).unwrap();
    assert_eq!(party.invitation.joined, Some(party.joiners[winner].key.public_key()));
    party.assert_is_peer(winner);
}

#[test]
fn an_answer_goes_to_who_asked() {
    let mut party = Party::good();
    let first = party.comes_with(&secret(1));
    // The first one has asked, and before the inviter's engine answers, somebody else comes.
    while !party.world.hosts[INVITER].events.iter().any(|(_, e)| matches!(e, Event::Said { .. })) {
        party.world.run_for(TURN);
        party.go_on(first);
    }
    let second = party.comes_with(&secret(1));
    party.world.run_for(millis(100));
    party.run_for(secs(10));
    assert_eq!(party.joiners[first].answers, [Answer::Accepted(None)]);
    assert_eq!(party.joiners[second].answers, [Answer::Used]);
}

#[test]
fn used_and_expired_tickets_are_told_apart() {
    let mut party = Party::good();
    party.invitation.joined = Some(PublicKey::from([9; 32]));
    let joiner = party.comes_with(&secret(1));
    party.run_for(secs(1));
    assert_eq!(party.joiners[joiner].answers, [Answer::Used]);
    let mut party = Party::good();
    party.invitation.expires = 1_700_000_000;
    let joiner = party.comes_with(&secret(1));
    party.run_for(secs(1));
    assert_eq!(party.joiners[joiner].answers, [Answer::Expired]);
}

#[test]
fn who_was_accepted_and_did_not_hear_it_is_accepted_again() {
    let mut party = Party::good();
    let joiner = party.comes_with(&secret(1));
    let host = party.joiners[joiner].host;
    while party.asked.is_empty() {
        party.run_for(TURN);
        // The answer, and every repetition, gets lost.
        if party.world.hosts[INVITER].events.iter().any(|(_, e)| matches!(e, Event::Greeted { .. }))
        {
            party
                .world
                .network
                .cut(party.world.hosts[INVITER].address(), party.world.hosts[host].address());
        }
    }
    party.run_for(secs(30));
    assert_eq!(party.joiners[joiner].answers, []);
    let is_unsaid = |(_, event): &(Duration, Event)| matches!(event, Event::Unsaid { .. });
    assert!(party.world.hosts[INVITER].events.iter().any(is_unsaid), "the inviter knows it");
    assert!(party.joiners[joiner].unsaid > 0, "and so does the joiner");
    party.world.network.mend();
    party.run_for(secs(30));
    assert_eq!(party.joiners[joiner].answers[0], Answer::Accepted(None));
    party.assert_is_peer(joiner);
}

#[test]
fn a_lost_confirmation_is_made_up_for() {
    let mut party = Party::good();
    let joiner = party.comes_with(&secret(1));
    let host = party.joiners[joiner].host;
    // The initiation and the response pass, and the keepalive does not.
    party.run_for(millis(15));
    party
        .world
        .network
        .cut(party.world.hosts[host].address(), party.world.hosts[INVITER].address());
    party.run_for(millis(100));
    party.world.network.mend();
    assert_eq!(party.world.hosts[host].tunnel.counters().established, 1);
    party.run_for(secs(4));
    assert_eq!(party.asked, []);
    party.run_for(secs(5));
    assert_eq!(party.joiners[joiner].answers, [Answer::Accepted(None)]);
}

#[test]
fn an_inviter_that_never_says_hello_is_given_up() {
    let mut party = Party::good();
    let mut world = World::new(2, Conditions::GOOD);
    world.add(Options::stock());
    party.world = world;
    let invited = PeerConfig { invitation: false, ..party.invited() };
    party.world.set_peers(INVITER, vec![invited]);
    let host = party.world.add_with_key(Options::default(), secret(1).identity());
    let config = PeerConfig {
        preshared_key: secret(1).preshared_key(),
        invitation: true,
        ..party.world.config(host, INVITER)
    };
    party.world.set_peers(host, vec![config]);
    let now = party.world.now;
    party.world.hosts[host].with_tunnel(now, |tunnel, ctx| {
        tunnel.initiate(ctx, tunnel.statuses(ctx.now)[0].peer);
    });
    party.world.run_for(secs(400));
    let gave_up = |(_, event): &&(Duration, Event)| matches!(event, Event::GaveUp { .. });
    let at: Vec<_> =
        party.world.hosts[host].events.iter().filter(gave_up).map(|(at, _)| *at).collect();
    assert_eq!(at.len(), 1);
    assert!((secs(85)..secs(110)).contains(&at[0]), "{at:?}");
    assert!(party.world.times(host, at[0], Kind::Initiation).is_empty());
}

#[test]
fn a_recorded_join_is_worth_nothing() {
    let mut party = Party::good();
    let joiner = party.comes_with(&secret(1));
    let host = party.joiners[joiner].host;
    party.run_for(secs(1));
    let recorded: Vec<_> =
        party.world.sent_since(host, secs(0)).iter().map(|heard| heard.datagram.clone()).collect();
    assert!(recorded.len() >= 4);
    let from = party.world.hosts[host].address();
    let before = (party.world.times(INVITER, secs(0), Kind::Response).len(), party.asked.len());
    let replay = |party: &mut Party| {
        for datagram in &recorded {
            party.world.inject(INVITER, from, datagram);
            party.run_for(TURN);
        }
    };
    replay(&mut party);
    let after = (party.world.times(INVITER, secs(0), Kind::Response).len(), party.asked.len());
    assert_eq!((after, before), (before, (1, 1)));
    // An inviter that was started again answers the initiation once more, and that is all.
    let now = party.world.now;
    party.world.hosts[INVITER].restart(now);
    let invited = party.invited();
    party.world.set_peers(INVITER, vec![invited]);
    replay(&mut party);
    assert_eq!(party.asked.len(), 1);
    assert_eq!(party.world.hosts[INVITER].tunnel.counters().established, 0);
}

#[test]
fn only_invitations_enrol() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.exchange(1, 0);
    let response = world.tap.heard.iter().find(|heard| heard.kind == Kind::Response).unwrap();
    let index = u32::from_le_bytes(response.datagram[4..8].try_into().unwrap());
    let message = Message::Enrol(Enrolment { public_key: world.hosts[0].public_key, name: None });
    let now = world.now;
    let is_said = world.hosts[1].with_tunnel(now, |tunnel, ctx| tunnel.say(ctx, index, &message));
    assert!(!is_said, "a peer is not asked");
    let (kind, body) = message.emit().unwrap();
    let mut frame = Vec::new();
    Control { kind, number: 100, acknowledged: 0, body: &body }.emit(&mut frame);
    world.hosts[1].with_tunnel(now, |tunnel, ctx| tunnel.handle_control(ctx, index, &frame));
    world.drain(1);
    assert_eq!(world.hosts[1].tunnel.drops()[DropReason::FrameNotAgreed.index()], 1);
    assert!(!world.hosts[1].events.iter().any(|(_, event)| matches!(event, Event::Said { .. })));
    world.exchange(0, 1);
}

#[test]
fn a_holder_is_heard_a_few_times_only() {
    let mut party = Party::good();
    party.comes_with(&secret(1));
    party.run_for(millis(200));
    let index = party.asked[0].0;
    let public_key = PublicKey::from([8; 32]);
    let (_, body) = Message::Enrol(Enrolment { public_key, name: None }).emit().unwrap();
    for number in 100..200 {
        let mut frame = Vec::new();
        let kind = if number < 103 { ControlKind::Enrol } else { ControlKind::Enrolled };
        let body = if number < 103 { &body[..] } else { &[1, 1, 0, 0] };
        Control { kind, number, acknowledged: 0, body }.emit(&mut frame);
        let now = party.world.now;
        let act = |tunnel: &mut proto::Tunnel, ctx: &mut proto::tunnel::Context<'_>| {
            tunnel.handle_control(ctx, index, &frame);
        };
        party.world.hosts[INVITER].with_tunnel(now, act);
        party.world.drain(INVITER);
    }
    let said = |(_, event): &&(Duration, Event)| matches!(event, Event::Said { .. });
    let heard = party.world.hosts[INVITER].events.iter().filter(said).count();
    assert_eq!(heard, MESSAGES_MAX as usize);
    let rest = 101 - u64::from(MESSAGES_MAX);
    assert_eq!(party.drops(INVITER, DropReason::FrameNotAgreed), rest);
}

/// Seals what the device would carry with the keypair of the ticket's session, and lets it arrive at the inviter.
fn carry(content: Content, plaintext: &[u8]) -> Party {
    let options = Options { content, ..Options::default() };
    let mut party = Party::new(1, Conditions::GOOD, options);
    let joiner = party.comes_with(&secret(1));
    let host = party.joiners[joiner].host;
    party.run_for(millis(200));
    let index = party.greeted(host)[0];
    let directory = party.world.hosts[host].tunnel.directory().load_full();
    let keypairs = directory.keypairs.get(index).expect("it was greeted with it");
    let keypair = keypairs.keypair();
    let mut datagram = vec![0; plaintext.len() + wire::message::DATA_OVERHEAD];
    let counter = keypair.reserve(1).expect("it has sent little");
    keypair.seal(counter, plaintext, 0, &mut datagram).expect("there is room");
    let from = party.world.hosts[host].address();
    party.world.inject(INVITER, from, &datagram);
    party
}

#[test]
fn an_invitation_carries_no_packets() {
    let packet = [
        0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, // from 10.0.0.2
    ];
    let mut party = carry(Content::Packet, &packet);
    assert_eq!(party.world.hosts[INVITER].dropped, [DropReason::SourceNotAllowed]);
    // Nor back, though its configuration says that every address belongs to it.
    party.world.send(INVITER, 1);
    assert_eq!(party.world.hosts[INVITER].dropped[1..], [DropReason::NoPeer]);
}

#[test]
fn an_invitation_carries_no_frames() {
    let mut frame = vec![wire::frame::ETHERNET];
    frame.extend([0xff; 60]);
    let party = carry(Content::Frame, &frame);
    assert_eq!(party.world.hosts[INVITER].dropped, [DropReason::SourceNotAllowed]);
}

#[test]
fn packets_never_wait_for_an_invitation() {
    let mut party = carry(Content::Frame, &[]);
    let peer = party.world.hosts[INVITER].tunnel.peer(&party.invitation.public_key).unwrap();
    let (now, dropped) = (party.world.now, party.drops(INVITER, DropReason::NoPeer));
    party.world.hosts[INVITER]
        .with_tunnel(now, |tunnel, ctx| tunnel.handle_outgoing(ctx, peer, &[0xff; 60]));
    assert_eq!(party.drops(INVITER, DropReason::NoPeer), dropped + 1);
}

/// Whatever the network does, whoever has the ticket and comes back for an answer gets one, and one key is accepted.
#[test]
fn bad_networks_delay_joining_and_no_more() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let conditions = Conditions {
            loss: random.within(0..300),
            duplication: random.within(0..100),
            delay: random.duration(millis(1)..millis(150)),
            jitter: random.duration(millis(0)..millis(300)),
        };
        let mut party = Party::new(seed, conditions, Options::default());
        let joiners = 1 + random.within(0..2);
        for _ in 0..joiners {
            party.comes_with(&secret(1));
        }
        for _ in 0..20 {
            party.run_for(secs(15));
            let waiting = |party: &Party, at: usize| party.joiners[at].answers.is_empty();
            let waiting: Vec<_> =
                (0..party.joiners.len()).filter(|&at| waiting(&party, at)).collect();
            if waiting.is_empty() {
                break;
            }
            for joiner in waiting {
                party.begin(joiner);
            }
        }
        let answers: Vec<_> = party.joiners.iter().map(|joiner| &joiner.answers).collect();
        let accepted = |answers: &&&Vec<Answer>| answers.contains(&Answer::Accepted(None));
        assert!(answers.iter().all(|answers| !answers.is_empty()), "seed {seed}: {answers:?}");
        assert_eq!(answers.iter().filter(accepted).count(), 1, "seed {seed}: {answers:?}");
        let winner = answers.iter().position(|answers| accepted(&answers)).unwrap();
        party.world.network.set_conditions(Conditions::GOOD);
        party.world.run_for(secs(30));
        party.assert_is_peer(winner);
    }
}
