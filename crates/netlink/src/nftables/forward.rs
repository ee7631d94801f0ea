//! The two rules that let a tunnel's packets through a chain of somebody else.
//!
//! The first accepts what comes in by the tunnel's link, the second what goes out by it and answers;
//! nothing else passes that did not pass before. They stand before all other rules of the chain, each
//! with the comment `adit LINK` as its mark ([`super::marked`]).

use netlink_packet_core::NLM_F_CREATE;

use crate::nftables::ChainId;
use crate::nftables::found::Family;
use crate::nftables::marked::{MarkedRule, user_data};
use crate::nftables::request::{Kind, Request};
use crate::nftables::statement::{Comparison, Dialect, Statement};
use crate::nftables::table::{
    RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, RULE_USERDATA, Step, quoted,
};

/// The rules of one link in one chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) chain: &'a ChainId,
    pub(super) device: &'a str,
}

/// The commands that do the same as [`super::Socket::accept_forward`], quoted for a shell.
///
/// They are of nft(8), but for a chain that iptables-nft(8) reads of the latter, which could not read
/// what nft(8) would write.
pub fn accept_forward_as_nft(chain: &ChainId, device: &str) -> Vec<String> {
    let forward = Forward { chain, device };
    match chain.dialect() {
        Dialect::Nft => forward
            .statements()
            .map(|statement| format!("nft {}", quoted(&forward.words(&statement))))
            .to_vec(),
        Dialect::Iptables => forward.insert_as_iptables().to_vec(),
    }
}

