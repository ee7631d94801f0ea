//! Datagrams on their way.
//!
//! # Theory of operation
//!
//! A datagram gets its fate when it is sent: lost, or delivered after a delay, or twice. Delays differ, so datagrams
//! overtake each other. What is on its way lies in a queue by time of arrival; of two that arrive at the same
//! time the one sent first comes first.
//!
//! A cut line loses everything that is sent into it; what is on its way already still arrives. Cuts have a
//! direction, as those of bad firewalls do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::random::Random;

/// The most datagrams on their way; more are lost, as in any router.
pub const IN_FLIGHT_MAX: usize = 100_000;

/// What a network does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Of 1000 datagrams so many are lost.
    pub loss: u64,
    /// Of 1000 datagrams so many come twice.
    pub duplication: u64,
    /// The least time on the way.
    pub delay: Duration,
    /// Up to so much more time on the way; datagrams closer together may be reordered.
    pub jitter: Duration,
}

impl Conditions {
    /// Everything arrives once, in order, 10 ms later.
    pub const GOOD: Self =
        Self { loss: 0, duplication: 0, delay: Duration::from_millis(10), jitter: Duration::ZERO };
}

/// A datagram that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<A, T> {
    /// Who sent it.
    pub from: A,
    /// Whom it was sent to.
    pub to: A,
    /// The datagram.
    pub datagram: T,
}

/// Datagrams on their way between addresses of type `A`.
#[derive(Debug)]
pub struct Network<A, T> {
    random: Random,
    conditions: Conditions,
    cuts: BTreeSet<(A, A)>,
    in_flight: BTreeMap<(Duration, u64), Delivery<A, T>>,
    sent: u64,
}

impl<A: Copy + Ord, T: Clone> Network<A, T> {
    /// A network with nothing on its way.
    pub fn new(random: Random, conditions: Conditions) -> Self {
        Self { random, conditions, cuts: BTreeSet::new(), in_flight: BTreeMap::new(), sent: 0 }
    }

    /// From now on datagrams fare like this.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Nothing sent from one address to the other arrives, until it is mended.
    pub fn cut(&mut self, from: A, to: A) {
        self.cuts.insert((from, to));
    }

    /// Ends all cuts.
    pub fn mend(&mut self) {
        self.cuts.clear();
    }

    /// Sends a datagram.
    pub fn send(&mut self, now: Duration, from: A, to: A, datagram: T) {
        if self.cuts.contains(&(from, to)) || self.random.chance(self.conditions.loss) {
            return;
        }
        let delivery = Delivery { from, to, datagram };
        if self.random.chance(self.conditions.duplication) {
            self.launch(now, delivery.clone());
        }
        self.launch(now, delivery);
    }

    /// When the next datagram arrives.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.in_flight.first_key_value().map(|(&(at, _), _)| at)
    }

    /// The next datagram that has arrived by `now`.
    pub fn poll_delivery(&mut self, now: Duration) -> Option<Delivery<A, T>> {
        let first = self.in_flight.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    fn launch(&mut self, now: Duration, delivery: Delivery<A, T>) {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return;
        }
        let Conditions { delay, jitter, .. } = self.conditions;
        let arrival = now + delay + self.random.duration(Duration::ZERO..jitter);
        self.in_flight.insert((arrival, self.sent), delivery);
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLIS: Duration = Duration::from_millis(1);

    fn network(conditions: Conditions) -> Network<u8, u32> {
        Network::new(Random::new(7), conditions)
    }

    /// The datagrams that arrive until the end.
    fn drain(network: &mut Network<u8, u32>) -> Vec<u32> {
        std::iter::from_fn(|| network.poll_delivery(Duration::MAX))
            .map(|delivery| delivery.datagram)
            .collect()
    }

    #[test]
    fn a_good_network_is_only_slow() {
        let mut network = network(Conditions::GOOD);
        network.send(MILLIS, 1, 2, 5);
        assert_eq!(network.poll_timeout(), Some(11 * MILLIS));
        assert_eq!(network.poll_delivery(10 * MILLIS), None);
        let delivery = Delivery { from: 1, to: 2, datagram: 5 };
        assert_eq!(network.poll_delivery(11 * MILLIS), Some(delivery));
        assert_eq!(network.poll_timeout(), None);
    }

    #[test]
    fn a_cut_has_a_direction() {
        let mut network = network(Conditions::GOOD);
        network.cut(1, 2);
        network.send(MILLIS, 1, 2, 5);
        network.send(MILLIS, 2, 1, 6);
        network.mend();
        network.send(MILLIS, 1, 2, 7);
        assert_eq!(drain(&mut network), [6, 7]);
    }

    #[test]
    fn a_bad_network_loses_repeats_and_reorders() {
        let conditions =
            Conditions { loss: 200, duplication: 200, delay: MILLIS, jitter: 50 * MILLIS };
        let mut network = network(conditions);
        for (number, now) in (0..1000).zip(1..) {
            network.send(MILLIS * now, 1, 2, number);
        }
        let arrived = drain(&mut network);
        let distinct: BTreeSet<_> = arrived.iter().copied().collect();
        assert!((750..850).contains(&distinct.len()), "{}", distinct.len());
        assert!((100..250).contains(&(arrived.len() - distinct.len())));
        assert!(!arrived.is_sorted());
    }

    proptest! {
        #[test]
        fn the_same_seed_is_the_same_run(seed: u64, loss in 0_u64..1000) {
            let run = || {
                let conditions = Conditions { loss, jitter: MILLIS, ..Conditions::GOOD };
                let mut network = Network::new(Random::new(seed), conditions);
                (0..50).for_each(|number| network.send(MILLIS, 1, 2, number));
                drain(&mut network)
            };
            prop_assert_eq!(run(), run());
        }
    }
}
