//! Which peer owns an inner address.
//!
//! # Theory of operation
//!
//! A peer owns prefixes; an address belongs to the owner of the longest prefix that contains it
//! (WireGuard's cryptokey routing). The table is read for every packet and changed almost never, so
//! it is built once and then immutable: the prefixes are laid out as disjoint ranges, sorted by
//! their first address, each with the owner of its longest prefix. A lookup is one binary search.
//!
//! Prefixes nest or are disjoint, they never overlap in part. So one pass over them, sorted by first
//! address with the shorter prefix first, and a stack of those that are still open, yields the ranges.
//! At most two ranges come of one prefix.

use std::net::IpAddr;

use ipnet::IpNet;

/// An immutable map from addresses to owners, by longest prefix.
#[derive(Clone, Debug)]
pub struct AllowedIps<T> {
    v4: Ranges<u32, T>,
    v6: Ranges<u128, T>,
}

impl<T: Copy + PartialEq> AllowedIps<T> {
    /// Builds the table; of two equal prefixes the last one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, owner) in prefixes {
            match prefix.trunc() {
                IpNet::V4(net) => {
                    v4.push((net.network().to_bits(), net.broadcast().to_bits(), owner));
                }
                IpNet::V6(net) => {
                    v6.push((net.network().to_bits(), net.broadcast().to_bits(), owner));
                }
            }
        }
        Self {
            v4: Ranges::new(v4, |last| last.checked_add(1)),
            v6: Ranges::new(v6, |last| last.checked_add(1)),
        }
    }

    /// The owner of `address`, if a prefix contains it.
    #[inline]
    pub fn owner(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(address) => self.v4.owner(address.to_bits()),
            IpAddr::V6(address) => self.v6.owner(address.to_bits()),
        }
    }

    /// The only owner, if every address of both families belongs to the same one.
    pub fn sole_owner(&self) -> Option<T> {
        match (&*self.v4.owners, &*self.v6.owners) {
            (&[Some(v4)], &[Some(v6)]) if v4 == v6 => Some(v4),
            _ => None,
        }
    }
}

/// Disjoint ranges that cover all addresses: range `i` is `starts[i]..starts[i + 1]`.
///
/// Invariant: both vectors have the same length, at least 1, and `starts` is strictly ascending from zero.
#[derive(Clone, Debug)]
struct Ranges<A, T> {
    starts: Vec<A>,
    owners: Vec<Option<T>>,
}

impl<A: Copy + Ord + Default, T: Copy + PartialEq> Ranges<A, T> {
    /// Lays out `(first, last, owner)`; `after` is the address behind one, or none behind the last of all.
    fn new(mut prefixes: Vec<(A, A, T)>, after: impl Fn(A) -> Option<A>) -> Self {
        // Stable, so that of equal prefixes the last one comes last, and wins.
        prefixes.sort_by_key(|&(first, last, _)| (first, std::cmp::Reverse(last)));
        let mut ranges = Self { starts: vec![A::default()], owners: vec![None] };
        let mut open: Vec<(A, T)> = Vec::new();
        for (first, last, owner) in prefixes {
            ranges.close(&mut open, |end| end < first, &after);
            open.push((last, owner));
            ranges.start(first, Some(owner));
        }
        ranges.close(&mut open, |_| true, &after);
        ranges
    }

    /// Ends the innermost open prefixes that are `done`; what encloses them goes on behind them.
    fn close(
        &mut self,
        open: &mut Vec<(A, T)>,
        done: impl Fn(A) -> bool,
        after: impl Fn(A) -> Option<A>,
    ) {
        while let Some((last, _)) = open.pop_if(|&mut (last, _)| done(last)) {
            if let Some(next) = after(last) {
                self.start(next, open.last().map(|&(_, owner)| owner));
            }
        }
    }

    /// From `first` on, addresses belong to `owner`.
    fn start(&mut self, first: A, owner: Option<T>) {
        if self.starts.last() == Some(&first) {
            self.starts.pop();
            self.owners.pop();
        }
        if self.owners.last() != Some(&owner) {
            self.starts.push(first);
            self.owners.push(owner);
        }
    }

