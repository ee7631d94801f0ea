//! Replays what the fuzzers have found: every file of `fuzz/corpus/<target>`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use checks::TARGETS;

/// The most files of one target.
const MAX_FILES: usize = 200;
/// The most octets of one target's files.
const MAX_OCTETS: usize = 300_000;

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn entries(folder: &str) -> BTreeSet<PathBuf> {
    let folder = fuzz().join(folder);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn stems(folder: &str) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries(folder).into_iter().map(stem).collect()
}

#[test]
fn every_input_that_was_ever_found_passes() {
    for (target, check) in TARGETS {
        for path in entries(&format!("corpus/{target}")) {
            let input = fs::read(&path).unwrap();
            let result = catch_unwind(|| check(&input));
            assert!(result.is_ok(), "{target} fails for {}", path.display());
        }
    }
}

#[test]
fn every_target_is_known_to_the_fuzzer_and_has_a_corpus() {
    let known: BTreeSet<_> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(stems("fuzz_targets"), known);
    assert_eq!(stems("corpus"), known);
}

#[test]
fn corpora_are_small() {
    for (target, _) in TARGETS {
        let files = entries(&format!("corpus/{target}"));
        let octets: usize = files.iter().map(|path| fs::read(path).unwrap().len()).sum();
        assert!((1..=MAX_FILES).contains(&files.len()), "{target} has {} files", files.len());
        assert!(octets <= MAX_OCTETS, "{target} has {octets} octets");
    }
}
