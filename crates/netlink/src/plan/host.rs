//! The host that plans are made for and applied to.

use crate::nftables::{self, BaseChain, Family, Hook, OwnedTable, Policy};
use crate::{Error, Socket};

use super::{
    Actual, ChangeError, Desired, DroppingChain, Families, Filter, Operation, Reverted, Undo,
};
use super::{change, read};

/// The host's network as something to read and to change.
///
/// It is that of the calling thread's namespace, which has to be the same in all calls. The packet
/// filter is looked at only if a desired state or a step has to do with it: everything else works
/// where there is none. The tunnel's table is in force as long as this exists.
#[derive(Debug)]
pub struct Host {
    socket: Socket,
    /// Opened when first needed.
    filter: Option<nftables::Socket>,
    table: Option<OwnedTable>,
}

impl Host {
    /// Opens the calling thread's namespace.
    pub fn open() -> Result<Self, ChangeError> {
        Ok(Self { socket: Socket::open()?, filter: None, table: None })
    }

    /// The socket to links, addresses and routes.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Reads all that a plan for `desired` depends on. `applied` is what the journal holds of this
    /// tunnel: the steps that were applied and not taken back.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NoFilter`] if `desired` needs the packet filter and the kernel has none.
    pub fn read(&mut self, desired: &Desired, applied: &[Undo]) -> Result<Actual, ChangeError> {
        let filter = if desired.needs_filter() {
            match self.read_filter(&desired.device) {
                Err(error) if error.is_not_permitted() => {
                    Filter { hidden: true, ..Filter::default() }
                }
                result => result?,
            }
        } else {
            Filter::default()
        };
        Ok(Actual { filter, applied: applied.to_vec(), ..read::actual(&mut self.socket, desired)? })
    }

    /// Applies one operation.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), ChangeError> {
        match operation {
            Operation::InstallTable { table } => match &mut self.table {
                Some(owned) => owned.replace(table)?,
                none => *none = Some(nftables::Socket::open()?.install(table)?),
            },
            Operation::AcceptForward { chain, device } => {
                self.filter()?.accept_forward(chain, device)?;
            }
            other => change::apply(&mut self.socket, other)?,
        }
        Ok(())
    }

    /// Takes one operation back, if what it left is still there.
    pub fn revert(&mut self, undo: &Undo) -> Result<Reverted, ChangeError> {
        if let Undo::AcceptForward { chain, device } = undo {
            // Of two rules, one may be left.
            let withdrawn = self.filter()?.withdraw_forward(chain, device)?;
            return Ok(if withdrawn { Reverted::Done } else { Reverted::NotThere });
        }
        change::revert(&mut self.socket, undo)
    }

    fn filter(&mut self) -> Result<&mut nftables::Socket, Error> {
        if self.filter.is_none() {
            self.filter = Some(nftables::Socket::open()?);
        }
        Ok(self.filter.as_mut().expect("it was opened above"))
    }

    fn read_filter(&mut self, device: &str) -> Result<Filter, ChangeError> {
        let in_force = self.table.as_ref().map(|owned| owned.table().clone());
        let name = in_force.as_ref().map(|table| table.name.clone());
        let ours = |family, table: &String| family == Family::Inet && name.as_ref() == Some(table);
        let socket = self.filter().map_err(needed)?;
        let mut foreign = socket.tables().map_err(needed)?;
        foreign.retain(|table| !ours(table.family, &table.name));
        let chains = socket.base_chains().map_err(needed)?;
        let mut dropping = Vec::new();
        for chain in
            chains.iter().filter(|chain| forwards(chain) && !ours(chain.family, &chain.table))
        {
            if !drops(socket, chain)? {
                continue;
            }
            let owned = foreign.iter().any(|table| {
                (table.family, &table.name) == (chain.family, &chain.table) && table.owner
            });
            let chain = chain.id();
            let accepts = !owned && socket.accepts_forward(&chain, device)?;
            dropping.push(DroppingChain { chain, owned, accepts });
        }
        let (v4, v6) = nftables::legacy_filter();
        Ok(Filter { in_force, foreign, dropping, legacy: Families { v4, v6 }, hidden: false })
    }
}

/// Whether a chain drops what no rule accepts, by its policy or by its last rule.
fn drops(socket: &mut nftables::Socket, chain: &BaseChain) -> Result<bool, Error> {
    if chain.policy == Policy::Drop {
        return Ok(true);
    }
    socket.ends_in_drop(&chain.id())
}

/// Whether packets that are forwarded come to a chain.
fn forwards(chain: &BaseChain) -> bool {
    chain.hook == Hook::Forward
        && matches!(chain.family, Family::Inet | Family::Ipv4 | Family::Ipv6)
}

/// What it means that the packet filter cannot be listed.
fn needed(error: Error) -> ChangeError {
    if error.is_unsupported() { ChangeError::NoFilter { source: error } } else { error.into() }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use rustix::io::Errno;

    use super::*;
    use crate::Cause;

    #[test]
    fn a_kernel_without_a_packet_filter_is_told_in_so_many_words() {
        let refused = |errno| {
            let cause = Cause::Refused { errno, says: None };
            needed(Error::new("nftables: list tables", cause))
        };
        let error = refused(Errno::OPNOTSUPP);
        assert_eq!(error.to_string(), "forwarding and the translation of addresses need nf_tables");
        assert_eq!(
            error.source().unwrap().to_string(),
            "nftables: list tables: Operation not supported (os error 95)"
        );
        assert!(matches!(refused(Errno::PERM), ChangeError::Netlink(_)));
    }
}
