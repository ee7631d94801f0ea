//! Crates of other people: licences, banned crates, and the same crate twice.

use std::collections::BTreeMap;

use super::metadata::Metadata;
use super::{Violation, licence};

/// A name that must not appear, a final `*` standing for anything, and the reason.
const BANNED: [(&str, &str); 4] = [
    ("native-tls", "it brings the system's OpenSSL along"),
    ("nix", "rustix makes the same system calls, and one library for them is enough"),
    ("openssl*", "the system's version decides what it can do, and there are Rust ways"),
    ("ring", "aws-lc-rs is faster, has more and is the one cryptographic library here"),
];

/// A crate that is there in several versions, and why nobody here can change that.
const DUPLICATES: [(&str, &str); 8] = [
    ("blake2", OLDER_IN_TESTS),
    ("block-buffer", OLDER_IN_TESTS),
    ("chacha20", OLDER_IN_TESTS),
    ("cpufeatures", OLDER_IN_TESTS),
    ("crypto-common", OLDER_IN_TESTS),
    ("digest", OLDER_IN_TESTS),
    ("getrandom", OLDER_IN_TESTS),
    ("syn", "derive macros move from 2 to 3 one by one; it runs at build time only"),
];

/// Why an older version is no part of the program.
const OLDER_IN_TESTS: &str = "snow, which only tests use, is a generation behind";

/// Everything wrong with crates of other people.
pub(super) fn check(metadata: &Metadata) -> Vec<Violation> {
    let mut violations = licences(metadata);
    violations.extend(bans(metadata));
    violations.extend(duplicates(metadata));
    violations
}

fn licences(metadata: &Metadata) -> Vec<Violation> {
    metadata
        .others()
        .filter(|package| !package.license.as_deref().is_some_and(licence::is_allowed))
        .map(|package| Violation {
            what: format!(
                "{} {} has the licence {:?}",
                package.name,
                package.version,
                package.license.as_deref().unwrap_or("")
            ),
            why: "adit is given away under MIT or Apache-2.0, and so must be all that is in it",
        })
        .collect()
}

fn bans(metadata: &Metadata) -> impl Iterator<Item = Violation> {
    metadata.others().filter_map(|package| {
        let (_, why) = BANNED.iter().find(|(pattern, _)| matches(pattern, &package.name))?;
        Some(Violation { what: format!("{} {} is banned", package.name, package.version), why })
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Reports all duplicates; those without a reason are violations, and so are reasons without a
/// duplicate.
fn duplicates(metadata: &Metadata) -> Vec<Violation> {
    let mut versions = BTreeMap::<_, Vec<_>>::new();
    for package in metadata.others() {
        versions.entry(&*package.name).or_default().push(&*package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let unexplained = versions.iter().filter_map(|(name, versions)| {
        let what = format!("{name} is there as {}", versions.join(" and "));
        if let Some((_, why)) = DUPLICATES.iter().find(|(known, _)| known == name) {
            println!("{what}\n    accepted because {why}");
            return None;
        }
        Some(Violation { what, why: "two versions are built, shipped and read about twice" })
    });
    let outdated = DUPLICATES.iter().filter(|(name, _)| !versions.contains_key(name));
    let outdated = outdated.map(|(name, _)| Violation {
        what: format!("{name} is listed as a duplicate and is none"),
        why: "a reason that nobody needs hides the next duplicate",
    });
    unexplained.chain(outdated).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn package(name: &str, version: &str, license: &Value) -> Value {
        json!({
            "id": format!("{name}@{version}"),
            "name": name,
            "version": version,
            "license": license,
            "manifest_path": "/registry/Cargo.toml",
            "dependencies": [],
            "targets": [],
        })
    }

    /// What is wrong with these crates beside the duplicates that there are always.
    fn violations(packages: &[Value]) -> Vec<String> {
        let mut packages = packages.to_vec();
        for (name, _) in DUPLICATES {
            packages.push(package(name, "2.0.1", &json!("MIT")));
            packages.push(package(name, "3.0.1", &json!("MIT")));
        }
        packages.push(package("adit-wire", "0.1.0", &json!("proprietary")));
        let metadata = json!({ "packages": packages, "workspace_members": ["adit-wire@0.1.0"] });
        let metadata = serde_json::from_value(metadata).unwrap();
        check(&metadata).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn licences_of_others_must_be_known_and_allowed() {
        let packages = [
            package("good", "1.0.0", &json!("MIT OR Apache-2.0")),
            package("viral", "1.0.0", &json!("GPL-3.0-or-later")),
            package("silent", "1.0.0", &Value::Null),
        ];
        assert_eq!(
            violations(&packages),
            [
                "viral 1.0.0 has the licence \"GPL-3.0-or-later\"",
                "silent 1.0.0 has the licence \"\""
            ]
        );
    }

    #[test]
    fn bans_are_exact_unless_they_end_in_a_star() {
        let packages = ["ring", "ringbuf", "openssl-sys", "nix"]
            .map(|name| package(name, "1.0.0", &json!("MIT")));
        assert_eq!(
            violations(&packages),
            ["ring 1.0.0 is banned", "openssl-sys 1.0.0 is banned", "nix 1.0.0 is banned"]
        );
    }

    #[test]
    fn a_duplicate_needs_a_reason() {
        let packages =
            ["1.9.0", "2.0.0"].map(|version| package("bitflags", version, &json!("MIT")));
        assert_eq!(violations(&packages), ["bitflags is there as 1.9.0 and 2.0.0"]);
    }

    #[test]
    fn a_reason_needs_a_duplicate() {
        let metadata = json!({ "packages": [], "workspace_members": [] });
        let metadata = serde_json::from_value(metadata).unwrap();
        let violations = check(&metadata);
        assert_eq!(violations.len(), DUPLICATES.len());
        assert_eq!(violations[0].what, "blake2 is listed as a duplicate and is none");
    }
}
