//! The hosts and the wire between them, and how steps happen to both.

mod arrivals;
mod checks;
mod letters;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use proto::cookie::Checker;
use proto::peer::PeerIndex;
use proto::tunnel::PeerConfig;
use proto::{PresharedKey, Tunnel};

use super::host::{Host, Outgoing, allowed_ips, path};
use super::model::{At, Model, Side, Told};
use super::packet;
use super::steps::{Cast, Step};

/// More deliveries or timers than any step needs.
const TURNS_MAX: usize = 20_000;

const SECOND: Duration = Duration::from_secs(1);

/// Where nobody is.
const NOWHERE: ([u8; 4], u16) = ([203, 0, 113, 9], 9);

/// Who takes part, and what is between them.
pub(crate) struct World {
    now: At,
    pub(crate) hosts: Vec<Host>,
    model: Model,
    /// Who can tell for whom a handshake message is.
    checkers: Vec<Checker>,
    wire: VecDeque<Flight>,
    delivered: BTreeSet<usize>,
    packets: u64,
}

/// A letter on the wire.
#[derive(Clone, Copy)]
struct Flight {
    letter: usize,
    from: SocketAddr,
    to: SocketAddr,
}

impl World {
    pub(crate) fn new(cast: &Cast) -> Self {
        let hosts: Vec<_> =
            (0..2 + usize::from(cast.are_three)).map(|id| Host::new(id, cast)).collect();
        let is_set = |bits: u8, host: &Host| bits >> host.id & 1 == 1;
        let side = |host| Side::new(is_set(cast.extensions, host), is_set(cast.aes, host));
        let mut world = Self {
            now: SECOND,
            model: Model { sides: hosts.iter().map(side).collect(), letters: Vec::new() },
            checkers: hosts.iter().map(|host| Checker::new(&host.public_key)).collect(),
            hosts,
            wire: VecDeque::new(),
            delivered: BTreeSet::new(),
            packets: 0,
        };
        for host in 0..world.hosts.len() {
            let knows_paths = cast.knows_paths >> host & 1 == 1;
            let told = |other| Told {
                other,
                psk: cast.psk,
                keepalive: keepalive(cast.keepalive),
                path: knows_paths.then(|| world.hosts[other].address()),
                prefixes: packet::prefixes(other, 0),
            };
            let told: Vec<_> = world.others(host).map(told).collect();
            world.set_peers(host, &told);
        }
        world
    }

    fn others(&self, host: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.hosts.len()).filter(move |&other| other != host)
    }

    /// Lets a step happen.
    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Send { from, to, source, destination, len, count } => {
                let ends =
                    [packet::any_address(from, source), packet::any_address(to, destination)];
                (0..count).for_each(|_| self.send(from, ends, len, len));
            }
            Step::SendLiar { from, to, said } => {
                let ends = [packet::address(from), packet::address(to)];
                self.send(from, ends, 61, 61_usize.saturating_add_signed(said.into()));
            }
            Step::SendRubbish { from, len } => self.send_packet(from, &vec![0x50; len]),
            Step::Astray { from, peer } => self.hand_astray(from, PeerIndex(peer)),
            Step::Skip { from, to, count } => self.skip(from, to, count),
            Step::Deliver { which, stays } => {
                if let Some(flight) = self.pick(which, stays) {
                    self.fly(flight);
                }
            }
            Step::DeliverAll => self.deliver_all(),
            Step::Lose { which } => {
                self.pick(which, false);
            }
            Step::Corrupt { which, at, change } => self.corrupt(which, at, change),
            Step::Replay { letter, to, from } => self.replay(letter, to, from),
            Step::Rubbish { to, octets } => self.arrive(None, to, NOWHERE.into(), &octets),
            Step::Pass { time, arriving } => self.pass(time, arriving),
            Step::Sleep { time } => self.sleep(time),
            Step::SetWall { host, secs } => self.hosts[host].set_wall(Duration::from_secs(secs)),
            Step::Roam { host } => self.hosts[host].move_away(),
            Step::SetPath { host, other, is_true, tries } => {
                let to = if is_true { self.hosts[other].address() } else { NOWHERE.into() };
                self.set_path(host, other, to, tries);
            }
            Step::SetPeers { host, choices, psks } => self.reconfigure(host, choices, psks),
            Step::Initiate { host, other } => self.initiate(host, other),
            Step::Load { host } => self.hosts[host].under_load ^= true,
            Step::SetMtu { host, mtu } => self.hosts[host].set_mtu(mtu),
            Step::Look { host, peer } => {
                self.tell_looks(host);
                self.look(host, PeerIndex(peer));
            }
            Step::Control { host, index } => {
                self.model.sides[host].refused += 1;
                self.act(host, |tunnel, ctx| tunnel.handle_control(ctx, index, &[1; 12]));
            }
            Step::Recover => self.recover(),
        }
    }
}

