//! The packet filter: one table of nf_tables for a tunnel, and a look at those of others.
//!
//! A *table* holds *chains*, a chain holds *rules* (nft(8)). Packets come to a *base chain* by a
//! *hook*, a point on their way through the kernel, and to all base chains of a hook in the order of
//! their *priority*. A rule matches and then says what becomes of the packet.
//!
//! **Owner.** A [`Table`] carries `NFT_TABLE_F_OWNER` (Linux 5.12): it belongs to the socket that made
//! it. Nobody else can change or delete it, not even by flushing the ruleset, and the kernel removes it
//! with everything in it when the last descriptor of that socket is closed, so also when its process is
//! killed. [`OwnedTable`] is that socket. The address translation of connections that exist by then
//! lasts as long as they do, because conntrack has it by heart.
//!
//! **Transaction.** A change is one datagram: a bracket, the steps, a bracket. The kernel makes all
//! steps at one moment or none at all, and packets never see half of them. A refusal names the step
//! by its sequence number; that of the opening bracket stands for the whole, such as when the process
//! lacks `CAP_NET_ADMIN`. [`OwnedTable::replace`] deletes and makes the table in one transaction.
//!
//! **Accept is not the last word.** `accept` ends the evaluation of one base chain, and the packet goes
//! on to the next one of its hook; `drop` is final wherever it is. So a rule of this table cannot save
//! a packet from another table's chain, by neither an earlier nor a later priority.
//! [`Socket::base_chains`] lets the caller name a chain that would drop by its policy; Docker and ufw
//! set that of the chain FORWARD of iptables. [`Socket::accept_forward`] then puts two rules of ours
//! at the head of that chain. Nobody owns those and the kernel does not remove them, so they are
//! marked with a comment, and [`Socket::withdraw_forward`] deletes what bears it, by the number that
//! the kernel gave each rule. It is written as the program writes that reads the chain: iptables-nft(8)
//! would list a table no more in which it found `ct`. What legacy iptables drops is not seen here at
//! all; [`legacy_filter`] tells whether it may.
//!
//! **Generation.** Whoever changes the ruleset raises its generation. A transaction can be bound to
//! one and is refused when that has passed; deleting by number is bound to the one in which the rules
//! were listed, and both are repeated a few times.
//!
//! There is nothing in our table but what its [`Rule`]s need:
//!
//! | chain | type, hook, priority | rules |
//! |---|---|---|
//! | `postrouting` | nat, postrouting, 100 | [`Rule::Masquerade`], [`Rule::SourceNat`] |
//! | `forward` | filter, forward, 0 | [`Rule::ForwardAccept`] |
//! | `clamp` | filter, forward, -150 | [`Rule::ClampMss`] |
//!
//! References: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h, net/netfilter/nfnetlink.c
//! (`nfnetlink_rcv_batch`), net/netfilter/nf_tables_api.c (`nft_rcv_nl_event` for owners).

mod chain;
mod expression;
mod forward;
mod found;
mod legacy;
mod marked;
mod request;
mod statement;
mod table;

use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::DecodeError;
use rustix::io::Errno;

use crate::channel::Channel;
use crate::connection::{Connection, DUMP_ATTEMPTS};
use crate::error::{Cause, Error};
use crate::link::check_name;
use crate::message::Message;
use forward::Forward;
use found::{HEADER, number};
use marked::MarkedRule;
use request::{Attributes, FAMILY_ANY, Kind, Request};
use table::Step;

use expression::drops_everything;

pub use chain::ChainId;
pub use forward::accept_forward_as_nft;
pub use found::{BaseChain, Family, FoundTable, Hook, Policy};
pub use legacy::legacy_filter;
pub use table::{OutInterface, RULE_LIMIT, Rule, TABLE_NAME_LIMIT, TABLE_PREFIX, Table};

/// `NFTA_GEN_ID`.
const GENERATION: u16 = 1;

/// A connection to nf_tables in one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    connection: Connection,
}

