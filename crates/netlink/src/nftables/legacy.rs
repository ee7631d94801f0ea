//! Whether the kernel has tables of legacy iptables, which nf_tables cannot show.

use std::fs::File;
use std::io::{self, Read as _};

/// The names of the tables of legacy iptables and ip6tables in the calling thread's namespace, one a
/// line (`xt_proto_init` in net/netfilter/x_tables.c). A thread may have left the namespace of its
/// process, so `/proc/net` would be wrong.
const IPV4_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const IPV6_TABLES: &str = "/proc/thread-self/net/ip6_tables_names";

/// The most octets that are read of a list. There are six tables of at most 32 octets.
const LIST_LIMIT: u64 = 4096;

/// Whether legacy iptables has its table `filter` in the calling thread's namespace: for IPv4 and
/// for IPv6.
///
/// What it drops, [`super::Socket::base_chains`] does not show and [`super::Socket::accept_forward`]
/// does not save. A list that cannot be read counts as one without that table: kernels without
/// legacy tables have none, and only root may read it.
pub fn legacy_filter() -> (bool, bool) {
    let has_filter = |path| read(path).is_ok_and(|tables| lists_filter(&tables));
    (has_filter(IPV4_TABLES), has_filter(IPV6_TABLES))
}

fn read(path: &str) -> io::Result<String> {
    let mut tables = String::new();
    File::open(path)?.take(LIST_LIMIT).read_to_string(&mut tables)?;
    Ok(tables)
}

fn lists_filter(tables: &str) -> bool {
    tables.lines().any(|table| table == "filter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_of_that_very_name_counts() {
        assert!(lists_filter("nat\nfilter\n"));
        assert!(lists_filter("filter"));
        assert!(!lists_filter(""));
        assert!(!lists_filter("nat\nmangle\nfilter2\n"));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error_of_the_reader_only() {
        assert!(read("/proc/thread-self/net/no_such_list").is_err());
    }
}
