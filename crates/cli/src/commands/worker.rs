//! `adit worker`: the process that carries the packets of a tunnel, which "adit up" starts.

use engine::worker;

use crate::report::{Exit, Failure};

pub(crate) fn run() -> Result<Exit, Failure> {
    match worker::run()? {
        worker::Exit::Asked => Ok(Exit::Done),
        // The supervisor knows why, and says it.
        worker::Exit::ByItself => Ok(Exit::Failed),
    }
}
