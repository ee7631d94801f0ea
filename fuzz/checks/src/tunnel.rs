//! `proto::Tunnel`: two or three hosts, whose wire is an enemy's, and a model of what must hold.
//!
//! Input: three octets that say who takes part (`steps::Cast`), then steps, each with an octet that says what happens,
//! one that says to whom, and what else `steps::Step` needs.

mod host;
mod model;
mod packet;
mod steps;
mod world;

use steps::Input;
use world::World;

/// Whatever happens, each tunnel does what the model says; in the end everybody can hear everybody, and who has
/// nothing to say is silent.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&input.cast());
    while let Some(step) = input.step(world.hosts.len()) {
        world.take(step);
        world.check();
    }
    world.recover();
    world.check_silence();
}
