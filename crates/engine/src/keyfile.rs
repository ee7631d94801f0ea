//! Files that hold one secret key.
//!
//! A key file is the text of `wg genkey` or `wg genpsk`: 44 characters of base64, and white space after them.
//! It is a regular file of at most [`MAX_LENGTH`] octets; a symbolic link to one will do.
//!
//! A secret that everybody may read is none, and one that everybody may write is somebody else's: such a file is
//! refused. A group may be meant to have it, so that a file that its group may read or write is only told of
//! ([`Exposed`]), unless that group is root's. Nothing of a file's text becomes part of an error.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proto::key::{KeyError, PresharedKey, PrivateKey};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use zeroize::Zeroizing;

use crate::config::KeySource;
use crate::regular_file;

/// The most octets of a file with a key.
pub const MAX_LENGTH: usize = 4096;

/// The group of root, whose members may see everything in any case.
const ROOT_GROUP: u32 = 0;

/// Bits of a mode that let a group read or write.
const GROUP: u32 = 0o060;

/// Bits of a mode that let everybody read or write.
const EVERYBODY: u32 = 0o006;

/// A key file that others than its owner may read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, mode } = self;
        write!(f, "key file {}: its mode {mode:04o} lets its group at it", path.display())
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file could not be opened or read.
    #[error("read key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is a directory, a device or a pipe where a file should be.
    #[error("read key file {}: it is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Everybody may read or write the file.
    #[error("read key file {}: its mode {mode:04o} lets everybody at it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("read key file {}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with its text.
        source: KeyTextError,
    },
}

/// What a text is that is not one key, without a word of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// There are only white space characters, or none.
    #[error("it is empty")]
    Empty,
    /// There are more octets than [`MAX_LENGTH`].
    #[error("it has more than {MAX_LENGTH} octets")]
    TooLong,
    /// Another line follows the first.
    #[error("it has more than one line")]
    SeveralLines,
    /// The line is no key.
    #[error("its {count} characters are no key")]
    Key {
        /// How many characters the line has, white space at its end aside; octets that are not UTF-8 count as one each.
        count: usize,
        /// What a key is.
        source: KeyError,
    },
}

/// Who may read or write a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Its owner, and root.
    Owner,
    /// Its group as well.
    Group,
    /// All users of the machine.
    Everybody,
}

/// Who may read or write a file of this mode and group.
pub(crate) fn access(mode: u32, group: u32) -> Access {
    if mode & EVERYBODY != 0 {
        Access::Everybody
    } else if mode & GROUP != 0 && group != ROOT_GROUP {
        Access::Group
    } else {
        Access::Owner
    }
}

/// The private key that a configuration names, and its file if that should have another mode.
///
/// # Errors
///
/// See [`KeyFileError`].
pub fn read_private(
    source: &KeySource<PrivateKey>,
) -> Result<(PrivateKey, Option<Exposed>), KeyFileError> {
    read(source)
}

/// The preshared key that a configuration names, and its file if that should have another mode.
///
/// # Errors
///
/// See [`KeyFileError`].
pub fn read_preshared(
    source: &KeySource<PresharedKey>,
) -> Result<(PresharedKey, Option<Exposed>), KeyFileError> {
    read(source)
}

/// From here on this process leaves no core file, and other processes of its user cannot trace it
/// (`PR_SET_DUMPABLE` of prctl(2)); called before the first key is read.
pub fn guard_memory() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("the keys in memory may end up in a core file: {error}");
    }
}

/// Reads one key from the octets of a file or a pipe.
///
/// # Errors
///
/// See [`KeyTextError`].
pub fn parse<K: FromStr<Err = KeyError>>(octets: &[u8]) -> Result<K, KeyTextError> {
    if octets.len() > MAX_LENGTH {
        return Err(KeyTextError::TooLong);
    }
    let line = octets.trim_ascii_end();
    if line.is_empty() {
        return Err(KeyTextError::Empty);
    }
    if line.contains(&b'\n') {
        return Err(KeyTextError::SeveralLines);
    }
    let key = std::str::from_utf8(line).map_err(|_| KeyError).and_then(str::parse);
    key.map_err(|source| KeyTextError::Key { count: count(line), source })
}

/// What a file with the text of a key has in it; overwritten before its memory is given back.
pub(crate) fn contents(text: &str) -> Zeroizing<Vec<u8>> {
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    octets.extend_from_slice(text.as_bytes());
    octets.push(b'\n');
    octets
}

fn read<K: FromStr<Err = KeyError> + Clone>(
    source: &KeySource<K>,
) -> Result<(K, Option<Exposed>), KeyFileError> {
    match source {
        KeySource::Inline(key) => Ok((key.clone(), None)),
        KeySource::File(path) => read_file(path),
    }
}

