//! Devices that stay when nobody is attached.
//!
//! A persistent device keeps its addresses, MTU and routes; while detached it has no carrier.
//! Whoever may open the node of the driver and passes the test of [`Access`] attaches without
//! privilege, which is how a program that faces the network runs without `CAP_NET_ADMIN`.

use crate::{Builder, DeviceName, OpenError, Presence};

/// Who may attach to a persistent device without `CAP_NET_ADMIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The user with this id.
    User(u32),
    /// The members of the group with this id.
    Group(u32),
    /// The user, and only as a member of the group: the kernel asks for both.
    UserInGroup(u32, u32),
    /// Every user who can open the node of the driver. This is what the kernel does with a device
    /// that has neither owner nor group, so it must be asked for.
    AnyUser,
}

impl Access {
    /// The owner to set.
    pub fn user(self) -> Option<u32> {
        match self {
            Self::User(user) | Self::UserInGroup(user, _) => Some(user),
            Self::Group(_) | Self::AnyUser => None,
        }
    }

    /// The group to set.
    pub fn group(self) -> Option<u32> {
        match self {
            Self::Group(group) | Self::UserInGroup(_, group) => Some(group),
            Self::User(_) | Self::AnyUser => None,
        }
    }
}

/// Makes the persistent device that `builder` describes, for those that `access` names.
///
/// The owner is set before the device becomes persistent, so at no time is it open to others.
/// Fails with [`OpenError::Exists`] if there is an interface of that name.
pub fn add(builder: &Builder, access: Access) -> Result<DeviceName, OpenError> {
    let builder = builder.clone().owner(access.user()).group(access.group());
    let device = builder.presence(Presence::Create).persistent(true).open()?;
    Ok(device.name().clone())
}

/// Deletes the persistent device that `builder` describes; its mode and number of queues must be
/// those of the device.
///
/// To delete is to attach first. Fails with [`OpenError::Missing`] if the device is not there and
/// with [`OpenError::Busy`] if someone is attached; of a multi-queue device that is only known with
/// [`Builder::observe`].
pub fn delete(builder: &Builder) -> Result<(), OpenError> {
    builder.clone().presence(Presence::Attach).persistent(false).open()?.release()
}
