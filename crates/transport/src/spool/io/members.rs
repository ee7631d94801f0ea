//! Who is in the folder.

use std::collections::BTreeSet;

use rustix::io::Result;

use super::folder::Folder;
use crate::spool::side::Side;

/// How many sides of a folder are seen.
pub(super) const SIDES: usize = 1024;

/// How many names of a folder are looked at, which may have many that are not ours.
const NAMES: usize = 65_536;

/// The sides whose inboxes are in the folder.
pub(super) fn sides(folder: &Folder) -> Result<BTreeSet<Side>> {
    let mut sides = BTreeSet::new();
    folder.list(NAMES, |name| {
        if sides.len() < SIDES {
            sides.extend(Side::parse(name));
        }
    })?;
    Ok(sides)
}
