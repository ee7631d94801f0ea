//! Why packets do not pass: the host as it is, held against what a tunnel needs.
//!
//! # Theory of operation
//!
//! Nothing is changed and no packet is sent, save those that look up the name of an endpoint. The work
//! has two halves. [`observe`] reads: links, addresses and routes by rtnetlink, settings below
//! `/proc/sys`, base chains of nf_tables, processes and sockets below `/proc`. What it finds is one
//! value, [`Observed`], which needs no kernel. [`examine`] thinks: it is a list of *checks*, each a
//! pure function of what was observed, and each yields *findings* or a sentence about what is right.
//!
//! A finding *stops* packets (none of some kind pass), *degrades* (fewer pass, or more slowly), or is a
//! *note* (worth knowing). It says what was read and what a person would do about it.
//!
//! Without a configuration only the host in general is examined, so that hardly anything stops. With
//! one, what `adit up` does by itself (addresses, routes, settings, rules) is asked for only while the
//! tunnel is running: before that it is not missing.
//!
//! # Limits
//!
//! The answer is about the network namespace of the calling thread. Without privilege other users'
//! processes and the packet filter cannot be seen; the findings say so. Rules that drop packets in
//! chains whose policy is to accept are not understood, nor is what happens beyond this host.

mod device;
mod filter;
mod gather;
mod host;
mod observed;
mod routing;
mod sockets;
#[cfg(test)]
mod tests;
mod underlay;

use std::fmt;

use ::device::Mode;
use proto::mtu::Content;

pub use self::gather::{DoctorError, find, observe};
pub use self::observed::{
    Chain, Filter, Listener, Node, Observed, ObservedEndpoint, ObservedTunnel, Resolver,
};

/// The most findings of one check; more of the same kind help nobody.
pub const MAX_FINDINGS: usize = 16;

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// None of some kind of packets pass.
    Stops,
    /// Fewer packets pass, or more slowly.
    Degrades,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stops => "stops",
            Self::Degrades => "degrades",
            Self::Note => "note",
        })
    }
}

/// Something that keeps packets from passing, or is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, such as `device adit0`.
    pub subject: String,
    /// What is wrong and what comes of it, in one sentence without full stop.
    pub says: String,
    /// What was read.
    pub evidence: String,
    /// The command or the setting that mends it.
    pub mend: String,
}

/// One question to the host and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is right if nothing was found.
    pub fine: String,
    /// What was found, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

impl Check {
    fn new(fine: impl Into<String>, findings: impl IntoIterator<Item = Finding>) -> Self {
        let findings = findings.into_iter().take(MAX_FINDINGS).collect();
        Self { fine: fine.into(), findings }
    }
}

/// Makes all checks that apply to what was observed.
pub fn examine(observed: &Observed) -> Vec<Check> {
    let mut checks = host::checks(observed);
    if let Some(tunnel) = &observed.tunnel {
        checks.extend(device::checks(observed, tunnel));
        checks.extend(underlay::checks(observed, tunnel));
        checks.extend(routing::checks(observed, tunnel));
    }
    checks.extend(filter::checks(observed));
    checks
}

/// All that is found, the worst first.
pub fn diagnose(observed: &Observed) -> Vec<Finding> {
    let mut findings: Vec<_> =
        examine(observed).into_iter().flat_map(|check| check.findings).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// "IPv4" or "IPv6".
fn family(is_v4: bool) -> &'static str {
    if is_v4 { "IPv4" } else { "IPv6" }
}

fn content(mode: Mode) -> Content {
    match mode {
        Mode::Tun => Content::Packet,
        Mode::Tap => Content::Frame,
    }
}
