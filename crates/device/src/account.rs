//! Names of users and groups, as `/etc/passwd` and `/etc/group` have them.
//!
//! Accounts that come from elsewhere (LDAP, systemd-homed) are not seen; their numbers serve. To see
//! them, the C library would load foreign code into the process that holds the privilege.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Octets of an account file that are read.
const MAX_FILE: u64 = 16 << 20;

/// A list of accounts: names with their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts(Vec<(String, u32)>);

impl Accounts {
    /// The users of this machine, from `/etc/passwd` (passwd(5)).
    pub fn users() -> io::Result<Self> {
        Self::read(Path::new("/etc/passwd"))
    }

    /// The groups of this machine, from `/etc/group` (group(5)).
    pub fn groups() -> io::Result<Self> {
        Self::read(Path::new("/etc/group"))
    }

    /// The accounts of a file whose lines start with `NAME:PASSWORD:NUMBER`; other lines are passed
    /// over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(account).collect())
    }

    /// The number of the account `name`, which may also be the number itself.
    ///
    /// The kernel has no account 4294967295; it stands for "none".
    pub fn number(&self, name: &str) -> Option<u32> {
        let named = self.0.iter().find(|(known, _)| known == name).map(|&(_, number)| number);
        named.or_else(|| name.parse().ok()).filter(|&number| number != u32::MAX)
    }

    /// The first name of the account with this number.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.0.iter().find(|&&(_, known)| known == number).map(|(name, _)| name.as_str())
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut octets = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut octets)?;
        Ok(Self::parse(&String::from_utf8_lossy(&octets)))
    }
}

fn account(line: &str) -> Option<(String, u32)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let number = fields.nth(1)?.parse().ok()?;
    Some((name.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        broken:x\n\
        +@netgroup::::::\n\
        7000:x:1001:1001::/:/bin/sh\n\
        ada:x:1000:1000:Ada:/home/ada:/bin/sh\n";

    #[test]
    fn a_name_has_a_number_and_a_number_a_name() {
        let users = Accounts::parse(PASSWD);
        assert_eq!(users.number("ada"), Some(1000));
        assert_eq!(users.name(1000), Some("ada"));
        assert_eq!(users.number("bob"), None);
        assert_eq!(users.name(7), None);
    }

    #[test]
    fn a_number_stands_for_itself_unless_it_is_somebodys_name() {
        let users = Accounts::parse(PASSWD);
        assert_eq!(users.number("1234"), Some(1234));
        assert_eq!(users.number("7000"), Some(1001));
        assert_eq!(users.number("4294967295"), None);
        assert_eq!(users.number("-1"), None);
        assert_eq!(users.number(""), None);
    }

    #[test]
    fn broken_lines_are_passed_over() {
        assert_eq!(Accounts::parse(PASSWD).0.len(), 3);
    }
}
