//! A device that a tunnel has is not given to another one.
//!
//! ```text
//!   host A                     host B
//!   adit0 .................... adit0
//!     \  a second `adit up` wants it, too
//!   eth0  -------------------- eth0
//! ```

use crate::rig::pair::{End, Family, Pair};
use crate::rig::ping::assert_answers;
use crate::rig::state;
use crate::rig::tunnel::Tunnel;

/// Another tunnel over the same device, with its own port.
fn second(more: &str) -> String {
    format!(
        r#"
device.name = "adit0"
{more}
local.security = "none"
local.listen = ["udp://10.1.0.1:4741"]
[[peer]]
name = "b"
endpoints = ["udp://10.1.0.2:4741"]
"#
    )
}

fn assert_second_is_refused(first: End, more: &str) {
    let Some(pair) = Pair::with(first, End::B) else { return };
    let (a, b) = (&pair.a, &pair.b);
    let before = state::of(&a.host);
    let refused = Tunnel::fail(&a.host, &pair.files, "second", &second(more));
    assert_eq!(refused.code, Some(1), "{}", refused.said);
    let attempt = "error: tunnel \"second\": attach to TUN device \"adit0\": ";
    let error = refused.said.lines().find_map(|line| line.strip_prefix(attempt));
    let holder = format!("process {} (adit", a.tunnel.id());
    assert!(error.is_some_and(|error| error.starts_with(&holder)), "{}", refused.said);
    assert!(error.is_some_and(|error| error.ends_with("is attached")), "{}", refused.said);
    state::assert_same(&before, &state::of(&a.host));
    for inner in Family::BOTH {
        assert_answers(&a.host, inner.inner(2));
        assert_answers(&b.host, inner.inner(1));
    }
}

#[test]
fn a_second_tunnel_on_a_device_is_refused_and_told_who_has_it() {
    assert_second_is_refused(End::A, "");
}

#[test]
fn a_second_tunnel_on_a_device_with_several_queues_is_refused_and_told_who_has_it() {
    assert_second_is_refused(End::A.device("queues = 2"), "device.queues = 2");
}
