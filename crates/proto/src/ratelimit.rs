//! How many handshake messages one source may send.
//!
//! # Theory of operation
//!
//! A token bucket per source, as Linux has it (`drivers/net/wireguard/ratelimiter.c`): a message costs
//! a token, a source gets [`PACKETS_PER_SECOND`] tokens a second and saves up to
//! [`PACKETS_BURSTABLE`]. A source is an IPv4 address or the upper half of an IPv6 address, since who has
//! one address of a /64 has them all; or all of a shared folder, since who may write there can be anybody there.
//!
//! Only sources that have shown a valid cookie come here, so they cannot be invented; a table of
//! [`MAX_SOURCES`] bounds what somebody with a large network can make us remember. A bucket that has
//! been full for long says nothing, so once a second all that nobody used for a second are thrown
//! away. While the table is full, new sources are refused.
//!
//! The table is ordered, not hashed: nobody can choose sources that collide, without a secret.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::path::RemoteAddr;
use crate::time::Instant;

/// Tokens that a source gets in a second.
pub const PACKETS_PER_SECOND: u64 = 20;

/// Tokens that a source can save.
pub const PACKETS_BURSTABLE: u64 = 5;

/// The most sources that are known at a time.
pub const MAX_SOURCES: usize = 8192;

/// What a packet costs, in nanoseconds of waiting.
const PACKET_COST: u64 = 1_000_000_000 / PACKETS_PER_SECOND;
const TOKENS_MAX: u64 = PACKET_COST * PACKETS_BURSTABLE;

/// Without a packet for so long, a source's bucket is full, and is forgotten.
const STALE: Duration = Duration::from_secs(1);

/// Buckets of all sources.
#[derive(Debug, Default)]
pub struct RateLimiter {
    buckets: BTreeMap<Source, Bucket>,
    collected: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
    /// Who writes into a folder can be anybody there.
    Folder,
}

#[derive(Debug)]
struct Bucket {
    /// In nanoseconds of waiting.
    tokens: u64,
    updated: Instant,
}

impl RateLimiter {
    /// A limiter that knows no source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether `source` may send another message; if so, that is counted.
    pub fn allow(&mut self, now: Instant, source: &RemoteAddr) -> bool {
        self.collect(now);
        let source = Source::from(source);
        let room = self.buckets.len() < MAX_SOURCES;
        match self.buckets.get_mut(&source) {
            Some(bucket) => bucket.take(now),
            None if room => {
                self.buckets.entry(source).or_insert_with(|| Bucket::full(now)).take(now)
            }
            None => false,
        }
    }

    fn collect(&mut self, now: Instant) {
        if now.since(self.collected) >= STALE {
            self.buckets.retain(|_, bucket| now.since(bucket.updated) < STALE);
            self.collected = now;
        }
    }
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { tokens: TOKENS_MAX, updated: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = now.as_nanos().saturating_sub(self.updated.as_nanos());
        self.tokens = self.tokens.saturating_add(gained).min(TOKENS_MAX);
        self.updated = now;
        let left = self.tokens.checked_sub(PACKET_COST);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

impl From<&RemoteAddr> for Source {
    fn from(remote: &RemoteAddr) -> Self {
        let Some(remote) = remote.socket_addr() else { return Self::Folder };
        match remote.ip().to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Side;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(1000) + Duration::from_millis(millis)
    }

    fn ip(text: &str) -> RemoteAddr {
        RemoteAddr::Udp((text.parse::<IpAddr>().unwrap(), 1).into())
    }

    /// How many of many messages at one time are allowed.
    fn burst(limiter: &mut RateLimiter, now: Instant, source: RemoteAddr) -> usize {
        (0..20).filter(|_| limiter.allow(now, &source)).count()
    }

    #[test]
    fn five_at_once_and_then_one_each_50_milliseconds() {
        let (mut limiter, source) = (RateLimiter::new(), ip("192.0.2.1"));
        assert_eq!(burst(&mut limiter, at(0), source), 5);
        assert_eq!(burst(&mut limiter, at(49), source), 0);
        assert_eq!(burst(&mut limiter, at(50), source), 1);
        assert_eq!(burst(&mut limiter, at(150), source), 2);
        assert_eq!(burst(&mut limiter, at(900), source), 5);
    }

    #[test]
    fn twenty_a_second_go_on_for_ever() {
        let (mut limiter, source) = (RateLimiter::new(), ip("192.0.2.1"));
        let allowed = (0..60_000).filter(|&millis| limiter.allow(at(millis), &source)).count();
        assert_eq!(allowed, 60 * 20 + 4);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let (mut limiter, source) = (RateLimiter::new(), ip("192.0.2.1"));
        assert_eq!(burst(&mut limiter, at(0), source), 5);
        assert_eq!(burst(&mut limiter, at(0), source), 0);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
        let mut limiter = RateLimiter::new();
        assert_eq!(burst(&mut limiter, at(0), ip("2001:db8::1")), 5);
        assert_eq!(burst(&mut limiter, at(0), ip("2001:db8::ffff:0:0:2")), 0);
        assert_eq!(burst(&mut limiter, at(0), ip("2001:db8:0:1::1")), 5);
        assert_eq!(burst(&mut limiter, at(0), ip("192.0.2.1")), 5);
        assert_eq!(burst(&mut limiter, at(0), ip("::ffff:192.0.2.1")), 0);
        assert_eq!(burst(&mut limiter, at(0), ip("192.0.2.2")), 5);
    }

    #[test]
    fn a_folder_is_one_source_whoever_writes_there() {
        let mut limiter = RateLimiter::new();
        let side = |label| RemoteAddr::Side(Side { label, run: label });
        assert_eq!(burst(&mut limiter, at(0), side(1)), 5);
        assert_eq!(burst(&mut limiter, at(0), side(2)), 0);
    }

    #[test]
    fn a_full_table_refuses_new_sources_until_old_ones_are_stale() {
        let mut limiter = RateLimiter::new();
        let source = |number: usize| {
            let number = u32::try_from(number).unwrap();
            RemoteAddr::from((number.to_be_bytes(), 1))
        };
        for number in 0..MAX_SOURCES {
            assert!(limiter.allow(at(0), &source(number)));
        }
        assert!(!limiter.allow(at(0), &source(MAX_SOURCES)));
        assert!(limiter.allow(at(999), &source(0)));
        assert!(!limiter.allow(at(999), &source(MAX_SOURCES)));
        assert!(limiter.allow(at(1000), &source(MAX_SOURCES)));
        assert_eq!(limiter.buckets.len(), 2);
    }
}