fn read_file<K: FromStr<Err = KeyError>>(
    path: &Path,
) -> Result<(K, Option<Exposed>), KeyFileError> {
    let path = path.to_owned();
    let contents = match regular_file::read(&path, MAX_LENGTH) {
        Ok(Some(contents)) => contents,
        Ok(None) => return Err(KeyFileError::NotAFile { path }),
        Err(source) => return Err(KeyFileError::Read { path, source }),
    };
    let mode = contents.mode;
    let exposed = match access(mode, contents.group) {
        Access::Owner => None,
        Access::Group => Some(Exposed { path: path.clone(), mode }),
        Access::Everybody => return Err(KeyFileError::Exposed { path, mode }),
    };
    let key = parse(&contents.octets).map_err(|source| KeyFileError::Text { path, source })?;
    Ok((key, exposed))
}

/// The characters of a line, of which octets that are not UTF-8 are one each.
fn count(line: &[u8]) -> usize {
    let chunk =
        |chunk: std::str::Utf8Chunk<'_>| chunk.valid().chars().count() + chunk.invalid().len();
    line.utf8_chunks().map(chunk).sum()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const TEXT: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    /// A directory of one test, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("adit-key-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A file with a text and a mode.
        fn file(&self, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
            let path = self.0.join("home.key");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }

        /// What reading `path` says, without the directory's name.
        fn refusal(&self, path: &Path) -> String {
            let error = read_private(&KeySource::File(path.to_owned())).unwrap_err();
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            text.replace(&format!("{}/", self.0.display()), "")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_key_is_read_from_its_file_or_was_inline() {
        let directory = Directory::new("read");
        for text in
            [TEXT.to_owned(), format!("{TEXT}\n"), format!("{TEXT}\r\n"), format!("{TEXT} \n\n")]
        {
            let path = directory.file(text, 0o600);
            let (key, exposed) = read_private(&KeySource::File(path.clone())).unwrap();
            assert_eq!(*key.to_text(), TEXT);
            assert_eq!(exposed, None);
            let link = directory.0.join("link");
            symlink(&path, &link).unwrap();
            assert_eq!(*read_preshared(&KeySource::File(link.clone())).unwrap().0.to_text(), TEXT);
            fs::remove_file(link).unwrap();
        }
        let inline = KeySource::Inline(TEXT.parse().unwrap());
        assert_eq!(*read_preshared(&inline).unwrap().0.to_text(), TEXT);
    }

    #[test]
    fn a_key_that_everybody_may_read_or_write_is_refused() {
        let directory = Directory::new("everybody");
        for mode in [0o644, 0o604, 0o602] {
            assert_eq!(
                directory.refusal(&directory.file(TEXT, mode)),
                format!("read key file home.key: its mode {mode:04o} lets everybody at it")
            );
        }
    }

    #[test]
    fn a_key_that_a_group_may_read_is_told_of_unless_it_is_roots() {
        assert_eq!(access(0o640, 1), Access::Group);
        assert_eq!(access(0o620, 1), Access::Group);
        assert_eq!(access(0o610, 1), Access::Owner);
        assert_eq!(access(0o640, 0), Access::Owner);
        assert_eq!(access(0o700, 1), Access::Owner);
        assert_eq!(access(0o664, 0), Access::Everybody);
        let directory = Directory::new("group");
        let path = directory.file(TEXT, 0o640);
        if chown(&path, None, Some(1)).is_ok() {
            let (_, exposed) = read_private(&KeySource::File(path)).unwrap();
            let text = exposed.unwrap().to_string();
            assert!(text.ends_with("home.key: its mode 0640 lets its group at it"), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_its_text() {
        let directory = Directory::new("text");
        let key = "a key is 44 characters of base64, of which the last is \"=\"";
        for (text, message) in [
            (String::new(), "it is empty".to_owned()),
            (" \n\n".to_owned(), "it is empty".to_owned()),
            (TEXT[..43].to_owned(), format!("its 43 characters are no key: {key}")),
            (format!("{TEXT}="), format!("its 45 characters are no key: {key}")),
            (format!(" {TEXT}"), format!("its 45 characters are no key: {key}")),
            (format!("{TEXT}\n{TEXT}"), "it has more than one line".to_owned()),
            (format!("# key\n{TEXT}"), "it has more than one line".to_owned()),
            ("x".repeat(4097), "it has more than 4096 octets".to_owned()),
            ("ä".repeat(22), format!("its 22 characters are no key: {key}")),
        ] {
            let refusal = directory.refusal(&directory.file(&text, 0o600));
            assert_eq!(refusal, format!("read key file home.key: {message}"));
        }
        let refusal = directory.refusal(&directory.file(b"a\xff\xfe", 0o600));
        assert_eq!(refusal, format!("read key file home.key: its 3 characters are no key: {key}"));
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let directory = Directory::new("regular");
        let fifo = directory.0.join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(directory.refusal(&fifo), "read key file fifo: it is not a regular file");
        assert_eq!(
            directory.refusal(&directory.0.join("none")),
            "read key file none: No such file or directory (os error 2)"
        );
    }
}
