//! Rules that bear a mark, as they are found among the others of a chain.
//!
//! The mark is the rule's comment. nft(8) keeps a comment in the rule's *user data*, which the kernel
//! stores and does not read: a row of type, length and value, with an octet for each of the first two.
//! iptables-nft(8) keeps it in an expression, a match of legacy iptables that is always true; a rule
//! that went through `iptables-save` and `iptables-restore` has it there. Other programs put what they
//! like into user data, so what cannot be understood there is not a comment, and no error.
//!
//! References: include/linux/udata.h of libnftnl, include/uapi/linux/netfilter/xt_comment.h.

use netlink_packet_core::DecodeError;

use crate::message::{Message, text};
use crate::nftables::ChainId;
use crate::nftables::expression::{COMMENT_LIMIT, expressions, find};
use crate::nftables::statement::Meta;
use crate::nftables::table::{RULE_EXPRESSIONS, RULE_HANDLE, RULE_USERDATA};

/// `NFTNL_UDATA_RULE_COMMENT`.
const COMMENT: u8 = 0;

/// A rule whose comment is a certain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkedRule {
    /// The rule's number in its table, never given twice.
    pub(super) handle: u64,
    /// Whether it asks by which link a packet came in.
    pub(super) input: bool,
    /// Whether it asks by which link a packet goes out.
    pub(super) output: bool,
}

impl MarkedRule {
    /// The rule of `chain` that a message tells of; none if its comment is not `mark`.
    pub(super) fn parse(
        message: &Message<'_>,
        chain: &ChainId,
        mark: &str,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(row) = chain.rule(message)? else { return Ok(None) };
        let expressions = || expressions(find(row, RULE_EXPRESSIONS).unwrap_or_default());
        let in_user_data = find(row, RULE_USERDATA).and_then(comment);
        let mut comments =
            in_user_data.into_iter().chain(expressions().filter_map(|found| found.comment()));
        if !comments.any(|comment| comment == mark) {
            return Ok(None);
        }
        let handle =
            find(row, RULE_HANDLE).ok_or_else(|| DecodeError::from("a rule without a handle"))?;
        Ok(Some(Self {
            handle: parse_handle(handle)?,
            input: expressions().any(|expression| expression.loads(Meta::InputName)),
            output: expressions().any(|expression| expression.loads(Meta::OutputName)),
        }))
    }
}

/// The user data in which nft(8) finds this comment.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let value = [comment.as_bytes(), b"\0"].concat();
    let length = u8::try_from(value.len()).expect("a mark is little longer than a link's name");
    [&[COMMENT, length], &*value].concat()
}

/// The comment that nft(8) put into user data.
fn comment(user_data: &[u8]) -> Option<String> {
    let mut rest = user_data;
    while let [kind, length, following @ ..] = rest {
        let (value, others) = following.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value, COMMENT_LIMIT));
        }
        rest = others;
    }
    None
}