impl Forward<'_> {
    /// The comment that the rules bear.
    pub(super) fn mark(&self) -> String {
        format!("adit {}", self.device)
    }

    /// The steps that make the rules, of a device whose name was checked.
    pub(super) fn insert_steps(&self) -> Vec<Step> {
        self.statements().map(|statement| self.insert(&statement)).to_vec()
    }

    /// Both rules. Each goes to the head of the chain, so the last is first there.
    fn statements(&self) -> [Statement; 2] {
        let start = || Statement::of(self.chain.dialect());
        let answers = start().output(Comparison::Equal, self.device).established_or_related();
        [answers, start().input(self.device)].map(|statement| statement.counter().accept())
    }

    fn insert(&self, statement: &Statement) -> Step {
        let attributes = self
            .chain
            .attributes(RULE_TABLE, RULE_CHAIN)
            .nest(RULE_EXPRESSIONS, &statement.expressions)
            .octets(RULE_USERDATA, &user_data(&self.mark()));
        Step {
            words: self.words(statement),
            request: Request::new(Kind::NewRule, self.chain.family.number(), attributes),
            flags: NLM_F_CREATE,
        }
    }

    fn words(&self, statement: &Statement) -> String {
        format!("insert rule {} {} comment \"{}\"", self.chain, statement.words, self.mark())
    }

    fn insert_as_iptables(&self) -> [String; 2] {
        let program = match self.chain.family {
            Family::Ipv6 => "ip6tables-nft",
            _ => "iptables-nft",
        };
        let (table, device, mark) = (&self.chain.table, quoted(self.device), quoted(&self.mark()));
        let insert = format!("{program} -t {table} -I {}", self.chain.chain);
        let accept = format!("-m comment --comment {mark} -j ACCEPT");
        let answers = "-m conntrack --ctstate RELATED,ESTABLISHED";
        [
            format!("{insert} -o {device} {answers} {accept}"),
            format!("{insert} -i {device} {accept}"),
        ]
    }

    /// The step that removes one rule of the chain.
    pub(super) fn delete_step(&self, rule: &MarkedRule) -> Step {
        let chain = self.chain;
        let handle = rule.handle;
        let attributes =
            chain.attributes(RULE_TABLE, RULE_CHAIN).octets(RULE_HANDLE, &handle.to_be_bytes());
        Step {
            words: format!("delete rule {chain} handle {handle}"),
            request: Request::new(Kind::DeleteRule, chain.family.number(), attributes),
            flags: 0,
        }
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::message::Request as _;

    fn chain(family: Family, table: &str, chain: &str) -> ChainId {
        ChainId { family, table: table.to_owned(), chain: chain.to_owned() }
    }

    /// The octets of the rule for answers, which is inserted first.
    fn answers(chain: &ChainId) -> Vec<u8> {
        let step = Forward { chain, device: "a0" }.insert_steps().swap_remove(0);
        step.request.emit(step.flags, 7)
    }

    /// The last two expressions and the mark.
    #[rustfmt::skip]
    const ACCEPT: [u8; 108] = [
            0x2c, 0, 0x01, 0x80,
                0x0c, 0, 0x01, 0, b'c', b'o', b'u', b'n', b't', b'e', b'r', 0,
                0x1c, 0, 0x02, 0x80,
                    0x0c, 0, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                    0x0c, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0x30, 0, 0x01, 0x80,
                0x0e, 0, 0x01, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0,
                0x1c, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
                    0x10, 0, 0x02, 0x80, 0x0c, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 1,
        0x0e, 0, 0x07, 0, 0, 8, b'a', b'd', b'i', b't', b' ', b'a', b'0', 0, 0, 0,
    ];

    #[test]
    fn a_rule_for_iptables_has_the_octets_that_iptables_writes() {
        #[rustfmt::skip]
        let before_states = [
            0xc4, 0x01, 0, 0, 0x06, 0x0a, 0x00, 0x04, 7, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0,
            0x0b, 0, 1, 0, b'f', b'i', b'l', b't', b'e', b'r', 0, 0,
            0x0c, 0, 2, 0, b'F', b'O', b'R', b'W', b'A', b'R', b'D', 0,
            0x88, 0x01, 0x04, 0x80,
                0x24, 0, 0x01, 0x80,
                    0x09, 0, 0x01, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0,
                    0x14, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 7,
                0x2c, 0, 0x01, 0x80,
                    0x08, 0, 0x01, 0, b'c', b'm', b'p', 0,
                    0x20, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0,
                        0x0c, 0, 0x03, 0x80, 0x07, 0, 1, 0, b'a', b'0', 0, 0,
                0xd8, 0, 0x01, 0x80,
                    0x0a, 0, 0x01, 0, b'm', b'a', b't', b'c', b'h', 0, 0, 0,
                    0xc8, 0, 0x02, 0x80,
                        0x0e, 0, 1, 0, b'c', b'o', b'n', b'n', b't', b'r', b'a', b'c', b'k', 0, 0, 0,
                        8, 0, 2, 0, 0, 0, 0, 3,
                        0xac, 0, 3, 0,
        ];
        let states = [&[0; 146][..], &[1, 0, 0, 0, 6, 0], &[0; 16]].concat();
        let expected = [&before_states[..], &states, &ACCEPT].concat();
        assert_eq!(answers(&chain(Family::Ipv4, "filter", "FORWARD")), expected);
    }

    #[test]
    fn a_rule_for_nft_asks_conntrack_itself() {
        let octets = answers(&chain(Family::Inet, "t", "c"));
        #[rustfmt::skip]
        let state = [
            0x20, 0, 0x01, 0x80,
                0x07, 0, 0x01, 0, b'c', b't', 0, 0,
                0x14, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0,
        ];
        assert_eq!(octets[16], 1);
        assert!(octets.windows(state.len()).any(|window| window == state));
        assert!(octets.ends_with(&ACCEPT));
    }

    #[test]
    fn a_rule_is_deleted_by_its_handle() {
        let chain = chain(Family::Inet, "t", "c");
        let rule = MarkedRule { handle: 0x0102, input: true, output: false };
        let step = Forward { chain: &chain, device: "a0" }.delete_step(&rule);
        assert_eq!(step.words, "delete rule inet t c handle 258");
        #[rustfmt::skip]
        assert_eq!(step.request.emit(step.flags, 7), [
            48, 0, 0, 0, 0x08, 0x0a, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0,
            6, 0, 1, 0, b't', 0, 0, 0,
            6, 0, 2, 0, b'c', 0, 0, 0,
            12, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2,
        ]);
    }

    #[test]
    fn commands_are_shown_for_names_that_no_link_can_have_too() {
        let device = "n".repeat(70_000);
        for id in [chain(Family::Inet, "t", "c"), chain(Family::Ipv4, "filter", "FORWARD")] {
            let commands = accept_forward_as_nft(&id, &device);
            assert!(commands.iter().all(|command| command.contains(&device)), "{id}");
        }
    }

    #[test]
    fn the_commands_are_of_the_program_that_reads_the_chain() {
        assert_eq!(
            accept_forward_as_nft(&chain(Family::Inet, "t", "c"), "adit0"),
            [
                "nft 'insert rule inet t c oifname \"adit0\" ct state established,related counter \
                 accept comment \"adit adit0\"'",
                "nft 'insert rule inet t c iifname \"adit0\" counter accept comment \"adit adit0\"'",
            ]
        );
        assert_eq!(
            accept_forward_as_nft(&chain(Family::Ipv6, "filter", "FORWARD"), "adit0"),
            [
                "ip6tables-nft -t filter -I FORWARD -o 'adit0' -m conntrack --ctstate \
                 RELATED,ESTABLISHED -m comment --comment 'adit adit0' -j ACCEPT",
                "ip6tables-nft -t filter -I FORWARD -i 'adit0' -m comment --comment 'adit adit0' \
                 -j ACCEPT",
            ]
        );
    }
}
