//! Why a packet was dropped.
//!
//! Every place that drops a packet names one of these; each has a counter, and nothing is logged
//! for a single packet. What was dropped is therefore always visible, and costs one addition.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The reason in a few words.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

drop_reasons! {
    // From the device to the wire.
    /// The device handed over a packet whose headers contradict each other.
    Malformed = "malformed packet from the device",
    /// No peer owns the inner destination.
    NoPeer = "no peer for the destination",
    /// The packet is a datagram of the tunnel itself, whose endpoint is routed into the tunnel.
    Loop = "the tunnel's own datagram",
    /// The peer has no endpoint yet: it is the first sender, and nothing came so far.
    NoEndpoint = "peer without endpoint",
    /// The inner packet does not fit into one outer datagram.
    TooLong = "longer than a datagram",
    /// No session with the peer, and more waits for one than may.
    NoSession = "no session, and too much waits for one",
    /// A frame for a peer that has not said that it takes Ethernet frames.
    NoHello = "peer understands no Ethernet frames",
    /// The transport did not take the datagram: no route, no buffer, address gone.
    SendFailed = "transport refused",
    // From the wire to the device.
    /// The sender is no peer.
    Stranger = "from a stranger",
    /// The datagram was longer than the receive buffer and arrived cut off.
    Truncated = "truncated datagram",
    /// The datagram holds nothing.
    Empty = "empty datagram",
    /// The datagram is none of the four messages.
    NotAMessage = "not a message",
    /// A handshake message without the MAC that only those can make who know our public key.
    BadMac = "wrong MAC",
    /// A handshake message from a source that sends too many of them.
    RateLimited = "too many handshakes from one source",
    /// More handshakes wait than may.
    HandshakeFull = "too many handshakes at once",
    /// More control frames wait than may.
    ControlFull = "too many control frames at once",
    /// A handshake of somebody who is no peer.
    UnknownPeer = "handshake of a stranger",
    /// An initiation that is not newer than the last one of the same peer: a replay.
    StaleTimestamp = "replayed initiation",
    /// No keypair or handshake has the receiver index.
    UnknownReceiver = "unknown receiver index",
    /// The keypair is too old, or has carried too many messages.
    KeypairExpired = "keypair expired",
    /// The message was not sealed with the keypair's key, or was changed on its way.
    Undecryptable = "not authentic",
    /// The message came before, or is too old to know.
    Replayed = "replayed message",
    /// A frame of a kind that this version does not know.
    UnknownFrame = "unknown frame",
    /// A frame of a kind that the peers have not agreed on.
    FrameNotAgreed = "frame not agreed on",
    /// A frame whose own header is wrong.
    FrameMalformed = "malformed frame",
    /// The inner packet is too short to have a header.
    TooShort = "too short for a header",
    /// The inner packet is neither IPv4 nor IPv6.
    UnknownVersion = "neither IPv4 nor IPv6",
    /// The length in the inner header is not the length of the inner packet.
    LengthMismatch = "length in the header is wrong",
    /// The inner source does not belong to the peer that sent the packet.
    SourceNotAllowed = "source not allowed for the peer",
    /// The device is down.
    DeviceDown = "device down",
    /// The kernel did not take the packet from the device.
    DeviceRefused = "device refused",
}

impl DropReason {
    /// The place of the reason's counter in an array of `ALL.len()` counters.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether what is dropped for it was on its way from the device to the wire.
    pub fn is_outgoing(self) -> bool {
        self.index() < Self::Stranger.index()
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        for (place, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
    }
}
