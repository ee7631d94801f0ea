//! Tunnels through a shared folder, between hosts that have nothing else in common.

mod absent;
mod claimed;
mod failover;
mod foreign;
mod hostile;
mod owner;
mod restart;
mod several;
mod soak;
mod traffic;
mod unfit;
