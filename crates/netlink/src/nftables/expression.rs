//! The steps that a rule consists of, as far as is of interest of other people's rules.
//!
//! A rule is a row of expressions; each looks at the packet and lets it come to the next one or not, or says
//! what becomes of it. Only what tells a mark, or an end of every packet, is understood; what is
//! malformed is passed over.

use netlink_packet_core::{DecodeError, NlasIterator};

use crate::message::{Message, text};
use crate::nftables::ChainId;
use crate::nftables::found::number;
use crate::nftables::request::ATTRIBUTE_HEADER;
use crate::nftables::statement::{
    DATA, LIST_ELEMENT, MATCH, MATCH_NAME, MATCH_STRUCTURE, META, META_KEY, Meta, NAME,
    VERDICT_CODE, VERDICT_DATA,
};
use crate::nftables::table::RULE_EXPRESSIONS;

/// The longest comment that is read: `XT_MAX_COMMENT_LEN`, and that of nft(8) is shorter.
pub(super) const COMMENT_LIMIT: usize = 256;

/// The longest name of an expression, a match or a target (`XT_EXTENSION_MAXNAMELEN`).
const NAME_LIMIT: usize = 29;

/// `NFTA_IMMEDIATE_DATA`.
const IMMEDIATE_DATA: u16 = 2;

/// `NF_DROP` of include/uapi/linux/netfilter.h.
const DROP: u32 = 0;

/// One step of a rule.
#[derive(Debug)]
pub(super) struct Expression<'a> {
    name: String,
    /// The value of `NFTA_EXPR_DATA`.
    attributes: &'a [u8],
}

impl Expression<'_> {
    /// The comment of iptables that it is.
    pub(super) fn comment(&self) -> Option<String> {
        let legacy = find(self.attributes, MATCH_NAME)?;
        if self.name != MATCH || text(legacy, NAME_LIMIT) != "comment" {
            return None;
        }
        Some(text(find(self.attributes, MATCH_STRUCTURE)?, COMMENT_LIMIT))
    }

    /// Whether it loads that key.
    pub(super) fn loads(&self, key: Meta) -> bool {
        let loaded = || number(find(self.attributes, META_KEY)?).ok();
        self.name == META && loaded() == Some(key as u32)
    }

    /// Whether it lets every packet come to the next step.
    fn passes(&self) -> bool {
        matches!(&*self.name, "counter" | "log") || self.comment().is_some()
    }

    /// Whether it is the end of every packet that comes to it.
    fn drops(&self) -> bool {
        let verdict = || {
            let data = find(find(self.attributes, IMMEDIATE_DATA)?, VERDICT_DATA)?;
            number(find(data, VERDICT_CODE)?).ok()
        };
        let target = || text(find(self.attributes, MATCH_NAME).unwrap_or_default(), NAME_LIMIT);
        match &*self.name {
            "immediate" => verdict() == Some(DROP),
            "reject" => true,
            "target" => matches!(&*target(), "REJECT" | "DROP"),
            _ => false,
        }
    }
}

/// The steps of a rule, from the value of `NFTA_RULE_EXPRESSIONS`.
pub(super) fn expressions(list: &[u8]) -> impl Iterator<Item = Expression<'_>> {
    attributes(list).filter(|(kind, _)| *kind == LIST_ELEMENT).filter_map(|(_, expression)| {
        let name = text(find(expression, NAME)?, NAME_LIMIT);
        Some(Expression { name, attributes: find(expression, DATA)? })
    })
}

/// Whether the rule of `chain` that a message tells of is the end of every packet that comes to it.
pub(super) fn drops_everything(
    message: &Message<'_>,
    chain: &ChainId,
) -> Result<Option<bool>, DecodeError> {
    let Some(row) = chain.rule(message)? else { return Ok(None) };
    let list = find(row, RULE_EXPRESSIONS).unwrap_or_default();
    let mut rest = expressions(list).skip_while(Expression::passes);
    Ok(Some(rest.next().is_some_and(|expression| expression.drops())))
}

/// Kinds and values up to the first attribute that is malformed.
fn attributes(row: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(row).map_while(Result::ok).map(|attribute| {
        let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
        (kind, attribute.into_inner().get(ATTRIBUTE_HEADER..end).unwrap_or_default())
    })
}

/// The value of the first attribute of a kind.
pub(super) fn find(row: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(row).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}
