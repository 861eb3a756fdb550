//! Connections of clients: how many, for how long, and that none of them holds up the others.

use super::limits::client;
use super::paced::Paced;
use super::{Listener, Peer, Shared, SharedTls};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// What serves a connection.
#[derive(Clone)]
pub struct Server {
    admission: Shared,
    router: Router,
    /// Replaced on a reload; none: no TLS.
    tls: SharedTls,
    places: Arc<Semaphore>,
    by_client: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// True once the program is to end.
    ending: watch::Receiver<bool>,
}

/// A client's place among all connections and its own.
struct Place {
    _permit: OwnedSemaphorePermit,
    server: Server,
    client: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server
            .admission
            .metrics
            .connections
            .fetch_sub(1, Relaxed);
        let Some(client) = self.client else {
            return;
        };
        let mut clients = self
            .server
            .by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

impl Server {
    pub fn new(
        admission: Shared,
        router: Router,
        tls: SharedTls,
        ending: watch::Receiver<bool>,
    ) -> Server {
        Server {
            places: Arc::new(Semaphore::new(admission.limits.connections)),
            admission,
            router,
            tls,
            by_client: Arc::default(),
            ending,
        }
    }

    /// Accepts connections until the program is to end, and then lets those that are open finish.
    pub async fn run(self, listener: Listener) {
        let mut connections = JoinSet::new();
        let mut ending = self.ending.clone();
        loop {
            while connections.try_join_next().is_some() {}
            let next = async {
                let permit = Arc::clone(&self.places).acquire_owned().await;
                (permit, accept(&listener).await)
            };
            let accepted = tokio::select! {
                accepted = next => accepted,
                () = told_to_end(&mut ending) => break,
            };
            match accepted {
                (Ok(permit), Ok((stream, peer))) => {
                    if let Some(place) = self.place(permit, peer) {
                        connections.spawn(self.clone().serve(stream, peer, place));
                    }
                }
                // Descriptors may be short; the client may have gone. Neither ends the program.
                (_, Err(error)) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                (Err(_), _) => break,
            }
        }
        drop(listener);
        let time = Duration::from_secs(self.admission.limits.shutdown_seconds);
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(time, finished).await.is_err() {
            tracing::warn!("connections that did not finish in time are ended");
        }
    }

    /// A place, unless the client has as many as it may.
    fn place(&self, permit: OwnedSemaphorePermit, peer: Peer) -> Option<Place> {
        let client = peer.0.map(client);
        if let (Some(client), Some(peer)) = (client, peer.0) {
            let trusted = self.admission.trusts(peer);
            let mut clients = self
                .by_client
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let count = clients.entry(client).or_default();
            if *count >= self.admission.limits.connections_per_client && !trusted {
                self.admission
                    .metrics
                    .connections_refused
                    .fetch_add(1, Relaxed);
                return None;
            }
            *count += 1;
        }
        self.admission.metrics.connections.fetch_add(1, Relaxed);
        Some(Place {
            _permit: permit,
            server: self.clone(),
            client,
        })
    }

    async fn serve(self, stream: Stream, peer: Peer, _place: Place) {
        let stalled = Duration::from_secs(self.admission.limits.stalled_seconds);
        match stream {
            Stream::Tcp(stream) => {
                // Answers are written whole; waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                self.encrypt(Paced::new(stream, stalled), peer).await;
            }
            Stream::Unix(stream) => self.converse(Paced::new(stream, stalled), peer).await,
        }
    }

    async fn encrypt<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        peer: Peer,
    ) {
        let Some(acceptor) = self.tls.current() else {
            return self.converse(stream, peer).await;
        };
        let time = Duration::from_secs(self.admission.limits.header_seconds);
        // Whoever speaks no TLS, or too slowly, gets no answer.
        if let Ok(Ok(stream)) = tokio::time::timeout(time, acceptor.accept(stream)).await {
            self.converse(stream, peer).await;
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        peer: Peer,
    ) {
        let limits = self.admission.limits;
        let router = self.router.layer(axum::Extension(peer));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(limits.header_seconds))
            .max_buf_size(limits.header_bytes);
        let connection =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection);
        let mut ending = self.ending.clone();
        // A client that goes away, or breaks the protocol, is no failure of the program.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = told_to_end(&mut ending) => {}
            () = tokio::time::sleep(Duration::from_secs(limits.connection_seconds)) => {}
        }
        connection.as_mut().graceful_shutdown();
        let time =
            Duration::from_millis(limits.request_ms) + Duration::from_secs(limits.stalled_seconds);
        let _ = tokio::time::timeout(time, connection).await;
    }
}

/// Waits until the program is to end. Whoever would tell has gone only if it has ended.
async fn told_to_end(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<(Stream, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            Ok((Stream::Tcp(stream), Peer(Some(address.ip()))))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            Ok((Stream::Unix(stream), Peer(None)))
        }
    }
}
