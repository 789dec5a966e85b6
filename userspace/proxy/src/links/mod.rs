//! What is asked of gate and keeper, and how the answers find who asked.

mod gate;
mod keeper;
mod pending;

pub(crate) use gate::{DialError, GateLink};
pub(crate) use keeper::{KeeperError, KeeperLink};
use pending::Pending;
