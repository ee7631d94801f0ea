//! boringtun, another implementation of WireGuard, built from the registry below the target directory.

use std::env;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::program;

/// What is built, and the version that tests know.
const CRATE: &str = "boringtun-cli@0.7.1";

/// Builds it unless it is there.
pub(super) fn build() -> Result<(), Failure> {
    let root = target().join("tools");
    if root.join("bin/boringtun-cli").exists() {
        return Ok(());
    }
    println!(
        "setup: boringtun is missing: another implementation of WireGuard, to interoperate with"
    );
    let mut install = program::cargo(&["install", "--quiet", "--locked", CRATE, "--root"]);
    program::run(install.arg(root))
}

/// Where cargo builds, and where tests therefore look.
fn target() -> PathBuf {
    let elsewhere = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    elsewhere.unwrap_or_else(|| program::root().join("target"))
}