/// What hosts are told to do and what happens to them.
impl World {
    fn set_peers(&mut self, host: usize, told: &[Told]) {
        let config = |told: &Told| PeerConfig {
            public_key: self.hosts[told.other].public_key,
            preshared_key: match told.psk {
                0 => PresharedKey::default(),
                psk => PresharedKey::from_bytes([psk; 32]),
            },
            path: told.path.map(path),
            keepalive: told.keepalive,
            allowed_ips: allowed_ips(&told.prefixes),
            invitation: false,
        };
        let peers = told.iter().map(config).collect();
        self.model.sides[host].set_peers(told);
        let now = self.now;
        let (places, output) =
            self.hosts[host].with_tunnel(now, |tunnel, ctx| tunnel.set_peers(ctx, peers));
        let others = told.iter().map(|told| told.other);
        self.model.sides[host].places = places.into_iter().zip(others).collect();
        self.settle(host, output, None);
    }

    /// A nibble says what belongs to a peer, or that it is none; two bits each how often it wants to be heard, and where
    /// it is.
    fn reconfigure(&mut self, host: usize, choices: [u8; 2], psks: u8) {
        let told = |(place, other): (usize, usize)| {
            let choice = choices[place];
            let link = self.model.sides[host].links.get(&other);
            let psk = link.map_or(0, |link| link.psk);
            let changes = psks >> (2 * place) & 3 == 3;
            (choice & 15 != 15).then(|| Told {
                other,
                psk: if changes { psk ^ 1 } else { psk },
                keepalive: keepalive(choice >> 4),
                path: match choice >> 6 {
                    2 => Some(self.hosts[other].address()),
                    3 => Some(NOWHERE.into()),
                    _ => None,
                },
                prefixes: packet::prefixes(other, choice & 15),
            })
        };
        let told: Vec<_> = self.others(host).enumerate().filter_map(told).collect();
        self.set_peers(host, &told);
    }

    fn set_path(&mut self, host: usize, other: usize, to: SocketAddr, tries: bool) {
        let side = &mut self.model.sides[host];
        let Some(place) = side.place(other) else { return };
        let (now, here) = (self.now, self.hosts[host].instant(self.now));
        let tunnel = &mut self.hosts[host].tunnel;
        let link = side.links.get_mut(&other).expect("a peer has a place");
        if tries && !tunnel.try_path(here, place, path(to)) {
            return;
        }
        if tries {
            let is_lost = link.last_received.is_none_or(|last| now - last >= 5 * SECOND);
            assert!(is_lost, "a peer that was just heard is looked for elsewhere");
        } else {
            tunnel.set_path(place, path(to));
        }
        link.path = Some(to);
    }

    fn initiate(&mut self, host: usize, other: usize) {
        let side = &mut self.model.sides[host];
        if let Some(place) = side.place(other) {
            side.links.get_mut(&other).expect("a peer has a place").want(self.now);
            self.act(host, |tunnel, ctx| tunnel.initiate(ctx, place));
        }
    }

    fn skip(&mut self, from: usize, to: usize, count: usize) {
        let side = &mut self.model.sides[from];
        let Some(place) = side.place(to) else { return };
        if let Some(local) = self.hosts[from].skip(self.now, place, count) {
            let link = side.links.get_mut(&to).expect("a peer has a place");
            let key = link.keys_mut().find(|key| key.local == local);
            key.expect("lanes seal with a key that is there").sent += count as u64;
        }
    }

