//! Rules about the text of the sources.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::metadata::{Metadata, Package};
use super::{Violation, code};
use crate::failure::Failure;

/// The most lines of one file.
const MAX_LINES: usize = 1000;

/// The only name of a file with unsafe code.
const SYSTEM_CALLS: &str = "sys.rs";

/// One file, with its path from the root of the repository.
struct Source {
    path: PathBuf,
    text: String,
}

/// Everything wrong with the sources of the workspace's crates, tests and benches included.
pub(super) fn check(metadata: &Metadata, root: &Path) -> Result<Vec<Violation>, Failure> {
    let mut violations = Vec::new();
    for package in metadata.members() {
        let sources = sources_of(package, root)?;
        violations.extend(sources.iter().flat_map(check_source));
        violations.extend(unguarded(package, &sources, root));
    }
    Ok(violations)
}

fn check_source(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    let path = source.path.display();
    let lines = source.text.lines().count();
    if lines > MAX_LINES {
        violations.push(Violation {
            what: format!("{path} has {lines} lines"),
            why: "a file of over 1,000 lines is two files: one noun each",
        });
    }
    if !source.is_system_calls() && code::contains_word(&source.text, "unsafe") {
        violations.push(Violation {
            what: format!("{path} has unsafe code"),
            why: "whoever reviews unsafe code must find all of it: it stands in files named sys.rs",
        });
    }
    violations
}

/// The roots of a package without system calls that do not forbid unsafe code.
fn unguarded(package: &Package, sources: &[Source], root: &Path) -> Vec<Violation> {
    if sources.iter().any(Source::is_system_calls) {
        return Vec::new();
    }
    let roots = package.targets.iter().filter(|target| {
        target.kind.iter().any(|kind| matches!(kind.as_str(), "lib" | "bin" | "proc-macro"))
    });
    roots
        .filter_map(|target| target.src_path.strip_prefix(root).ok())
        .filter_map(|path| sources.iter().find(|source| source.path == path))
        .filter(|source| !source.text.contains("#![forbid(unsafe_code)]"))
        .map(|source| Violation {
            what: format!("{} lacks #![forbid(unsafe_code)]", source.path.display()),
            why: "a crate without system calls has no use for unsafe code",
        })
        .collect()
}

fn sources_of(package: &Package, root: &Path) -> Result<Vec<Source>, Failure> {
    let folder = package.manifest_path.parent().unwrap_or(root);
    let mut sources = Vec::new();
    collect(folder, root, &mut sources)
        .map_err(|error| Failure::of(format!("read sources in {}", folder.display()), error))?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn collect(folder: &Path, root: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, root, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

impl Source {
    fn is_system_calls(&self) -> bool {
        self.path.ends_with(SYSTEM_CALLS)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.to_owned() }
    }

    fn whats(violations: Vec<Violation>) -> Vec<String> {
        violations.into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn unsafe_code_stands_in_files_named_sys() {
        let text = "unsafe { ioctl() }";
        assert!(check_source(&source("crates/device/src/sys.rs", text)).is_empty());
        assert_eq!(
            whats(check_source(&source("crates/device/src/queue.rs", text))),
            ["crates/device/src/queue.rs has unsafe code"]
        );
    }

    #[test]
    fn a_thousand_lines_are_enough() {
        let text = "\n".repeat(MAX_LINES);
        assert!(check_source(&source("a.rs", &text)).is_empty());
        assert_eq!(
            whats(check_source(&source("a.rs", &format!("{text}\n")))),
            ["a.rs has 1001 lines"]
        );
    }

    #[test]
    fn a_crate_without_system_calls_forbids_unsafe_code() {
        let package: Package = serde_json::from_value(json!({
            "id": "adit-wire",
            "name": "adit-wire",
            "version": "0.1.0",
            "license": null,
            "manifest_path": "/house/wire/Cargo.toml",
            "dependencies": [],
            "targets": [
                { "kind": ["lib"], "src_path": "/house/wire/src/lib.rs" },
                { "kind": ["test"], "src_path": "/house/wire/tests/all.rs" },
            ],
        }))
        .unwrap();
        let check = |sources: &[Source]| whats(unguarded(&package, sources, Path::new("/house")));
        let test = || source("wire/tests/all.rs", "");
        let guarded = source("wire/src/lib.rs", "//! Octets.\n#![forbid(unsafe_code)]\n");
        assert!(check(&[guarded, test()]).is_empty());
        let bare = || source("wire/src/lib.rs", "//! Octets.\n");
        assert_eq!(check(&[bare(), test()]), ["wire/src/lib.rs lacks #![forbid(unsafe_code)]"]);
        assert!(check(&[bare(), source("wire/src/sys.rs", "")]).is_empty());
    }
}
