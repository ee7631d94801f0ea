//! Names of the domain name system.

use super::error::Quoted;

/// The longest name, in octets, without a final dot (RFC 1035, section 2.3.4).
const MAX_NAME_LENGTH: usize = 253;

/// The longest label of a name, in octets (RFC 1035, section 2.3.4).
const MAX_LABEL_LENGTH: usize = 63;

/// A text that names no domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a domain name such as \"example.com\"", Quoted(.0))]
pub(super) struct DomainError(String);

/// Reads the name of a domain, of which capitals and a final dot say nothing.
pub(super) fn parse_domain(text: &str) -> Result<String, DomainError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    match is_domain_name(name) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(DomainError(text.to_owned())),
    }
}

/// Whether `name` is made of labels as hosts have them (RFC 1123, section 2.1). Underscores pass,
/// since they are in use.
pub(super) fn is_domain_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LENGTH && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
    (1..=MAX_LABEL_LENGTH).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_loses_its_capitals_and_its_final_dot() {
        assert_eq!(parse_domain("Home.Example."), Ok("home.example".to_owned()));
        assert_eq!(parse_domain("lan"), Ok("lan".to_owned()));
        assert_eq!(parse_domain("_dmarc.2.example"), Ok("_dmarc.2.example".to_owned()));
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for text in
            ["", ".", "a..b", ".a", "-a.b", "a-.b", "a b", "a/b", "ä.example", "~.", "a.b.."]
        {
            assert_eq!(
                parse_domain(text).unwrap_err().to_string(),
                format!("{text:?} is not a domain name such as \"example.com\"")
            );
        }
    }

    #[test]
    fn a_name_is_as_long_as_the_domain_name_system_allows() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert!(is_domain_name(&longest));
        assert!(!is_domain_name(&format!("{longest}a")));
        assert!(!is_domain_name(&"a".repeat(64)));
    }
}
