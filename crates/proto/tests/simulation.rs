//! Runs of two to five hosts through everything that networks, clocks and people do to them.
//!
//! Each run comes of a seed: who is stock, how bad the network is, and a sequence of episodes. After each
//! episode the network becomes good again, and everybody must be able to talk to everybody within
//! [`RECOVERY`]. In the end nobody has anything to say, and there must be silence. The world checks at all times
//! what was on the wire and what arrived.
//!
//! `ADIT_SEEDS` is how many runs there are, `ADIT_SEED` the first one: a run that fails says its seed.

mod world;

use std::time::Duration;

use proto::tunnel::PeerConfig;
use proto::{DropReason, PresharedKey};
use simnet::{Conditions, Random};
use world::{Options, World, millis, secs};

/// Runs unless said otherwise.
const SEEDS: u64 = 1000;

/// An answer is missed after 15 s; the initiation after that may be 5 s early; it or the response may cross another one,
/// and is repeated after 5 s; with a jitter each.
const RECOVERY: Duration = secs(26);

/// When the last keepalive, hello and handshake of a run must be over.
const SETTLED: Duration = secs(130);

#[test]
fn whatever_happens_everybody_can_talk_again() {
    let number = |name, default| {
        std::env::var(name)
            .map_or(default, |text| text.parse().expect("a number in the environment"))
    };
    let first = number("ADIT_SEED", 0);
    for seed in first..first + number("ADIT_SEEDS", SEEDS) {
        let _said = SaysSeed(seed);
        Run::new(seed).run();
    }
}

/// Says the seed of a run that fails.
struct SaysSeed(u64);

impl Drop for SaysSeed {
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the run that failed is ADIT_SEED={} ADIT_SEEDS=1", self.0);
        }
    }
}

