//! Which crate of the workspace may use which other crate.

use super::Violation;
use super::metadata::{Dependency, Metadata, Package};

/// What one crate of the workspace may use.
struct Room {
    name: &'static str,
    /// Crates of the workspace.
    rooms: Allowed,
    /// Crates of the workspace that only its tests may use.
    rooms_in_tests: Allowed,
    /// Crates of other people.
    registry: Allowed,
    why: &'static str,
}

enum Allowed {
    Any,
    Only(&'static [&'static str]),
}

use Allowed::{Any, Only};

/// The house. The order is that of the design, from the ground up.
const HOUSE: [Room; 11] = [
    Room {
        name: "wire",
        rooms: Only(&[]),
        rooms_in_tests: Only(&[]),
        registry: Only(&["thiserror"]),
        why: "octets need no I/O, no clock and nobody who has them",
    },
    Room {
        name: "proto",
        rooms: Only(&["wire"]),
        rooms_in_tests: Only(&["simnet"]),
        registry: Only(&[
            "arc-swap",
            "aws-lc-rs",
            "base64ct",
            "blake2",
            "hmac",
            "ipnet",
            "thiserror",
            "zeroize",
        ]),
        why: "the tunnel's decisions are functions of their arguments",
    },
    Room {
        name: "simnet",
        rooms: Only(&[]),
        rooms_in_tests: Only(&[]),
        registry: Only(&[]),
        why: "a network in virtual time has no time, no randomness and no network of its own",
    },
    Room {
        name: "device",
        rooms: Only(&["wire"]),
        rooms_in_tests: Only(&["netlink"]),
        registry: Any,
        why: "what the engine puts together can be tried and replaced alone",
    },
    Room {
        name: "netlink",
        rooms: Only(&[]),
        rooms_in_tests: Only(&[]),
        registry: Any,
        why: "the host's network has nothing to do with packets",
    },
    Room {
        name: "transport",
        rooms: Only(&["wire"]),
        rooms_in_tests: Only(&["simnet"]),
        registry: Any,
        why: "what the engine puts together can be tried and replaced alone",
    },
    Room {
        name: "engine",
        rooms: Only(&["device", "netlink", "proto", "transport", "wire"]),
        rooms_in_tests: Only(&["lab"]),
        registry: Any,
        why: "the engine must run without a command line and without a laboratory",
    },
    Room {
        name: "lab",
        rooms: Only(&["engine", "netlink", "wire"]),
        rooms_in_tests: Any,
        registry: Any,
        why: "the laboratory looks at tunnels from outside, as their users do",
    },
    Room {
        name: "cli",
        rooms: Any,
        rooms_in_tests: Any,
        registry: Any,
        why: "the program is made of everything",
    },
    Room {
        name: "fuzz-checks",
        rooms: Only(&["engine", "proto", "transport", "wire"]),
        rooms_in_tests: Only(&[]),
        registry: Only(&[]),
        why: "checks are built with a sanitizer and run millions of times",
    },
    Room {
        name: "xtask",
        rooms: Only(&["lab", "netlink"]),
        rooms_in_tests: Only(&[]),
        registry: Any,
        why: "developers' tasks run adit, they are no part of it",
    },
];

/// The only crate that waits in tasks.
const HOME_OF_TOKIO: &str = "engine";

/// Every use of one crate by another that the house does not allow.
pub(super) fn check(metadata: &Metadata) -> Vec<Violation> {
    metadata.members().flat_map(check_member).collect()
}

fn check_member(package: &Package) -> Vec<Violation> {
    let Some(room) = HOUSE.iter().find(|room| room.name == package.room()) else {
        return vec![Violation {
            what: format!("{} has no place in the house", package.name),
            why: "a crate border must buy a rule; without one it is a module",
        }];
    };
    let foreign_tokio = package
        .dependencies
        .iter()
        .filter(|dependency| dependency.name == "tokio" && room.name != HOME_OF_TOKIO)
        .map(|_| Violation {
            what: format!("{} uses tokio", package.name),
            why: "only the engine waits; everything below is called when there is something to do",
        });
    package
        .dependencies
        .iter()
        .filter(|dependency| !room.allows(dependency))
        .map(|dependency| Violation {
            what: format!("{} uses {}", package.name, dependency.name),
            why: room.why,
        })
        .chain(foreign_tokio)
        .collect()
}

impl Room {
    fn allows(&self, dependency: &Dependency) -> bool {
        match (dependency.room(), dependency.is_for_tests()) {
            (Some(room), false) => self.rooms.contains(room),
            (Some(room), true) => self.rooms.contains(room) || self.rooms_in_tests.contains(room),
            (None, false) => self.registry.contains(&dependency.name),
            (None, true) => true,
        }
    }
}

impl Allowed {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is wrong with a workspace of one crate with these dependencies.
    fn violations(name: &str, dependencies: &Value) -> Vec<String> {
        let metadata = json!({
            "packages": [{
                "id": "member",
                "name": name,
                "version": "0.1.0",
                "license": null,
                "manifest_path": "/house/Cargo.toml",
                "dependencies": dependencies,
                "targets": [],
            }],
            "workspace_members": ["member"],
        });
        let metadata = serde_json::from_value(metadata).unwrap();
        check(&metadata).into_iter().map(|violation| violation.what).collect()
    }

    fn room(name: &str) -> Value {
        json!({ "name": name, "kind": null, "path": "/house/room" })
    }

    fn registry(name: &str) -> Value {
        json!({ "name": name, "kind": null })
    }

    fn for_tests(mut dependency: Value) -> Value {
        dependency["kind"] = json!("dev");
        dependency
    }

    #[test]
    fn what_the_design_draws_is_allowed() {
        assert!(violations("adit-device", &json!([room("adit-wire")])).is_empty());
        assert!(violations("adit", &json!([room("adit-lab"), registry("clap")])).is_empty());
        assert!(violations("adit-wire", &json!([registry("thiserror")])).is_empty());
        assert!(violations("adit-engine", &json!([registry("tokio")])).is_empty());
    }

    #[test]
    fn neighbours_know_nothing_of_each_other() {
        assert_eq!(
            violations("adit-device", &json!([room("adit-transport"), room("adit-wire")])),
            ["adit-device uses adit-transport"]
        );
        assert_eq!(
            violations("adit-netlink", &json!([room("adit-wire")])),
            ["adit-netlink uses adit-wire"]
        );
    }

    #[test]
    fn tests_may_use_what_the_crate_may_not() {
        let netlink = room("adit-netlink");
        assert_eq!(violations("adit-device", &json!([netlink])), ["adit-device uses adit-netlink"]);
        assert!(violations("adit-device", &json!([for_tests(netlink)])).is_empty());
        assert!(violations("adit-wire", &json!([for_tests(registry("proptest"))])).is_empty());
        assert!(violations("adit-lab", &json!([for_tests(room("adit-device"))])).is_empty());
    }

    #[test]
    fn pure_crates_use_named_crates_only() {
        assert_eq!(violations("adit-proto", &json!([registry("libc")])), ["adit-proto uses libc"]);
    }

    #[test]
    fn tokio_stays_in_the_engine_even_in_tests() {
        let tokio = for_tests(registry("tokio"));
        assert_eq!(violations("adit-transport", &json!([tokio])), ["adit-transport uses tokio"]);
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        assert_eq!(violations("adit-attic", &json!([])), ["adit-attic has no place in the house"]);
    }
}
