//! Names of interfaces, checked before the kernel sees them.

use std::fmt;
use std::str::FromStr;

/// The most octets in an interface name: `IFNAMSIZ` without the final NUL (Linux `uapi/linux/if.h`).
///
/// The tun driver cuts longer names silently, so that two devices could become one.
pub const MAX_NAME: usize = 15;

/// The name of an interface that the kernel will take as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(Box<str>);

impl DeviceName {
    /// Checks `name` by the rules of the kernel (`dev_valid_name` in Linux `net/core/dev.c`):
    /// 1 to 15 octets, not `.` or `..`, no slash, colon or white space.
    ///
    /// Control characters, which the kernel would take, and `%`, which it would replace, are
    /// refused too; see [`DeviceName::pattern`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.contains('%') {
            return Err(NameError::Character { name: name.into(), character: '%' });
        }
        check(name)?;
        Ok(Self(name.into()))
    }

    /// Checks a pattern such as `tun%d`, in which the kernel replaces the one `%d` by the lowest
    /// number that makes a name not yet in use.
    ///
    /// Only a device that is created can have such a name; its real one is [`Device::name`].
    ///
    /// [`Device::name`]: crate::Device::name
    pub fn pattern(pattern: &str) -> Result<Self, NameError> {
        check(pattern)?;
        let mut parts = pattern.split('%');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(rest), None) if rest.starts_with('d') => Ok(Self(pattern.into())),
            _ => Err(NameError::Pattern { name: pattern.into() }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the kernel is to choose a number; see [`DeviceName::pattern`].
    pub fn is_pattern(&self) -> bool {
        self.0.contains('%')
    }
}

impl FromStr for DeviceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

impl AsRef<str> for DeviceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no name of an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no character in it.
    #[error("interface name is empty")]
    Empty,
    /// It has more than [`MAX_NAME`] octets.
    #[error("interface name {name:?} has {} octets; the kernel allows {MAX_NAME}", name.len())]
    TooLong {
        /// What was given.
        name: Box<str>,
    },
    /// It is `.` or `..`, which are directories in `/sys/class/net`.
    #[error("interface name {name:?} is reserved")]
    Reserved {
        /// What was given.
        name: Box<str>,
    },
    /// The kernel does not allow or would replace a character.
    #[error("interface name {name:?} contains {character:?}, which is not allowed")]
    Character {
        /// What was given.
        name: Box<str>,
        /// The first character that is not allowed.
        character: char,
    },
    /// A pattern has no `%d`, or more than one `%`.
    #[error("interface name pattern {name:?} does not contain exactly one \"%d\"")]
    Pattern {
        /// What was given.
        name: Box<str>,
    },
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong { name: name.into() });
    }
    if matches!(name, "." | "..") {
        return Err(NameError::Reserved { name: name.into() });
    }
    match name.chars().find(|&c| is_forbidden(c)) {
        Some(character) => Err(NameError::Character { name: name.into(), character }),
        None => Ok(()),
    }
}

/// The kernel looks at octets and its `isspace` holds for 0xa0, so a character whose UTF-8 form
/// has that octet is forbidden (Linux `lib/ctype.c`).
fn is_forbidden(character: char) -> bool {
    let mut utf8 = [0; 4];
    matches!(character, '/' | ':' | ' ')
        || character.is_control()
        || character.encode_utf8(&mut utf8).bytes().any(|octet| octet == 0xa0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_taken() {
        for name in ["t", "tun0", "adit-home.1", "ABCDEFGHIJKLMNO", "büro"] {
            assert_eq!(DeviceName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_long_name_is_refused_with_its_length() {
        let error = DeviceName::parse("verylonginterface0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface name \"verylonginterface0\" has 18 octets; the kernel allows 15"
        );
        assert!(DeviceName::parse("ABCDEFGHIJKLMNOP").is_err());
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "a:1", "a\tb", "a\nb", "a\0b", "voil\u{e0}"] {
            assert!(DeviceName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn control_characters_are_shown_escaped() {
        assert_eq!(
            DeviceName::parse("a\u{1b}b").unwrap_err().to_string(),
            "interface name \"a\\u{1b}b\" contains '\\u{1b}', which is not allowed"
        );
    }

    #[test]
    fn a_pattern_must_be_asked_for() {
        assert_eq!(
            DeviceName::parse("tun%d"),
            Err(NameError::Character { name: "tun%d".into(), character: '%' })
        );
        assert!(DeviceName::pattern("tun%d").unwrap().is_pattern());
        for pattern in ["tun", "tun%", "tun%s", "%d%d", "%%d", "verylongname%d00"] {
            assert!(DeviceName::pattern(pattern).is_err(), "{pattern:?}");
        }
    }
}
