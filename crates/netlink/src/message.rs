//! The framing of netlink: messages in a datagram, attributes in a message.
//!
//! A datagram holds one or more messages, each with a header of 16 octets and padded to four
//! (netlink(7)). An `NLMSG_ERROR` answers a request: a negative error number, the request (its header
//! only if the message is flagged `NLM_F_CAPPED`), then attributes if flagged `NLM_F_ACK_TLVS`, among
//! them the text of the extended acknowledgement. An `NLMSG_DONE` ends a dump in the same manner, but
//! holds no request. See Documentation/userspace-api/netlink/intro.rst.

use netlink_packet_core::{
    DecodeError, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkMessage, NlasIterator, parse_i32,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

use crate::error::Cause;

pub(crate) const HEADER: usize = 16;
pub(crate) const ALIGNMENT: usize = 4;
/// The error number that precedes everything else in `NLMSG_ERROR` and `NLMSG_DONE`.
const CODE: usize = 4;
/// `NLMSGERR_ATTR_MSG` of include/uapi/linux/netlink.h.
const EXT_ACK_TEXT: u16 = 1;
/// The kernel's texts are at most `NETLINK_MAX_FMTMSG_LEN` (80) octets or literals of that order.
const EXT_ACK_TEXT_LIMIT: usize = 512;

/// One message, borrowed from its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// A request of one of the protocols.
pub(crate) trait Request: Clone {
    /// Encodes it with its header.
    fn emit(self, flags: u16, sequence: u32) -> Vec<u8>;
}

impl Request for RouteNetlinkMessage {
    fn emit(self, flags: u16, sequence: u32) -> Vec<u8> {
        let mut message = NetlinkMessage::from(self);
        message.header.flags = flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        octets
    }
}

/// Splits a datagram into messages; ends after the first malformed one.
pub(crate) fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

/// Iterator of [`messages`].
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let datagram = std::mem::take(&mut self.rest);
        let header = match NetlinkBuffer::new_checked(datagram) {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        let end = usize::try_from(header.length()).unwrap_or(usize::MAX);
        self.rest = datagram.get(end.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Ok(Message {
            kind: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            payload: datagram.get(HEADER..end).unwrap_or_default(),
        }))
    }
}

impl<'a> Message<'a> {
    /// The attributes that follow a fixed part of `header` octets.
    pub(crate) fn attributes(&self, header: usize) -> Result<NlasIterator<&'a [u8]>, DecodeError> {
        self.payload
            .get(header..)
            .map(NlasIterator::new)
            .ok_or_else(|| DecodeError::buffer_too_small(self.payload.len(), header))
    }

    /// What an `NLMSG_ERROR` or `NLMSG_DONE` says about the request: done, or refused.
    pub(crate) fn verdict(&self) -> Result<(), Cause> {
        let code = self.payload.get(..CODE).ok_or_else(|| self.too_short(CODE))?;
        match parse_i32(code)? {
            0 => Ok(()),
            code if code < 0 && code > -MAX_ERRNO => {
                let errno = Errno::from_raw_os_error(-code);
                Err(Cause::Refused { errno, says: self.ext_ack_text() })
            }
            code => Err(Cause::Malformed(format!("error number {code}"))),
        }
    }

    fn ext_ack_text(&self) -> Option<String> {
        let start = match self.kind {
            NLMSG_DONE => CODE,
            NLMSG_ERROR if self.flags & NLM_F_ACK_TLVS == 0 => return None,
            NLMSG_ERROR if self.flags & NLM_F_CAPPED != 0 => CODE + HEADER,
            _ => CODE + self.refused_request_length()?,
        };
        NlasIterator::new(self.payload.get(start..)?)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind() == EXT_ACK_TEXT)
            .map(|attribute| text(attribute.value(), EXT_ACK_TEXT_LIMIT))
    }

    fn refused_request_length(&self) -> Option<usize> {
        let length = self.payload.get(CODE..CODE + 4)?.try_into().ok()?;
        let length = usize::try_from(u32::from_ne_bytes(length)).ok()?;
        (HEADER..=self.payload.len()).contains(&length).then(|| length.next_multiple_of(ALIGNMENT))
    }

    fn too_short(&self, wanted: usize) -> Cause {
        Cause::from(DecodeError::buffer_too_small(self.payload.len(), wanted))
    }
}

