//! What happens in a run, as the input says it.

use std::time::Duration;

/// The most steps of a run.
const STEPS_MAX: usize = 300;

/// Lengths of inner packets.
const LENGTHS: [usize; 8] = [36, 48, 61, 64, 65, 200, 577, 1400];

/// How much time passes, in milliseconds: around what the protocol waits for.
const MILLIS: [u64; 24] = [
    1, 19, 20, 21, 250, 334, 1_000, 4_999, 5_000, 5_334, 9_999, 10_000, 14_999, 15_400, 60_000,
    89_999, 95_400, 119_999, 120_000, 165_000, 179_999, 180_000, 540_000, 1_200_000,
];

/// What is left of the input.
pub(crate) struct Input<'a> {
    octets: &'a [u8],
    steps: usize,
}

/// Who takes part.
pub(crate) struct Cast {
    /// A bit for each host is set: it is adit, and no stock peer.
    pub(crate) extensions: u8,
    /// It seals with AES-256-GCM where it may.
    pub(crate) aes: u8,
    /// Its lanes tell of looks late.
    pub(crate) is_lazy: u8,
    /// It is told where its peers are.
    pub(crate) knows_paths: u8,
    /// There is a third.
    pub(crate) are_three: bool,
    /// What all share beside their keys; zero for nothing.
    pub(crate) psk: u8,
    /// How often all want to be heard, by a number.
    pub(crate) keepalive: u8,
}

/// One thing that happens.
#[derive(Debug)]
pub(crate) enum Step {
    /// The device of `from` has `count` packets. `source` and `destination` choose addresses.
    Send { from: usize, to: usize, source: usize, destination: usize, len: usize, count: usize },
    /// It has something that is no good packet, which says that it has `said` octets more or less.
    SendLiar { from: usize, to: usize, said: i8 },
    /// It has what has no header.
    SendRubbish { from: usize, len: usize },
    /// A lane hands over a packet for a peer that does not own its destination.
    Astray { from: usize, peer: u16 },
    /// A lane reserves counters that it does not use.
    Skip { from: usize, to: usize, count: usize },
    /// The datagram on the wire arrives; it stays there too if it is to come twice.
    Deliver { which: usize, stays: bool },
    /// All of them arrive, and what answers them.
    DeliverAll,
    /// It is lost.
    Lose { which: usize },
    /// One octet of it changes.
    Corrupt { which: usize, at: usize, change: u8 },
    /// What was sent at any time arrives at anybody, from anywhere.
    Replay { letter: usize, to: usize, from: usize },
    /// Octets of the input arrive.
    Rubbish { to: usize, octets: Vec<u8> },
    /// Time passes, and what is due is done when it is due; datagrams arrive at once, or none do.
    Pass { time: Duration, arriving: bool },
    /// Everybody sleeps.
    Sleep { time: Duration },
    /// A wall clock is set.
    SetWall { host: usize, secs: u64 },
    /// A host is elsewhere.
    Roam { host: usize },
    /// A host is told where a peer is, truly or not, or may try.
    SetPath { host: usize, other: usize, is_true: bool, tries: bool },
    /// A host is told who its peers are; a nibble for each.
    SetPeers { host: usize, choices: [u8; 2], psks: u8 },
    /// New keys are wanted.
    Initiate { host: usize, other: usize },
    /// A host comes under load, or is no longer.
    Load { host: usize },
    /// The device has another MTU.
    SetMtu { host: usize, mtu: u32 },
    /// Lanes tell of what they should be told of, and of peers that may not be there.
    Look { host: usize, peer: u16 },
    /// A control frame of a keypair that is not there.
    Control { host: usize, index: u32 },
    /// Everything becomes good, and everybody must hear everybody.
    Recover,
}

impl<'a> Input<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { octets, steps: 0 }
    }

    pub(crate) fn cast(&mut self) -> Cast {
        let (kinds, ways, choices) = (self.octet(), self.octet(), self.octet());
        Cast {
            extensions: kinds & 7,
            aes: kinds >> 3 & 7,
            are_three: kinds >> 6 & 1 == 1,
            is_lazy: ways & 7,
            // At least one of two knows where the other is.
            knows_paths: ways >> 3 & 7 | 1,
            psk: choices & 1,
            keepalive: choices >> 1,
        }
    }

    /// The next step of `hosts` hosts.
    pub(crate) fn step(&mut self, hosts: usize) -> Option<Step> {
        if self.octets.is_empty() || self.steps == STEPS_MAX {
            return None;
        }
        self.steps += 1;
        let (what, ends) = (self.octet(), self.octet());
        let from = usize::from(ends) % hosts;
        let to = (from + 1 + usize::from(ends >> 2) % (hosts - 1)) % hosts;
        let (host, other, choice) = (from, to, usize::from(ends >> 3));
        Some(match what % 32 {
            0..=3 => {
                let (source, destination) = (choice % 4, choice / 4 % 4);
                Step::Send { from, to, source, destination, len: self.len(), count: 1 }
            }
            4 => {
                let (len, count) = (self.len(), usize::from(self.octet()));
                Step::Send { from, to, source: 0, destination: 0, len, count }
            }
            5 => Step::SendLiar { from, to, said: self.octet().cast_signed() },
            6 => Step::SendRubbish { from, len: usize::from(self.octet()) % 64 },
            7 => Step::Astray { from, peer: u16::from(self.octet() % 8) },
            8 => Step::Skip { from, to, count: usize::from(self.octet()) * 40 },
            9 | 10 => Step::Deliver { which: usize::from(self.octet()), stays: ends & 1 == 1 },
            11..=14 => Step::DeliverAll,
            15 => Step::Lose { which: choice },
            16 => Step::Corrupt {
                which: choice,
                at: usize::from(self.octet()),
                change: self.octet().max(1),
            },
            17 => Step::Replay { letter: usize::from(self.octet()), to: from, from: choice % 4 },
            18 => {
                let len = usize::from(self.octet()).min(self.octets.len());
                let (octets, rest) = self.octets.split_at(len);
                self.octets = rest;
                Step::Rubbish { to: from, octets: octets.to_vec() }
            }
            19..=21 => Step::Pass { time: self.time(), arriving: ends & 1 == 1 },
            22 => Step::Sleep { time: self.time() },
            23 => Step::SetWall { host, secs: u64::from(self.octet()) << 25 },
            24 => Step::Roam { host },
            25 => {
                let (is_true, tries) = (choice & 1 == 0, choice & 2 == 2);
                Step::SetPath { host, other, is_true, tries }
            }
            26 | 27 => {
                let choices = [self.octet(), self.octet()];
                Step::SetPeers { host, choices, psks: ends >> 4 }
            }
            28 => Step::Initiate { host, other },
            29 => match choice % 4 {
                0 => Step::SetMtu { host, mtu: [68, 576, 1280, 1420][choice / 4 % 4] },
                _ => Step::Load { host },
            },
            30 => match choice % 2 {
                0 => Step::Look { host, peer: u16::from(self.octet() % 8) },
                _ => Step::Control { host, index: u32::from(self.octet()) << 20 | 3 << 18 },
            },
            _ => Step::Recover,
        })
    }

    /// An octet, or zero when there is none.
    fn octet(&mut self) -> u8 {
        let Some((&first, rest)) = self.octets.split_first() else { return 0 };
        self.octets = rest;
        first
    }

    fn len(&mut self) -> usize {
        LENGTHS[usize::from(self.octet()) % LENGTHS.len()]
    }

    fn time(&mut self) -> Duration {
        Duration::from_millis(MILLIS[usize::from(self.octet()) % MILLIS.len()])
    }
}
