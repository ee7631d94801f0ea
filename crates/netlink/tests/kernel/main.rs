//! Against a real kernel: each test changes a network namespace of its own, and ip(8), run inside that
//! namespace, says what came of it.
//!
//! Needs `CAP_SYS_ADMIN`, `CAP_NET_ADMIN`, iproute2 and, in part, nftables; without them a test says so and passes, unless
//! the environment has `CI=true`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "everything here is a test; clippy takes only functions marked as tests for one"
)]

mod address;
mod link;
mod monitor;
mod namespace;
mod nftables;
mod plan;
mod route;
mod sysctl;
