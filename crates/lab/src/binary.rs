//! Where the program `adit` is.

use std::env;
use std::path::{Path, PathBuf};

/// The environment variable that names the program, for tests.
const VARIABLE: &str = "ADIT_BIN";

/// How many directories above a test's executable the profile directories are looked for:
/// `target/debug/deps/test` and `target/debug/examples/x` lie two below `target`.
const LEVELS: usize = 3;

/// The program is nowhere.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// `ADIT_BIN` names no file.
    #[error("find adit: {VARIABLE} names {}, which is no file", .0.display())]
    Named(PathBuf),
    /// It was not built.
    #[error("find adit beside {}: build it with `cargo build --package adit` or name it in {VARIABLE}", .0.display())]
    NotBuilt(PathBuf),
}

/// The program `adit` that tests and measurements run: what `ADIT_BIN` names, else the release or
/// debug build beside the running executable.
pub fn binary() -> Result<PathBuf, BinaryError> {
    if let Some(named) = env::var_os(VARIABLE) {
        let named = PathBuf::from(named);
        return if named.is_file() { Ok(named) } else { Err(BinaryError::Named(named)) };
    }
    let this = env::current_exe().unwrap_or_default();
    built_beside(&this).ok_or(BinaryError::NotBuilt(this))
}

fn built_beside(executable: &Path) -> Option<PathBuf> {
    executable
        .ancestors()
        .skip(1)
        .take(LEVELS)
        .flat_map(|directory| ["release/adit", "debug/adit"].map(|path| directory.join(path)))
        .find(|path| path.is_file())
}
