//! What all requests share: the pool, the limits, and what a reload replaces.

use super::config::{Config, Limits};
use super::pool::{Pool, Purpose, Session, pool};
use super::problems::{Kind, Problem};
use super::tokens::Tokens;
use crate::connection::Connection;
use crate::http::{self, Admission, Refusal};
use crate::output::Failure;
use axum::response::{IntoResponse, Response};
use deadpool::managed::{PoolError, TimeoutType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub type Shared = Arc<Gateway>;

pub struct Gateway {
    pool: Pool,
    admin_pool: Option<Pool>,
    proofs: Arc<Semaphore>,
    /// Half of the pool: what reads many rows leaves the other half to proofs.
    rows: Arc<Semaphore>,
    /// Kilobytes of large answers.
    answers: Arc<Semaphore>,
    live: RwLock<Arc<Live>>,
    pub limits: Limits,
    pub admission: http::Shared,
    /// The gateway was told to end.
    pub ending: AtomicBool,
    pub remembered: super::read::health::Remembered,
    pub history: super::page::history::History,
}

/// What SIGHUP replaces as a whole.
pub struct Live {
    pub public_logs: BTreeSet<String>,
    pub read_tokens: Tokens,
    pub admin_tokens: Tokens,
    pub tiles: BTreeMap<String, PathBuf>,
    pub trusted_proxies: Vec<IpAddr>,
}

impl Live {
    pub fn of(config: &Config) -> Result<Live, Failure> {
        let tokens = |file: Option<&PathBuf>| file.map(|file| Tokens::read(file)).transpose();
        Ok(Live {
            public_logs: config.public_logs.clone(),
            read_tokens: tokens(config.read_tokens.as_ref())?.unwrap_or_default(),
            admin_tokens: tokens(config.admin.as_ref().map(|admin| &admin.tokens))?
                .unwrap_or_default(),
            tiles: config.tiles.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
        })
    }

    pub fn is_public(&self, log: &str) -> bool {
        self.public_logs.contains(log)
    }
}

/// A session, for as long as one request uses it.
pub struct Lease {
    session: deadpool::managed::Object<super::pool::Opener>,
    _permits: Permits,
}

type Permits = [Option<OwnedSemaphorePermit>; 2];

impl std::ops::Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Gateway {
    pub fn new(config: &Config, connection: &Connection) -> Result<Gateway, Failure> {
        let limits = config.limits;
        let database = connection.or(config.database.as_deref());
        let admin = config.admin.as_ref().map(|admin| {
            let connection = match &admin.database {
                Some(_) => Connection::default().or(admin.database.as_deref()),
                None => database.clone(),
            };
            pool(connection, Purpose::Administration, &limits)
        });
        Ok(Gateway {
            pool: pool(database, Purpose::Reading, &limits)?,
            admin_pool: admin.transpose()?,
            proofs: Arc::new(Semaphore::new(limits.concurrent_proofs)),
            rows: Arc::new(Semaphore::new(limits.database_connections.div_ceil(2))),
            answers: Arc::new(Semaphore::new(limits.answers_mb * 1024)),
            live: RwLock::new(Arc::new(Live::of(config)?)),
            limits,
            admission: Admission::new(
                limits.http(),
                "merkle_log_gateway",
                &config.trusted_proxies,
                refused,
            ),
            ending: AtomicBool::new(false),
            remembered: Default::default(),
            history: Default::default(),
        })
    }

    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn reload(&self, live: Live) {
        self.admission.trust(&live.trusted_proxies);
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// A session that only reads.
    pub async fn session(&self) -> Result<Lease, Problem> {
        let permit = Arc::clone(&self.proofs).try_acquire_owned();
        let permit = permit.map_err(|_| busy())?;
        lease(&self.pool, [Some(permit), None]).await
    }

    /// A session that reads many rows. Most sessions are not for that, so that a proof need not wait for it.
    pub async fn session_for_rows(&self) -> Result<Lease, Problem> {
        let wait = std::time::Duration::from_millis(self.limits.wait_ms);
        let permit = tokio::time::timeout(wait, Arc::clone(&self.rows).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(busy());
        };
        let mut lease = self.session().await?;
        lease._permits[1] = Some(permit);
        Ok(lease)
    }

    /// A session that changes logs.
    pub async fn admin_session(&self) -> Result<Lease, Problem> {
        let pool = self.admin_pool.as_ref();
        lease(
            pool.ok_or_else(|| Problem::new(Kind::NotFound, "nothing is administered here"))?,
            [None, None],
        )
        .await
    }

    /// Sessions that are open, and that are used.
    pub fn sessions(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.size.saturating_sub(status.available))
    }

    /// Room for a large answer, to be held until it is sent.
    pub async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let kilobytes = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        let wait = std::time::Duration::from_millis(self.limits.wait_ms);
        let room = Arc::clone(&self.answers).acquire_many_owned(kilobytes);
        match tokio::time::timeout(wait, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Problem::new(
                Kind::Unavailable,
                "too many large answers are on their way",
            )),
        }
    }
}

fn refused(refusal: Refusal) -> Response {
    let problem = match refusal {
        Refusal::NoSuchPath => Problem::new(Kind::NotFound, "nothing has this path")
            .with_hint("GET /docs says what there is."),
        Refusal::NoSuchMethod => Problem::new(
            Kind::MethodNotAllowed,
            "this path is not asked with that method",
        ),
        Refusal::TooOften => Problem::new(
            Kind::TooManyRequests,
            "this client asks for more than it may",
        )
        .with_hint("Ask for less often; many entries can be proven with one bundle."),
        Refusal::TooSlow => Problem::new(Kind::Unavailable, "the answer takes too long"),
        Refusal::Failed => Problem::new(Kind::Internal, "the gateway failed"),
    };
    problem.into_response()
}

fn busy() -> Problem {
    Problem::new(
        Kind::Unavailable,
        "the gateway answers as many requests as it may",
    )
    .with_hint("Try again after the time that Retry-After says.")
}

async fn lease(pool: &Pool, permits: Permits) -> Result<Lease, Problem> {
    match pool.get().await {
        Ok(session) => Ok(Lease {
            session,
            _permits: permits,
        }),
        Err(PoolError::Timeout(TimeoutType::Wait)) => Err(busy()),
        Err(why) => Err(Problem::unreachable(&why)),
    }
}
