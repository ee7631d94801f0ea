//! `cargo xtask fuzz`: looks for input that breaks a parser, and grows the corpora by what it learns.
//!
//! Everything that a fuzzer finds goes to a folder beside its build. Of that, the corpus in the repository
//! gets what reaches code that nothing in it reaches, as long as it stays small. An input that breaks a check ends the run and stands in `fuzz/artifacts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::failure::Failure;
use crate::program;

/// The most files in one corpus; `fuzz/checks/tests/corpus.rs` holds them against the same limits.
const MAX_FILES: usize = 200;
/// The most octets in one corpus.
const MAX_OCTETS: u64 = 300_000;

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// What to fuzz; every target in turn if none is named.
    target: Option<String>,
    /// How long to look, for each target.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Fuzzes one target or all.
pub(crate) fn run(args: &FuzzArgs) -> Result<(), Failure> {
    let targets = chosen(args.target.as_deref())?;
    check_tools()?;
    for target in &targets {
        println!("=== {target}: {} s", args.seconds);
        let found = found(target)?;
        let corpus = program::root().join("fuzz/corpus").join(target);
        let limit = format!("-max_total_time={}", args.seconds);
        fuzz(target, &[&found, &corpus], &["-print_final_stats=1", &limit])?;
        grow(target, &corpus, &found)?;
    }
    Ok(())
}

/// Adds to `corpus` what reaches new code, as far as there is room.
fn grow(target: &str, corpus: &Path, found: &Path) -> Result<(), Failure> {
    let before = files(corpus)?;
    // Only whether code is reached counts, and not how often: that would be many more files.
    fuzz(target, &[corpus, found], &["-set_cover_merge=1", "-use_counters=0"])?;
    let mut new = files(corpus)?;
    new.retain(|file| !before.contains(file));
    new.sort_by_key(|file| octets(file));
    let mut room = MAX_OCTETS.saturating_sub(before.iter().map(|file| octets(file)).sum());
    let mut kept = before.len();
    for file in new {
        if kept < MAX_FILES && octets(&file) <= room {
            kept += 1;
            room -= octets(&file);
        } else {
            fs::remove_file(&file)
                .map_err(|error| Failure::of(format!("remove {}", file.display()), error))?;
        }
    }
    println!("=== {target}: {kept} files, of which {} are new", kept - before.len());
    Ok(())
}

/// The targets that are wanted.
fn chosen(wanted: Option<&str>) -> Result<Vec<String>, Failure> {
    let targets = targets()?;
    match wanted {
        None => Ok(targets),
        Some(wanted) if targets.iter().any(|target| target == wanted) => {
            Ok(vec![wanted.to_owned()])
        }
        Some(wanted) => {
            Err(Failure::new(format!("no fuzz target {wanted}; there are {}", targets.join(", "))))
        }
    }
}

/// The names of all targets.
fn targets() -> Result<Vec<String>, Failure> {
    let folder = program::root().join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for path in files(&folder)? {
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

/// Where what was found is kept, which may all be lost.
fn found(target: &str) -> Result<PathBuf, Failure> {
    let folder = program::root().join("fuzz/target/found").join(target);
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::of(format!("create {}", folder.display()), error))?;
    Ok(folder)
}

/// Runs libFuzzer over `corpora`; it writes to the first.
fn fuzz(target: &str, corpora: &[&Path], options: &[&str]) -> Result<(), Failure> {
    // No sanitizer: what is fuzzed is safe Rust, in which panics are all there is to find.
    let mut command = nightly(&["fuzz", "run", "--sanitizer", "none", target]);
    command.current_dir(program::root()).args(corpora).arg("--").args(options);
    program::run(&mut command)
}

/// Says what is missing; nothing is installed unasked.
fn check_tools() -> Result<(), Failure> {
    for (arguments, remedy) in [
        (["--version"].as_slice(), "rustup toolchain install nightly"),
        (&["fuzz", "--version"], "cargo install cargo-fuzz"),
    ] {
        let mut command = nightly(arguments);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !status.status().is_ok_and(|status| status.success()) {
            let name = program::name(&command);
            return Err(Failure::new(format!("{name} does not work; try: {remedy}")));
        }
    }
    Ok(())
}

/// The cargo of rustup, which knows of toolchains; that which started this program does not.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    // Set by the cargo that started this program, for itself.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").arg("+nightly").args(arguments);
    command
}

/// The size of a file; nothing for one that is gone.
fn octets(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::of(format!("read folder {}", folder.display()), error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}
