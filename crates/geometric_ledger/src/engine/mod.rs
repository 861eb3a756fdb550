//! What an open ledger does: the path of a batch, checkpoints, recovery, and what goes on by itself.
//! Each stage works on the [`state`]; who calls whom goes one way only.

pub mod checkpoint;
pub mod commit;
pub mod items;
pub mod look_up;
pub mod maintenance;
pub mod memory;
pub mod parties;
pub mod post;
pub mod reading;
pub mod reclaim;
pub mod recording;
pub mod records;
pub mod recovery;
pub mod rules;
pub mod scrub;
pub mod signal;
pub mod state;
pub mod stats;
pub mod submissions;
pub mod telemetry;
pub mod tracked;