    fn send(&mut self, from: usize, ends: [[u8; 4]; 2], len: usize, said: usize) {
        self.packets += 1;
        self.send_packet(from, &packet::make(ends, len, said, self.packets));
    }

    fn send_packet(&mut self, from: usize, packet: &[u8]) {
        let side = &mut self.model.sides[from];
        let owner = packet::ends(packet).and_then(|[_, to]| side.owner(to));
        let routed = |place: PeerIndex| Some(side.places[&place]);
        match self.hosts[from].send(self.now, packet) {
            Outgoing::Dropped => assert_eq!(owner, None, "it has an owner"),
            Outgoing::Sealed(transmit, place, must_look) => {
                assert_eq!(routed(place), owner, "it goes to its owner");
                self.post_data(from, transmit, Some(packet));
                self.tell(from, place, must_look);
            }
            Outgoing::Handed(place) => {
                assert_eq!(routed(place), owner, "it goes to its owner");
                side.hand(self.now, side.places[&place], packet);
                self.act(from, |tunnel, ctx| tunnel.handle_outgoing(ctx, place, packet));
            }
        }
    }

    fn hand_astray(&mut self, from: usize, place: PeerIndex) {
        let to = packet::any_address(from, 3);
        let packet = packet::make([packet::address(from), to], 61, 61, 0);
        let side = &mut self.model.sides[from];
        if side.owner(to).is_none_or(|owner| side.place(owner) != Some(place)) {
            side.no_peer += 1;
            self.act(from, |tunnel, ctx| tunnel.handle_outgoing(ctx, place, &packet));
        }
    }

    /// A lane tells the tunnel to look, at once or later.
    fn tell(&mut self, host: usize, place: PeerIndex, must_look: bool) {
        if must_look {
            self.hosts[host].pending.insert(place);
        }
        if !self.hosts[host].is_lazy {
            self.tell_looks(host);
        }
    }

    fn tell_looks(&mut self, host: usize) {
        while let Some(place) = self.hosts[host].pending.pop_first() {
            self.look(host, place);
        }
    }

    fn look(&mut self, host: usize, place: PeerIndex) {
        self.foresee_look(host, place);
        self.act(host, |tunnel, ctx| tunnel.handle_look(ctx, place));
    }

    fn foresee_look(&mut self, host: usize, place: PeerIndex) {
        let side = &mut self.model.sides[host];
        let other = side.places.get(&place);
        if let Some(link) = other.and_then(|other| side.links.get_mut(other)) {
            side.established += u64::from(link.look(self.now));
        }
    }

    fn pass(&mut self, time: Duration, arriving: bool) {
        let end = self.now + time;
        for _ in 0..TURNS_MAX {
            if arriving {
                self.deliver_all();
            }
            // However late, before time passes.
            (0..self.hosts.len()).for_each(|host| self.tell_looks(host));
            if arriving && !self.wire.is_empty() {
                continue;
            }
            let due = self.hosts.iter().filter_map(Host::poll_timeout).min();
            let Some(due) = due.filter(|&due| due <= end) else {
                self.now = end;
                return self.treat_timers();
            };
            self.now = self.now.max(due);
            self.treat_timers();
        }
        panic!("something is due over and over again");
    }

    fn sleep(&mut self, time: Duration) {
        (0..self.hosts.len()).for_each(|host| self.tell_looks(host));
        self.now += time;
        self.treat_timers();
    }

    fn treat_timers(&mut self) {
        let now = self.now;
        for host in 0..self.hosts.len() {
            if self.hosts[host].poll_timeout().is_some_and(|due| due <= now) {
                self.model.sides[host].before_timeout(now);
                self.act(host, Tunnel::handle_timeout);
            }
            let next = self.hosts[host].poll_timeout();
            assert!(next.is_none_or(|next| next > now), "what was due is due still");
            self.model.sides[host].after_timeout(now);
        }
    }
}

fn keepalive(choice: u8) -> Option<Duration> {
    match choice & 3 {
        2 => Some(10 * SECOND),
        3 => Some(25 * SECOND),
        _ => None,
    }
}
