//! How much one client may ask for, and for how long a request may take.

use super::config::Limits;
use super::gateway::Shared;
use super::problems::{Kind, Problem};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
pub async fn rate(State(gateway): State<Shared>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    let client = peer.map(|peer| {
        match gateway
            .live()
            .trusted_proxies
            .contains(&peer.to_canonical())
        {
            true => forwarded(request.headers()).unwrap_or(peer),
            false => peer,
        }
    });
    match client {
        Some(address) if !gateway.rates.take(self::client(address), Instant::now()) => {
            Problem::new(
                Kind::TooManyRequests,
                "this client asks for more than it may",
            )
            .with_hint("Ask for less often; many entries can be proven with one bundle.")
            .into_response()
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
pub async fn time(State(gateway): State<Shared>, request: Request, next: Next) -> Response {
    let time = Duration::from_millis(gateway.limits.request_ms);
    match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Kind::Unavailable, "the answer takes too long").into_response(),
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
