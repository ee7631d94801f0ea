//! The text of resolv.conf(5).
//!
//! A keyword begins a line and is followed by blanks; what else there is means nothing to the resolver.
//! Any octets can be parsed.

use std::net::IpAddr;

use super::Names;

/// How many servers the resolver asks (`MAXNS` in resolv.h).
pub(super) const SERVERS_MOST: usize = 3;

/// What a plan looks at in a file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Conf {
    /// The servers, without those that are no addresses.
    pub(super) servers: Vec<IpAddr>,
    /// The options, each once.
    pub(super) options: Vec<String>,
}

impl Conf {
    pub(super) fn parse(contents: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in contents.split(|&octet| octet == b'\n') {
            // A line that is not UTF-8 holds neither addresses nor options.
            let Ok(line) = str::from_utf8(line) else { continue };
            conf.take(line);
        }
        conf
    }

    fn take(&mut self, line: &str) {
        match line.split_once([' ', '\t']) {
            Some(("nameserver", rest)) => {
                let server = rest.split_ascii_whitespace().next();
                self.servers.extend(server.and_then(|server| server.parse::<IpAddr>().ok()));
            }
            Some(("options", rest)) => {
                for option in rest.split_ascii_whitespace().filter(|option| is_option(option)) {
                    if !self.options.iter().any(|known| known == option) {
                        self.options.push(option.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
}

/// The file that names these servers and domains, with the options of the former one; what was there
/// before is kept [elsewhere](super::record).
pub(super) fn emit(names: &Names, (tunnel, device): (&str, &str), options: &[String]) -> String {
    let mut text = format!(
        "# Written by adit for tunnel {tunnel}, device {device}. What was here before is kept below;\n\
         # \"adit down {tunnel}\" brings it back.\n"
    );
    if !names.domains.is_empty() {
        text += &format!("search {}\n", names.domains.join(" "));
    }
    for server in &names.servers {
        text += &format!("nameserver {server}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

fn is_option(word: &str) -> bool {
    word.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_:.".contains(&octet))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(servers: &[&str], domains: &[&str]) -> Names {
        Names {
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        }
    }

    #[test]
    fn keywords_count_at_the_beginning_of_a_line_only() {
        let conf = Conf::parse(
            b"# nameserver 1.1.1.1\n nameserver 2.2.2.2\nnameserver\t3.3.3.3 x\nnameserver fd00::1\r\n\
              nameserver4.4.4.4\nnameserver nobody\nsearch lan\noptions edns0 ndots:2\noptions edns0 $(x)",
        );
        let servers: Vec<IpAddr> = vec!["3.3.3.3".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(conf.servers, servers);
        assert_eq!(conf.options, ["edns0", "ndots:2"]);
    }

    #[test]
    fn no_more_servers_are_asked_than_a_resolver_asks() {
        let lines: String = (1..=5).map(|number| format!("nameserver 10.0.0.{number}\n")).collect();
        let wanted: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|server| server.parse().unwrap()).into();
        assert_eq!(crate::resolver::servers(lines.as_bytes()), wanted);
        assert!(crate::resolver::servers(b"").is_empty());
    }

    #[test]
    fn a_file_says_who_wrote_it_and_what_to_ask() {
        assert_eq!(
            emit(&names(&["10.9.0.53"], &["lan", "example.org"]), ("home", "adit0"), &[]),
            "# Written by adit for tunnel home, device adit0. What was here before is kept below;\n\
             # \"adit down home\" brings it back.\n\
             search lan example.org\nnameserver 10.9.0.53\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_kept_of_any_octets_is_kept_again(contents: Vec<u8>, options in "(options [ -~]{0,30}\n){0,3}") {
            let contents = [contents, b"\n".to_vec(), options.into_bytes()].concat();
            let kept = Conf::parse(&contents).options;
            let text = emit(&names(&["10.9.0.53", "fd00::53"], &["lan"]), ("home", "adit0"), &kept);
            let again = Conf::parse(text.as_bytes());
            prop_assert_eq!(&again.options, &kept);
            prop_assert_eq!(again.servers.len(), 2);
            prop_assert!(text.is_ascii());
        }
    }
}