/// A table that is in force as long as this, or a copy of its descriptor, exists.
#[derive(Debug)]
pub struct OwnedTable {
    socket: Socket,
    table: Table,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::is_unsupported`] if the kernel has no netfilter.
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open_netfilter_requests()
            .map_err(|cause| Error::new("nftables: open netlink socket", cause))?;
        Ok(Self { connection: Connection::new(channel) })
    }

    /// Makes a table that this socket owns.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if there is such a table and nobody owns it; `EPERM` at `add table` if
    /// another socket does, and at `install table` if the process lacks `CAP_NET_ADMIN`.
    /// [`Error::is_unsupported`] if the kernel lacks what is needed, with [`Cause::Unsupported`] if
    /// it does not know owners. Nothing has changed then.
    pub fn install(mut self, table: &Table) -> Result<OwnedTable, Error> {
        self.commit(table, None)?;
        Ok(OwnedTable { socket: self, table: table.clone() })
    }

    /// Lists the tables of all families, whoever made them.
    ///
    /// # Errors
    ///
    /// [`Error::is_unsupported`] if the kernel has no nf_tables.
    pub fn tables(&mut self) -> Result<Vec<FoundTable>, Error> {
        self.list(Kind::GetTable, FoundTable::parse)
            .map_err(|cause| Error::new("nftables: list tables", cause))
    }

    /// Lists the chains that packets come to by a hook, of all tables, whoever made them.
    ///
    /// # Errors
    ///
    /// [`Error::is_unsupported`] if the kernel has no nf_tables.
    pub fn base_chains(&mut self) -> Result<Vec<BaseChain>, Error> {
        self.list(Kind::GetChain, BaseChain::parse)
            .map_err(|cause| Error::new("nftables: list chains", cause))
    }

    /// Accepts, in a chain of somebody else, what comes in by the link `device` and the answers to it.
    ///
    /// Two rules are put at the head of the chain, before all others, in one transaction. They bear a
    /// comment with the name of the link as their mark; rules that bear it already are replaced. The
    /// chain keeps them until [`Socket::withdraw_forward`] or until somebody else removes them.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such chain or the kernel lacks a match that the rules need; `EPERM` if
    /// the table belongs to another socket or the process lacks `CAP_NET_ADMIN`; [`Cause::Name`] if
    /// no link can be called `device`; [`Cause::Interrupted`] if the ruleset never stopped changing.
    /// Nothing has changed then.
    pub fn accept_forward(&mut self, chain: &ChainId, device: &str) -> Result<(), Error> {
        let forward = Forward { chain, device };
        check_name(device).map_err(|cause| refused_change(forward, None, cause))?;
        self.exchange_marked(forward, &forward.insert_steps()).map(drop)
    }

    /// Whether a chain has both rules of [`Socket::accept_forward`], wherever in the chain.
    ///
    /// False also if there is no such chain.
    ///
    /// # Errors
    ///
    /// `EPERM` if the process lacks `CAP_NET_ADMIN`.
    pub fn accepts_forward(&mut self, chain: &ChainId, device: &str) -> Result<bool, Error> {
        let marked = self.marked_rules(Forward { chain, device })?;
        Ok(marked.iter().any(|rule| rule.input) && marked.iter().any(|rule| rule.output))
    }

    /// Whether the last rule of a chain drops or rejects whatever comes to it, as firewalld has it where
    /// others have a policy. A chain that is not there does not.
    pub fn ends_in_drop(&mut self, chain: &ChainId) -> Result<bool, Error> {
        let words = format!("nftables: list rules of chain {chain}");
        let rules = self
            .connection
            .dump(&chain.list_rules(), |message| drops_everything(message, chain))
            .map_err(|cause| Error::new(words, cause))?;
        Ok(rules.last().copied().unwrap_or(false))
    }

    /// Removes the rules of [`Socket::accept_forward`] that are there, in one transaction.
    ///
    /// False if there was none, be it because there is no such chain.
    ///
    /// # Errors
    ///
    /// `EPERM` if the table belongs to another socket or the process lacks `CAP_NET_ADMIN`;
    /// [`Cause::TooManyRules`] if more than [`RULE_LIMIT`] rules bear the mark;
    /// [`Cause::Interrupted`] if the ruleset never stopped changing. Nothing has changed then.
    pub fn withdraw_forward(&mut self, chain: &ChainId, device: &str) -> Result<bool, Error> {
        self.exchange_marked(Forward { chain, device }, &[])
    }

    /// Makes a chain that drops what is forwarded, and its table if there is none. Nobody owns it: it
    /// stays after this socket. For laboratories and tests.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if there is such a chain.
    pub fn add_drop_chain(&mut self, id: &ChainId) -> Result<(), Error> {
        let steps = id.drop_steps();
        self.transact(Request::begin(), &steps).map_err(|(step, cause)| {
            let words = step.map_or_else(|| format!("add chain {id}"), |step| step.words.clone());
            Error::new(format!("nftables: {words}"), cause)
        })
    }

    /// Deletes the marked rules of a chain and makes `steps`, at one moment. Whether any was deleted.
    ///
    /// A handle means another rule once a table has been deleted and made again, so that the
    /// transaction is bound to the generation in which the rules were listed.
    fn exchange_marked(&mut self, forward: Forward<'_>, steps: &[Step]) -> Result<bool, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let generation = self.generation(forward)?;
            let marked = self.marked_rules(forward)?;
            let delete = marked.iter().map(|rule| forward.delete_step(rule));
            let steps: Vec<_> = delete.chain(steps.iter().cloned()).collect();
            if steps.is_empty() {
                return Ok(false);
            }
            match self.transact(Request::begin_at(generation), &steps) {
                Ok(()) => return Ok(!marked.is_empty()),
                Err((None, cause)) if cause.errno() == Some(Errno::RESTART) => {}
                Err((step, cause)) => return Err(refused_change(forward, step, cause)),
            }
        }
        Err(refused_change(forward, None, Cause::Interrupted))
    }

    fn marked_rules(&mut self, forward: Forward<'_>) -> Result<Vec<MarkedRule>, Error> {
        let mark = forward.mark();
        let parse = |message: &Message<'_>| MarkedRule::parse(message, forward.chain, &mark);
        match self.connection.dump(&forward.chain.list_rules(), parse) {
            Ok(marked) if marked.len() > RULE_LIMIT => Err(Cause::TooManyRules),
            listed => listed,
        }
        .map_err(|cause| Error::new(format!("nftables: list rules of {}", forward.chain), cause))
    }

    fn generation(&mut self, forward: Forward<'_>) -> Result<u32, Error> {
        let request = Request::new(Kind::GetGeneration, FAMILY_ANY, Attributes::default());
        self.connection
            .query(request, parse_generation)
            .map_err(|cause| refused_change(forward, None, without_nf_tables(cause)))
    }

    fn list<T>(
        &mut self,
        kind: Kind,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, Cause> {
        let request = Request::new(kind, FAMILY_ANY, Attributes::default());
        self.connection.dump(&request, parse).map_err(without_nf_tables)
    }

    fn commit(&mut self, table: &Table, old: Option<&Table>) -> Result<(), Error> {
        table.check().map_err(|cause| refusal(table, None, cause))?;
        let steps: Vec<_> = old.map(Table::delete_table).into_iter().chain(table.steps()).collect();
        self.transact(Request::begin(), &steps).map_err(|(step, cause)| refusal(table, step, cause))
    }

    /// Makes all steps or none; an error comes with the step that was refused, or else is of the whole.
    fn transact<'a>(
        &mut self,
        begin: Request,
        steps: &'a [Step],
    ) -> Result<(), (Option<&'a Step>, Cause)> {
        self.connection.transact(bracketed(begin, steps)).map_err(|(position, cause)| {
            // Position 0 is the bracket before the first step.
            (position.checked_sub(1).and_then(|index| steps.get(index)), cause)
        })
    }
}

impl OwnedTable {
    /// Puts another table in the place of this one, at one moment. Its name may differ.
    ///
    /// # Errors
    ///
    /// As [`Socket::install`]. The old table stays in force then.
    pub fn replace(&mut self, table: &Table) -> Result<(), Error> {
        self.socket.commit(table, Some(&self.table))?;
        self.table = table.clone();
        Ok(())
    }

    /// What is in force.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl AsFd for OwnedTable {
    /// The socket that owns the table: a process that holds a copy keeps the table.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.connection.channel().as_fd()
    }
}

fn bracketed(begin: Request, steps: &[Step]) -> Vec<(Request, u16)> {
    let mut requests = vec![(begin, 0)];
    requests.extend(steps.iter().map(|step| (step.request.clone(), step.flags)));
    requests.push((Request::end(), 0));
    requests
}

/// What became of a table: the step that was refused, or else the whole.
fn refusal(table: &Table, step: Option<&Step>, cause: Cause) -> Error {
    match step {
        Some(step) => Error::new(format!("nftables: {}", step.words), without_owner(step, cause)),
        None => Error::new(format!("nftables: install table inet {}", table.name), cause),
    }
}

/// What became of rules in a chain of somebody else: the step that was refused, or else the whole.
fn refused_change(forward: Forward<'_>, step: Option<&Step>, cause: Cause) -> Error {
    let Forward { chain, device } = forward;
    let whole = || format!("change the rules for {device:?} in {chain}");
    Error::new(format!("nftables: {}", step.map_or_else(whole, |step| step.words.clone())), cause)
}

/// The generation of the ruleset, which every transaction of whomever raises.
fn parse_generation(message: &Message<'_>) -> Result<Option<u32>, DecodeError> {
    if message.kind != Kind::NewGeneration.message_type() {
        return Ok(None);
    }
    let attributes = message.attributes(HEADER)?.map_while(Result::ok);
    let mut generations = attributes.filter(|attribute| attribute.kind() == GENERATION);
    generations.next().map(|attribute| number(attribute.value())).transpose()
}

/// A kernel without nf_tables refuses its requests, outside of a transaction, with `EINVAL`
/// (`nfnetlink_rcv_msg`).
fn without_nf_tables(cause: Cause) -> Cause {
    unsupported("nf_tables", cause)
}

/// A kernel without owners refuses their flag with `EINVAL` (`nf_tables_newtable` before Linux 5.12);
/// nothing else about a new table can be invalid, because its name was checked.
fn without_owner(step: &Step, cause: Cause) -> Cause {
    if step.request.kind() == Some(Kind::NewTable) {
        unsupported("tables with an owner (Linux 5.12)", cause)
    } else {
        cause
    }
}

fn unsupported(what: &'static str, cause: Cause) -> Cause {
    match cause {
        Cause::Refused { errno: Errno::INVAL, .. } => {
            Cause::Unsupported { what, errno: Errno::INVAL }
        }
        cause => cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table { name: "adit-a".to_owned(), rules: vec![] }
    }

    fn refused(errno: Errno) -> Cause {
        Cause::Refused { errno, says: None }
    }

    #[test]
    fn a_refusal_names_the_step_or_the_whole() {
        let device = "adit0".to_owned();
        let table = Table { rules: vec![Rule::ForwardAccept { device }], ..table() };
        let says = Some("no such thing".to_owned());
        let cause = Cause::Refused { errno: Errno::OPNOTSUPP, says };
        let steps = table.steps();
        assert_eq!(
            refusal(&table, steps.get(2), cause.clone()).to_string(),
            "nftables: add rule inet adit-a forward iifname \"adit0\" accept: \
             Operation not supported (os error 95): kernel says \"no such thing\""
        );
        assert_eq!(refusal(&table, None, cause).operation(), "nftables: install table inet adit-a");
    }

    #[test]
    fn a_kernel_that_does_not_know_owners_is_told_apart() {
        let [add] = table().steps().try_into().unwrap();
        let error = refusal(&table(), Some(&add), refused(Errno::INVAL));
        assert!(error.is_unsupported());
        assert_eq!(
            error.to_string(),
            "nftables: add table inet adit-a: the kernel has no tables with an owner \
             (Linux 5.12): Invalid argument (os error 22)"
        );
        assert_eq!(without_owner(&add, refused(Errno::PERM)), refused(Errno::PERM));
        let delete = table().delete_table();
        assert_eq!(without_owner(&delete, refused(Errno::INVAL)), refused(Errno::INVAL));
    }

    #[test]
    fn a_kernel_without_nf_tables_or_a_module_can_be_asked_for() {
        for errno in [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::NOENT] {
            assert!(Error::new("x", refused(errno)).is_unsupported(), "{errno}");
        }
        assert!(Error::new("x", without_nf_tables(refused(Errno::INVAL))).is_unsupported());
        assert!(!Error::new("x", refused(Errno::INVAL)).is_unsupported());
        assert!(!Error::new("x", refused(Errno::PERM)).is_unsupported());
    }

    #[test]
    fn a_transaction_is_the_steps_between_brackets() {
        let types: Vec<_> = bracketed(Request::begin(), &table().steps())
            .iter()
            .map(|(request, _)| request.kind())
            .collect();
        assert_eq!(types, [None, Some(Kind::NewTable), None]);
    }
}