/// The largest error number that the kernel returns (include/linux/err.h).
const MAX_ERRNO: i32 = 4095;

/// A string attribute without its terminating zero; octets that are not UTF-8 are replaced.
pub(crate) fn text(value: &[u8], limit: usize) -> String {
    let end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
    let octets = value.get(..end.min(limit)).unwrap_or_default();
    String::from_utf8_lossy(octets).into_owned()
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::captured::{ACKNOWLEDGED, DONE, REFUSED, ROUTES, each_damaged};

    fn only(datagram: &[u8]) -> Message<'_> {
        messages(datagram).next().unwrap().unwrap()
    }

    #[test]
    fn a_datagram_falls_into_its_messages() {
        let kinds: Vec<_> = messages(&ROUTES)
            .map(|message| message.map(|m| (m.kind, m.sequence, m.payload.len())).unwrap())
            .collect();
        assert_eq!(kinds, [(24, 4, 44), (24, 4, 72)]);
    }

    #[test]
    fn a_refusal_carries_the_kernels_text() {
        let Err(Cause::Refused { errno, says }) = only(&REFUSED).verdict() else { panic!() };
        assert_eq!(errno, Errno::NETUNREACH);
        assert_eq!(says.as_deref(), Some("Nexthop has invalid gateway"));
        assert_eq!(only(&ACKNOWLEDGED).verdict(), Ok(()));
    }

    #[test]
    fn a_capped_refusal_quotes_the_requests_header_only() {
        let mut capped = REFUSED[..36].to_vec();
        capped.extend_from_slice(&REFUSED[64..]);
        capped[0] = 68;
        capped[7] = 0x03;
        let Err(Cause::Refused { says, .. }) = only(&capped).verdict() else { panic!() };
        assert_eq!(says.as_deref(), Some("Nexthop has invalid gateway"));
    }

    #[test]
    fn a_failed_dump_carries_the_kernels_text_after_the_error_number() {
        let mut failed = DONE.to_vec();
        failed[16..].copy_from_slice(&(-22_i32).to_le_bytes());
        failed.extend_from_slice(&[0x06, 0, 0x01, 0, b'n', b'o', 0, 0]);
        failed[0] = 28;
        let Err(Cause::Refused { errno, says }) = only(&failed).verdict() else { panic!() };
        assert_eq!((errno, says.as_deref()), (Errno::INVAL, Some("no")));
    }

    #[test]
    fn error_numbers_that_no_kernel_sends_are_malformed() {
        for code in [1_i32, 4095, i32::MAX, i32::MIN, -4095, -70_000] {
            let mut refused = REFUSED.to_vec();
            refused[16..20].copy_from_slice(&code.to_le_bytes());
            assert!(matches!(only(&refused).verdict(), Err(Cause::Malformed(_))), "{code}");
        }
    }

    #[test]
    fn a_header_that_is_cut_off_or_lies_about_its_length_is_malformed() {
        assert!(messages(&[]).next().is_none());
        assert!(messages(&ROUTES[..15]).next().unwrap().is_err());
        assert!(messages(&ROUTES[..59]).next().unwrap().is_err());
        for length in [0_u32, 1, 15, 149, u32::MAX] {
            let mut octets = ROUTES.to_vec();
            octets[..4].copy_from_slice(&length.to_le_bytes());
            assert!(messages(&octets).next().unwrap().is_err(), "{length}");
            assert!(messages(&octets).count() == 1, "{length}");
        }
    }

    #[test]
    fn a_text_ends_at_its_zero_or_at_the_limit() {
        assert_eq!(text(b"eth0\0rest", 15), "eth0");
        assert_eq!(text(b"eth0", 3), "eth");
        assert_eq!(text(b"", 3), "");
        assert_eq!(text(b"\xff", 3), "\u{fffd}");
    }

    #[test]
    fn no_damage_makes_a_verdict_panic() {
        each_damaged(|octets| {
            for message in messages(octets).map_while(Result::ok) {
                let _ = message.verdict();
            }
        });
    }
}
