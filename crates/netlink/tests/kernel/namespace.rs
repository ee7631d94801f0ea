//! A namespace for a test, and an independent reader and writer inside it.

use std::io;
use std::process::Command;
use std::thread;

use netlink::{LinkIndex, Netns, Socket};
use serde_json::Value;

/// Runs a test on a thread in a new namespace, which vanishes with the thread.
pub(crate) fn in_namespace(test: impl FnOnce(&mut Socket) + Send) {
    match Netns::create().and_then(|netns| found_ip().map(|()| netns)) {
        Ok(netns) => inside(&netns, || test(&mut Socket::open().unwrap())),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("needs a namespace of its own and ip(8): {error}")
        }
        Err(error) => println!("skipped, needs a namespace of its own and ip(8): {error}"),
    }
}

/// Runs `action` on a thread inside `netns`.
pub(crate) fn inside<T: Send>(netns: &Netns, action: impl FnOnce() -> T + Send) -> T {
    let run = || {
        netns.enter().unwrap();
        action()
    };
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `ip` with these words in the calling thread's namespace.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {words}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `ip -j -d` lists in the calling thread's namespace.
pub(crate) fn ip_list(words: &str) -> Vec<Value> {
    let output = ip(&format!("-j -d {words}"));
    if output.trim().is_empty() {
        return Vec::new();
    }
    serde_json::from_str(&output).unwrap()
}

/// The one object that `ip -j -d` lists.
pub(crate) fn ip_show(words: &str) -> Value {
    let mut list = ip_list(words);
    assert_eq!(list.len(), 1, "ip {words}: {list:?}");
    list.remove(0)
}

/// The number of the link of that name.
pub(crate) fn index(socket: &mut Socket, name: &str) -> LinkIndex {
    socket.link(name).unwrap().unwrap().index
}

/// Makes a connected pair `left`, `right` that is up, and returns their numbers.
pub(crate) fn pair(socket: &mut Socket) -> (LinkIndex, LinkIndex) {
    socket.add_veth("left", "right", None).unwrap();
    let (left, right) = (index(socket, "left"), index(socket, "right"));
    socket.set_up(left, true).unwrap();
    socket.set_up(right, true).unwrap();
    (left, right)
}

fn found_ip() -> io::Result<()> {
    Command::new("ip").arg("-V").output().map(|_| ())
}
