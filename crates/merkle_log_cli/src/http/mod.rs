//! What the commands that answer over HTTP share: where they listen, connections and their limits, TLS, what is counted,
//! and the time from start to end. What they answer is their own affair.

mod admission;
mod connections;
mod life;
mod limits;
mod listeners;
mod metrics;
mod paced;
mod tls;

pub use admission::{Admission, Refusal, Shared};
pub use connections::Server;
pub use life::{reload, report, until_ended};
pub use limits::{Limits, Peer};
pub use listeners::{HandedOver, Listener};
pub use metrics::{Metrics, label, metrics_answer};
pub use tls::{SharedTls, Tls};
