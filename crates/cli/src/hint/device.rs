//! What helps against a device that cannot be opened.

use std::path::Path;

use device::OpenError;
use device::account::Accounts;

/// A sentence that helps, where there is one.
pub(super) fn hint(error: &OpenError) -> Option<String> {
    match error {
        OpenError::NodeMissing { node, .. } => Some(format!(
            "load the driver with \"modprobe tun\"; a container must be given {}",
            node.display()
        )),
        OpenError::NodeForbidden { node, .. } => Some(forbidden(node)),
        OpenError::NotPermitted { .. } => Some(
            "this needs CAP_NET_ADMIN: run as root, or use a device that \
             \"adit device add NAME --user USER\" made for you"
                .to_owned(),
        ),
        OpenError::NotOwner { owner, group, .. } => owner_of(*owner, *group),
        OpenError::WrongMode { .. } | OpenError::WrongQueues { .. } => {
            Some("\"adit device show NAME\" tells how the device was made".to_owned())
        }
        OpenError::Busy { holders, .. } if holders.is_empty() => {
            Some("as root, \"adit device show NAME\" tells who is attached".to_owned())
        }
        _ => None,
    }
}

fn forbidden(node: &Path) -> String {
    format!("run as root, or let an administrator give users access to {}", node.display())
}

/// Who may attach; nothing if that is not known.
fn owner_of(owner: Option<u32>, group: Option<u32>) -> Option<String> {
    let user = owner.map(|uid| named("user", &Accounts::users().unwrap_or_default(), uid));
    let group = group.map(|gid| named("group", &Accounts::groups().unwrap_or_default(), gid));
    match (user, group) {
        (Some(user), Some(group)) => Some(format!("it is for {user} as a member of {group}")),
        (Some(one), None) | (None, Some(one)) => Some(format!("it is for {one}")),
        (None, None) => None,
    }
}

fn named(kind: &str, accounts: &Accounts, number: u32) -> String {
    match accounts.name(number) {
        Some(name) => format!("{kind} {name} ({number})"),
        None => format!("{kind} {number}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use device::{Attempt, DeviceName, Mode};

    use super::*;

    fn refused(owner: Option<u32>, group: Option<u32>) -> OpenError {
        let name = DeviceName::parse("tun0").unwrap();
        let attempt = Attempt { create: false, mode: Mode::Tun, name };
        let source = io::Error::from_raw_os_error(1);
        OpenError::NotOwner { attempt, owner, group, source }
    }

    #[test]
    fn whose_device_it_is_is_told_by_name_where_there_is_one() {
        let nobody = 4_000_000_000;
        assert_eq!(hint(&refused(Some(0), None)).as_deref(), Some("it is for user root (0)"));
        assert_eq!(
            hint(&refused(Some(0), Some(nobody))).as_deref(),
            Some("it is for user root (0) as a member of group 4000000000")
        );
        assert_eq!(
            hint(&refused(None, Some(nobody))).as_deref(),
            Some("it is for group 4000000000")
        );
        assert_eq!(hint(&refused(None, None)), None);
    }

    #[test]
    fn a_missing_node_has_two_usual_reasons() {
        let node = "/dev/net/tun".into();
        let error = OpenError::NodeMissing { node, source: io::Error::from_raw_os_error(2) };
        assert_eq!(
            hint(&error).as_deref(),
            Some("load the driver with \"modprobe tun\"; a container must be given /dev/net/tun")
        );
    }
}