fn parse_handle(value: &[u8]) -> Result<u64, DecodeError> {
    let octets = value.get(..8).and_then(|octets| octets.try_into().ok());
    octets.map(u64::from_be_bytes).ok_or_else(|| DecodeError::buffer_too_small(value.len(), 8))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::message::{Request as _, messages};
    use crate::nftables::found::Family;
    use crate::nftables::request::{Attributes, Kind, Request};
    use crate::nftables::statement::{
        DATA, LIST_ELEMENT, MATCH, MATCH_NAME, MATCH_STRUCTURE, META, META_KEY, NAME,
    };
    use crate::nftables::table::{RULE_CHAIN, RULE_TABLE};

    /// `NFT_MSG_NEWRULE` of Linux 6.18: `iifname "adit0" counter accept comment "adit adit0"` with
    /// handle 2 in `ip filter FORWARD`.
    #[rustfmt::skip]
    const RULE: [u8; 264] = [
        0x08, 0x01, 0x00, 0x00, 0x06, 0x0a, 0x02, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3e, 0x71, 0x00, 0x00,
        0x02, 0x00, 0x00, 0x04,
        0x0b, 0x00, 0x01, 0x00, b'f', b'i', b'l', b't', b'e', b'r', 0x00, 0x00,
        0x0c, 0x00, 0x02, 0x00, b'F', b'O', b'R', b'W', b'A', b'R', b'D', 0x00,
        0x0c, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02,
        0xbc, 0x00, 0x04, 0x00,
            0x24, 0x00, 0x01, 0x00,
                0x09, 0x00, 0x01, 0x00, b'm', b'e', b't', b'a', 0x00, 0x00, 0x00, 0x00,
                0x14, 0x00, 0x02, 0x00,
                    0x08, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x06,
                    0x08, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01,
            0x38, 0x00, 0x01, 0x00,
                0x08, 0x00, 0x01, 0x00, b'c', b'm', b'p', 0x00,
                0x2c, 0x00, 0x02, 0x00,
                    0x08, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01,
                    0x08, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00,
                    0x18, 0x00, 0x03, 0x00, 0x14, 0x00, 0x01, 0x00,
                        b'a', b'd', b'i', b't', b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0x2c, 0x00, 0x01, 0x00,
                0x0c, 0x00, 0x01, 0x00, b'c', b'o', b'u', b'n', b't', b'e', b'r', 0x00,
                0x1c, 0x00, 0x02, 0x00,
                    0x0c, 0x00, 0x01, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
                    0x0c, 0x00, 0x02, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
            0x30, 0x00, 0x01, 0x00,
                0x0e, 0x00, 0x01, 0x00, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0x00, 0x00, 0x00,
                0x1c, 0x00, 0x02, 0x00,
                    0x08, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
                    0x10, 0x00, 0x02, 0x00,
                        0x0c, 0x00, 0x02, 0x00, 0x08, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01,
        0x11, 0x00, 0x07, 0x00,
            0x00, 0x0b, b'a', b'd', b'i', b't', b' ', b'a', b'd', b'i', b't', b'0', 0x00, 0x00, 0x00, 0x00,
    ];

    fn forward() -> ChainId {
        ChainId { family: Family::Ipv4, table: "filter".to_owned(), chain: "FORWARD".to_owned() }
    }

    fn parsed(octets: &[u8], chain: &ChainId, mark: &str) -> Option<MarkedRule> {
        MarkedRule::parse(&messages(octets).next().unwrap().unwrap(), chain, mark).unwrap()
    }

    #[test]
    fn a_rule_is_known_by_its_comment_in_its_chain() {
        let rule = MarkedRule { handle: 2, input: true, output: false };
        assert_eq!(parsed(&RULE, &forward(), "adit adit0"), Some(rule));
        for mark in ["", "adit adit", "adit adit00"] {
            assert_eq!(parsed(&RULE, &forward(), mark), None, "{mark}");
        }
        for other in [
            ChainId { family: Family::Ipv6, ..forward() },
            ChainId { table: "mangle".to_owned(), ..forward() },
            ChainId { chain: "INPUT".to_owned(), ..forward() },
        ] {
            assert_eq!(parsed(&RULE, &other, "adit adit0"), None, "{other}");
        }
    }

    /// A rule with expressions, for what iptables-nft(8) keeps there.
    fn rule(expressions: &[(&str, Attributes)], user_data: &[u8]) -> Vec<u8> {
        let list = expressions.iter().fold(Attributes::default(), |list, (name, data)| {
            list.nest(LIST_ELEMENT, &Attributes::default().text(NAME, name).nest(DATA, data))
        });
        let attributes = forward()
            .attributes(RULE_TABLE, RULE_CHAIN)
            .octets(RULE_HANDLE, &7_u64.to_be_bytes())
            .nest(RULE_EXPRESSIONS, &list)
            .octets(RULE_USERDATA, user_data);
        Request::new(Kind::NewRule, Family::Ipv4.number(), attributes).emit(0, 1)
    }

    fn legacy(name: &str, text: &str) -> (&'static str, Attributes) {
        let mut structure = [0; COMMENT_LIMIT];
        structure[..text.len()].copy_from_slice(text.as_bytes());
        (MATCH, Attributes::default().text(MATCH_NAME, name).octets(MATCH_STRUCTURE, &structure))
    }

    #[test]
    fn a_comment_of_iptables_is_one_too() {
        let found = |expressions: &[_]| parsed(&rule(expressions, b""), &forward(), "adit a");
        let output = (META, Attributes::default().number(META_KEY, Meta::OutputName as u32));
        let rule = MarkedRule { handle: 7, input: false, output: true };
        assert_eq!(found(&[output.clone(), legacy("comment", "adit a")]), Some(rule));
        assert_eq!(found(&[output.clone(), legacy("comment", "adit ab")]), None);
        assert_eq!(found(&[output, legacy("physdev", "adit a")]), None);
    }

    #[test]
    fn user_data_of_others_is_no_comment_and_no_error() {
        let marked = |octets: &[u8]| parsed(&rule(&[], octets), &forward(), "adit a").is_some();
        assert!(marked(&user_data("adit a")));
        assert!(marked(b"\x01\x03xyz\x00\x07adit a\0"), "after something else");
        assert!(marked(b"\x00\x06adit a"), "without a final zero");
        for octets in [
            &b""[..],
            b"\x00",
            b"\x00\x08adit a\0",
            b"\x01\x07adit a\0",
            b"adit a\0",
            b"\x00\x00",
            &[0xff; 255],
            &[0; 255],
        ] {
            assert!(!marked(octets), "{octets:?}");
        }
    }

    #[test]
    fn a_marked_rule_without_a_handle_is_malformed() {
        let mut unnumbered = RULE;
        unnumbered[46] = 0x7f;
        let message = messages(&unnumbered).next().unwrap().unwrap();
        let error = MarkedRule::parse(&message, &forward(), "adit adit0").unwrap_err();
        assert_eq!(error.to_string(), "a rule without a handle");
        assert_eq!(MarkedRule::parse(&message, &forward(), "other").unwrap(), None);
    }

    #[test]
    fn no_damage_makes_the_parser_panic() {
        let iptables = rule(&[legacy("comment", "adit adit0")], b"");
        for whole in [&RULE[..], &iptables] {
            let edges = [0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff];
            let changed = (0..whole.len()).flat_map(|position| {
                edges.map(|value| {
                    let mut octets = whole.to_vec();
                    octets[position] = value;
                    octets
                })
            });
            let cut = (0..whole.len()).map(|end| {
                let mut octets = whole[..end].to_vec();
                let length = u32::try_from(end).unwrap().to_le_bytes();
                octets.iter_mut().zip(length).for_each(|(octet, value)| *octet = value);
                octets
            });
            for octets in changed.chain(cut) {
                for message in messages(&octets).map_while(Result::ok) {
                    let _ = MarkedRule::parse(&message, &forward(), "adit adit0");
                }
            }
        }
    }
}