    #[inline]
    fn owner(&self, address: A) -> Option<T> {
        // The first range starts at zero, so at least one start is not above the address.
        let range = self.starts.partition_point(|&start| start <= address) - 1;
        self.owners[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(prefixes: &[(&str, u16)]) -> AllowedIps<u16> {
        AllowedIps::new(prefixes.iter().map(|&(prefix, owner)| (prefix.parse().unwrap(), owner)))
    }

    fn owner(table: &AllowedIps<u16>, address: &str) -> Option<u16> {
        table.owner(address.parse().unwrap())
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table =
            table(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3/32", 3), ("fd00::/8", 4)]);
        assert_eq!(owner(&table, "10.0.0.1"), Some(1));
        assert_eq!(owner(&table, "10.1.0.1"), Some(2));
        assert_eq!(owner(&table, "10.1.2.3"), Some(3));
        assert_eq!(owner(&table, "10.1.2.4"), Some(2));
        assert_eq!(owner(&table, "10.2.0.0"), Some(1));
        assert_eq!(owner(&table, "11.0.0.0"), None);
        assert_eq!(owner(&table, "fd12::1"), Some(4));
        assert_eq!(owner(&table, "fe80::1"), None);
    }

    #[test]
    fn the_last_of_equal_prefixes_wins() {
        let table = table(&[("10.0.0.0/8", 1), ("10.0.0.0/8", 2)]);
        assert_eq!(owner(&table, "10.0.0.0"), Some(2));
        assert_eq!(owner(&table, "10.255.255.255"), Some(2));
        assert_eq!(owner(&table, "11.0.0.0"), None);
    }

    #[test]
    fn an_empty_table_owns_nothing() {
        assert_eq!(owner(&table(&[]), "0.0.0.0"), None);
        assert_eq!(owner(&table(&[]), "::"), None);
    }

    #[test]
    fn default_routes_have_a_sole_owner() {
        assert_eq!(table(&[("0.0.0.0/0", 7), ("::/0", 7)]).sole_owner(), Some(7));
        assert_eq!(table(&[("0.0.0.0/0", 7)]).sole_owner(), None);
        assert_eq!(table(&[("0.0.0.0/0", 7), ("::/0", 8)]).sole_owner(), None);
    }

    #[test]
    fn halves_of_the_address_space_reach_its_ends() {
        let table = table(&[("0.0.0.0/1", 1), ("128.0.0.0/1", 2), ("::/1", 3), ("8000::/1", 4)]);
        assert_eq!(owner(&table, "127.255.255.255"), Some(1));
        assert_eq!(owner(&table, "255.255.255.255"), Some(2));
        assert_eq!(owner(&table, "::"), Some(3));
        assert_eq!(owner(&table, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some(4));
    }

    /// Prefixes and addresses crowded into a few octets, so that they nest and touch.
    fn crowded() -> impl Strategy<Value = (Vec<(IpNet, u16)>, Vec<IpAddr>)> {
        let v4 = |bits: u16| IpAddr::from([10, 0, bits.to_be_bytes()[0], bits.to_be_bytes()[1]]);
        let v6 = |bits: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, bits]);
        let address = (any::<bool>(), any::<u16>())
            .prop_map(move |(four, bits)| if four { v4(bits) } else { v6(bits) });
        let prefix = (address.clone(), 0_u8..=18, any::<u16>()).prop_map(|(address, up, owner)| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let length = if up == 18 { 0 } else { longest - up };
            (IpNet::new(address, length).unwrap().trunc(), owner)
        });
        (prop::collection::vec(prefix, 0..40), prop::collection::vec(address, 1..60))
    }

    proptest! {
        #[test]
        fn lookups_agree_with_a_scan((prefixes, addresses) in crowded()) {
            let table = AllowedIps::new(prefixes.iter().copied());
            for address in addresses {
                let scan = prefixes
                    .iter()
                    .filter(|(prefix, _)| prefix.contains(&address))
                    .max_by_key(|(prefix, _)| prefix.prefix_len())
                    .map(|&(_, owner)| owner);
                prop_assert_eq!(table.owner(address), scan);
            }
        }
    }
}
