//! A key can be in a folder once.
//!
//! ```text
//!   host A                                       host B
//!   adit0, key 1                                 adit0, key 1 as well: refused
//!   folder ------------------------------------- folder
//! ```

use crate::rig::folder::{End, Folder, only_peer, toml};
use crate::rig::pair::hosts;
use crate::rig::sealed::{Station, write_key};
use crate::rig::state;
use crate::rig::tunnel::{Files, Tunnel};

#[test]
fn the_same_key_twice_in_one_folder_is_refused_and_the_first_goes_on() {
    let Some(hosts) = hosts() else { return };
    let folder = Folder::new();
    let first = Station::up(&hosts.a, 1, &toml(1, &folder, "", "", &[only_peer(2, &folder)]));
    let inboxes = folder.inboxes();
    let before = state::of(&hosts.b);
    let files = Files::new();
    write_key(&files, 1);
    let second = toml(1, &folder, "", "", &[only_peer(3, &folder)]);
    let refused = Tunnel::fail(&hosts.b, &files, "b", &second);
    assert_eq!(refused.code, Some(1), "{}", refused.said);
    let share = folder.path().display().to_string();
    for word in [share.as_str(), "label", "alive"] {
        assert!(refused.said.contains(word), "{word}: {}", refused.said);
    }
    state::assert_same(&before, &state::of(&hosts.b));
    assert_eq!(folder.inboxes(), inboxes);
    // Where the first has ended, the second may be.
    first.end(End::Asked);
    let second = Tunnel::up(&hosts.b, &files, "b", &second);
    assert_eq!(folder.inboxes().len(), 1);
    End::Asked.meet(second);
    folder.assert_empty();
}
