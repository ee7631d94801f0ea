//! What `cargo metadata` says, as far as the rules need it.

use std::path::PathBuf;

use serde::Deserialize;

use crate::failure::Failure;
use crate::program;

/// adit runs on Linux only; what other systems would need is not built.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The workspace and everything that it depends on.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

/// One version of one crate.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    pub(super) manifest_path: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) targets: Vec<Target>,
}

/// What a package asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

/// What a package is built into.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) kind: Vec<String>,
    pub(super) src_path: PathBuf,
}

impl Metadata {
    /// Asks cargo about the workspace of this repository.
    pub(super) fn of_workspace() -> Result<Self, Failure> {
        let what = ["metadata", "--format-version=1", "--filter-platform", PLATFORM];
        let output = program::output(&mut program::cargo(&what))?;
        serde_json::from_slice(&output)
            .map_err(|error| Failure::of("read the output of cargo metadata", error))
    }

    /// The crates of this repository.
    pub(super) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.is_member(package))
    }

    /// The crates of other people.
    pub(super) fn others(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| !self.is_member(package))
    }

    fn is_member(&self, package: &Package) -> bool {
        self.workspace_members.contains(&package.id)
    }
}

impl Package {
    /// The name as the design has it: `wire` for `adit-wire`, `cli` for `adit` itself.
    pub(super) fn room(&self) -> &str {
        room(&self.name)
    }
}

impl Dependency {
    /// The crate of this repository that it is, as [`Package::room`]; `None` for other people's.
    pub(super) fn room(&self) -> Option<&str> {
        self.path.is_some().then(|| room(&self.name))
    }

    /// Whether only tests and benches use it.
    pub(super) fn is_for_tests(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

fn room(package: &str) -> &str {
    match package {
        "adit" => "cli",
        name => name.strip_prefix("adit-").unwrap_or(name),
    }
}
