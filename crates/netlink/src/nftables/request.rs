//! Messages to nf_tables, octet by octet.
//!
//! ```text
//! nlmsghdr (16, the machine's order) | nfgenmsg: family, version 0, resource (be16) | attributes
//! ```
//!
//! An attribute's header is in the machine's order, its numbers are big-endian
//! (include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h).

use crate::message::{ALIGNMENT, HEADER, Request as Emit};

/// `NFNL_SUBSYS_NFTABLES`: the upper octet of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;

/// `NFPROTO_UNSPEC` and `NFPROTO_INET` of include/uapi/linux/netfilter.h.
pub(super) const FAMILY_ANY: u8 = 0;
pub(super) const FAMILY_INET: u8 = 1;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The octets of an attribute before its value.
pub(super) const ATTRIBUTE_HEADER: usize = 4;

/// What a message does or tells (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewGeneration = 15,
    GetGeneration = 16,
}

impl Kind {
    /// The type in a message's header.
    pub(super) fn message_type(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// A request to nf_tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// None for a bracket.
    kind: Option<Kind>,
    message_type: u16,
    family: u8,
    resource: u16,
    attributes: Attributes,
}

impl Request {
    pub(super) fn new(kind: Kind, family: u8, attributes: Attributes) -> Self {
        let message_type = kind.message_type();
        Self { kind: Some(kind), message_type, family, resource: 0, attributes }
    }

    /// What it asks for; none for a bracket.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// What opens a transaction.
    pub(super) fn begin() -> Self {
        Self::bracket(BATCH_BEGIN)
    }

    /// What opens a transaction that fails with `ERESTART` if anything has changed since the ruleset
    /// had this generation.
    pub(super) fn begin_at(generation: u32) -> Self {
        let attributes = Attributes::default().number(BATCH_GENERATION, generation);
        Self { attributes, ..Self::begin() }
    }

    /// What closes a transaction and commits it.
    pub(super) fn end() -> Self {
        Self::bracket(BATCH_END)
    }

    fn bracket(message_type: u16) -> Self {
        let attributes = Attributes::default();
        Self { kind: None, message_type, family: FAMILY_ANY, resource: SUBSYSTEM, attributes }
    }
}

impl Emit for Request {
    fn emit(self, flags: u16, sequence: u32) -> Vec<u8> {
        let attributes = self.attributes.octets;
        let length = HEADER + ATTRIBUTE_HEADER + attributes.len();
        let length = u32::try_from(length).expect("names and rules are short");
        let mut octets = Vec::new();
        octets.extend(length.to_ne_bytes());
        octets.extend(self.message_type.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend(sequence.to_ne_bytes());
        // From the socket's own port.
        octets.extend([0; 4]);
        octets.extend([self.family, 0]);
        octets.extend(self.resource.to_be_bytes());
        octets.extend(attributes);
        octets
    }
}

/// A row of attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    octets: Vec<u8>,
}

impl Attributes {
    pub(super) fn octets(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).expect("values are short");
        self.octets.extend(length.to_ne_bytes());
        self.octets.extend(kind.to_ne_bytes());
        self.octets.extend(value);
        self.octets.resize(self.octets.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.octets(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.octets(kind, &[value.as_bytes(), b"\0"].concat())
    }

    pub(super) fn nest(self, kind: u16, value: &Self) -> Self {
        self.octets(NESTED | kind, &value.octets)
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_header_its_family_and_padded_attributes() {
        let inner = Attributes::default().number(2, 0xffff_ff6a);
        let attributes = Attributes::default().text(1, "adit-a").nest(4, &inner);
        let request = Request::new(Kind::NewChain, FAMILY_INET, attributes);
        #[rustfmt::skip]
        assert_eq!(request.emit(0x0401, 7), [
            44, 0, 0, 0, 0x03, 0x0a, 0x01, 0x04, 7, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0,
            11, 0, 1, 0, b'a', b'd', b'i', b't', b'-', b'a', 0, 0,
            12, 0, 4, 0x80, 8, 0, 2, 0, 0xff, 0xff, 0xff, 0x6a,
        ]);
    }

    #[test]
    fn brackets_name_the_subsystem_in_network_order() {
        let begin = [20, 0, 0, 0, 0x10, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        assert_eq!(Request::begin().emit(1, 9), begin);
        #[rustfmt::skip]
        assert_eq!(Request::begin_at(0x0102).emit(1, 9), [
            28, 0, 0, 0, 0x10, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
            8, 0, 1, 0, 0, 0, 1, 2,
        ]);
        assert_eq!(Request::end().emit(1, 9)[4], 0x11);
    }
}