struct Run {
    world: World,
    random: Random,
    conditions: Conditions,
    /// Whose clocks have gone back: after a restart nobody would believe them.
    is_late: Vec<bool>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let conditions = Conditions {
            loss: random.within(0..250),
            duplication: random.within(0..100),
            delay: random.duration(millis(1)..millis(150)),
            jitter: random.duration(millis(0)..millis(300)),
        };
        let mut world = World::new(seed, conditions);
        let hosts = 2 + random.within(0..4).pow(2) / 3;
        for _ in 0..hosts {
            world.add(options(&mut random));
        }
        world.connect_all();
        let is_late = world.hosts.iter().map(|_| false).collect();
        Self { world, random, conditions, is_late }
    }

    fn run(mut self) {
        self.recover();
        for _ in 0..4 + self.random.within(0..8) {
            self.world.network.set_conditions(self.conditions);
            self.episode();
            self.recover();
            self.check_memory();
        }
        self.check_silence();
    }

    fn episode(&mut self) {
        let host = self.any_host();
        match self.random.within(0..10) {
            0 | 1 => self.talk(secs(60)),
            2 => self.talk(secs(400)),
            3 => self.silence(),
            4 | 5 => self.outage(),
            6 => {
                self.world.roam(host);
                // Nobody knows where it is until it says something.
                self.recover_pairs(|from, _| from == host);
            }
            7 => self.jump(host),
            8 => self.restart(host),
            _ => self.change(host),
        }
    }

    fn any_host(&mut self) -> usize {
        below(&mut self.random, self.world.hosts.len())
    }

    /// Another host than `host`.
    fn any_other(&mut self, host: usize) -> usize {
        let step = 1 + below(&mut self.random, self.world.hosts.len() - 1);
        (host + step) % self.world.hosts.len()
    }

    /// Random packets between random hosts.
    fn talk(&mut self, at_most: Duration) {
        let end = self.world.now + self.random.duration(secs(1)..at_most);
        let pause = self.random.duration(millis(50)..secs(5));
        while self.world.now < end {
            let from = self.any_host();
            let to = self.any_other(from);
            self.world.send(from, to);
            let pause = self.random.duration(millis(1)..pause);
            self.world.run_for(pause);
        }
    }

    fn silence(&mut self) {
        let time = self.random.duration(secs(1)..secs(1200));
        self.world.run_for(time);
    }

    /// Some lines are cut, in one direction or in both.
    fn outage(&mut self) {
        for _ in 0..1 + self.random.within(0..4) {
            let from = self.any_host();
            let to = self.any_other(from);
            let (from, to) = (self.world.hosts[from].address(), self.world.hosts[to].address());
            self.world.network.cut(from, to);
            if self.random.chance(500) {
                self.world.network.cut(to, from);
            }
        }
        self.talk(secs(300));
        self.world.network.mend();
    }

    fn jump(&mut self, host: usize) {
        let now = self.world.now;
        let wall = self.random.duration(secs(0)..secs(4_000_000_000));
        let clock = &mut self.world.hosts[host].wall;
        self.is_late[host] |= wall < clock.at(now);
        clock.jump(now, wall);
        self.talk(secs(300));
    }

    fn restart(&mut self, host: usize) {
        if !self.is_late[host] {
            // What it sent last is over before it comes back, as far as its clock shows others.
            self.world.run_for(millis(50));
            let now = self.world.now;
            self.world.hosts[host].restart(now);
            self.world.connect(host);
        }
    }

    /// Somebody is under load for a while, or has a peer with another key in between.
    fn change(&mut self, host: usize) {
        if self.random.chance(500) {
            self.world.hosts[host].under_load = true;
            self.talk(secs(200));
            self.world.hosts[host].under_load = false;
            return;
        }
        let other = self.any_other(host);
        let secret = PresharedKey::from_bytes([9; 32]);
        let config = PeerConfig { preshared_key: secret, ..self.world.config(host, other) };
        self.world.set_peers(host, vec![config]);
        self.talk(secs(30));
        self.world.connect(host);
    }

    /// Everybody must hear everybody, all talking at once or each pair in one direction first.
    fn recover(&mut self) {
        if self.random.chance(500) {
            let salt = self.random.within(0..2);
            self.recover_pairs(|from, to| (from < to) == ((from + to) as u64 % 2 == salt));
        }
        self.recover_pairs(|_, _| true);
        self.world.tap.forget();
    }

    /// Within the time that is allowed, on a good network, packets of these pairs must arrive.
    fn recover_pairs(&mut self, is_meant: impl Fn(usize, usize) -> bool) {
        self.world.network.set_conditions(Conditions::GOOD);
        let (start, hosts) = (self.world.now, self.world.hosts.len());
        let pairs = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to)));
        let mut deaf: Vec<_> =
            pairs.filter(|&(from, to)| from != to && is_meant(from, to)).collect();
        while !deaf.is_empty() {
            let since = self.world.now - start;
            assert!(
                since < RECOVERY,
                "since {start:?} {deaf:?} hear nothing:\n{}",
                self.flow(&deaf)
            );
            let numbers: Vec<_> =
                deaf.iter().map(|&(from, to)| self.world.send(from, to)).collect();
            self.world.run_for(millis(500));
            let mut numbers = numbers.into_iter();
            deaf.retain(|&(_, to)| {
                let number = numbers.next().expect("a number for each");
                !self.world.has_arrived(to, number)
            });
        }
    }

    /// What was on the wire between the first of these pairs, a line for each datagram.
    fn flow(&self, pairs: &[(usize, usize)]) -> String {
        let &(one, other) = pairs.first().expect("somebody is deaf");
        let is_between = |heard: &&world::Heard| {
            [(one, Some(other)), (other, Some(one))].contains(&(heard.from, heard.to))
        };
        let line = |heard: &world::Heard| {
            format!("{:?} from {} {} {}\n", heard.at, heard.from, heard.kind, heard.datagram.len())
        };
        self.world.tap.heard.iter().filter(is_between).map(line).collect()
    }

    /// Nobody keeps more keys than three a peer.
    fn check_memory(&self) {
        let most = 3 * (self.world.hosts.len() - 1);
        for host in &self.world.hosts {
            let keypairs = &host.tunnel.directory().load().keypairs;
            let mine = self.world.tap.indices.iter().filter(|&&(from, _)| from == host.id);
            let live = mine.filter(|&&(_, index)| keypairs.get(index).is_some()).count();
            assert!(live <= most, "{live} keypairs");
            assert_eq!(host.tunnel.drops()[DropReason::SendFailed.index()], 0);
        }
    }

    /// Who has no reason to say anything says nothing.
    fn check_silence(&mut self) {
        self.world.run_for(SETTLED);
        self.world.tap.forget();
        self.world.run_for(secs(1000));
        let is_chatty = |host: usize| self.world.hosts[host].options.keepalive.is_some();
        for heard in &self.world.tap.heard {
            let has_reason = is_chatty(heard.from) || heard.to.is_none_or(is_chatty);
            assert!(has_reason, "{heard:?}");
        }
    }
}

fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.within(0..end as u64)).expect("it is less than a usize")
}

fn options(random: &mut Random) -> Options {
    let kind = if random.chance(300) { Options::stock() } else { Options::default() };
    let keepalive = random.chance(200).then(|| random.duration(secs(1)..secs(60)));
    Options { keepalive, ..kind }
}
