//! How much one client may ask for, and for how long a request may take.

use super::{Refusal, Shared};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What clients may cost.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Milliseconds that a request may take.
    pub request_ms: u64,
    /// Connections of clients, of all and of one.
    pub connections: usize,
    pub connections_per_client: usize,
    /// Requests a second of one client, and how many at once after a pause.
    pub rate_per_client: u32,
    pub burst_per_client: u32,
    /// Bytes of the head and of the body of a request.
    pub header_bytes: usize,
    pub body_bytes: usize,
    /// Seconds in which the head of a request must arrive, and without progress of an answer.
    pub header_seconds: u64,
    pub stalled_seconds: u64,
    /// Seconds after which a connection is ended.
    pub connection_seconds: u64,
    /// Seconds that running requests have when the program is told to end.
    pub shutdown_seconds: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_ms: 30_000,
            connections: 1024,
            connections_per_client: 128,
            rate_per_client: 500,
            burst_per_client: 1_000,
            header_bytes: 16 << 10,
            body_bytes: 64 << 10,
            header_seconds: 15,
            stalled_seconds: 20,
            connection_seconds: 600,
            shutdown_seconds: 30,
        }
    }
}

impl Limits {
    /// # Errors
    /// If nothing would be served under them.
    pub fn check(&self) -> Result<(), String> {
        let zero = [
            ("request_ms", self.request_ms),
            ("connections", self.connections as u64),
            ("connections_per_client", self.connections_per_client as u64),
            ("rate_per_client", self.rate_per_client.into()),
            ("burst_per_client", self.burst_per_client.into()),
            ("header_seconds", self.header_seconds),
            ("stalled_seconds", self.stalled_seconds),
            ("connection_seconds", self.connection_seconds),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Err(format!(
                "limits.{name} is 0, so that nothing would be served"
            ));
        }
        // The least that hyper takes.
        if self.header_bytes < 8192 {
            return Err("limits.header_bytes is less than 8192".to_owned());
        }
        let most = tokio::sync::Semaphore::MAX_PERMITS;
        if self.connections > most {
            return Err(format!("limits.connections is at most {most}"));
        }
        Ok(())
    }
}

/// Who is at the other end of a connection; over a Unix socket nobody in particular.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<IpAddr>);

/// One that is counted: an address, or the network that one holder of IPv6 addresses has.
pub fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// A bucket of tokens for each client (a request takes one).
pub struct Rates {
    rate: f64,
    burst: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Clients that are remembered; with more, those that have asked for nothing lately are forgotten.
const MOST_CLIENTS: usize = 1 << 16;

impl Rates {
    pub fn new(limits: &Limits) -> Rates {
        Rates {
            rate: limits.rate_per_client.into(),
            burst: limits.burst_per_client.into(),
            buckets: Mutex::default(),
        }
    }

    /// Whether a client may ask now.
    fn take(&self, client: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_CLIENTS && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.burst);
            if buckets.len() >= MOST_CLIENTS {
                buckets.clear();
            }
        }
        let full = Bucket {
            tokens: self.burst,
            at: now,
        };
        let bucket = buckets.entry(client).or_insert(full);
        let tokens = self.filled(bucket, now);
        let may = tokens >= 1.0;
        *bucket = Bucket {
            tokens: if may { tokens - 1.0 } else { tokens },
            at: now,
        };
        may
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.rate).min(self.burst)
    }
}

/// Refuses what one client asks for too often.
pub async fn rate(State(admission): State<Shared>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    let client = peer.map(|peer| match admission.trusts(peer) {
        true => forwarded(request.headers()).unwrap_or(peer),
        false => peer,
    });
    match client {
        Some(address) if !admission.rates.take(self::client(address), Instant::now()) => {
            (admission.refuse)(Refusal::TooOften)
        }
        _ => next.run(request).await,
    }
}

/// Whom a trusted proxy names last: what stands before it, the client itself may have written.
fn forwarded(headers: &axum::http::HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

/// Ends what takes too long.
pub async fn time(State(admission): State<Shared>, request: Request, next: Next) -> Response {
    let time = Duration::from_millis(admission.limits.request_ms);
    match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (admission.refuse)(Refusal::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rate_per_client: u32, burst_per_client: u32) -> Rates {
        Rates::new(&Limits {
            rate_per_client,
            burst_per_client,
            ..Limits::default()
        })
    }

    #[test]
    fn one_client_is_held_to_its_rate_and_others_are_not() {
        let (rates, start) = (rates(10, 3), Instant::now());
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let taken = |client, after: u64| rates.take(client, start + Duration::from_millis(after));
        assert_eq!(
            [taken(a, 0), taken(a, 0), taken(a, 0), taken(a, 0)],
            [true, true, true, false]
        );
        assert!(taken(b, 0));
        assert!(!taken(a, 50));
        assert!(taken(a, 110));
        assert!(!taken(a, 120));
    }

    #[test]
    fn a_holder_of_a_network_is_one_client() {
        let of = |text: &str| client(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn many_clients_do_not_fill_the_memory() {
        let (rates, now) = (rates(1, 1), Instant::now());
        for address in 0..(MOST_CLIENTS as u32 * 2 + 10) {
            rates.take(IpAddr::V4(address.into()), now);
        }
        assert!(rates.buckets.lock().unwrap().len() <= MOST_CLIENTS);
    }
}
