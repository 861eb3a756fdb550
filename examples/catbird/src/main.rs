//! `catbird_server [ADDRESS]`: the server of `lib.rs` at 127.0.0.1:8080, or there.

use catbird_db::transparency::{self, Log, Options};
use catbird_db::{Config, Database};
use std::time::Duration;
use tokio::net::TcpListener;

/// How often the logs take what is new, where no background worker of merkle_log does it.
const BATCHES: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let address = std::env::args().nth(1);
    let db = Database::connect(&Config::from_env()?).await?;
    db.migrate().await?;
    let mut transaction = db.begin_transaction().await?;
    match transparency::register(&mut transaction, Options::default()).await {
        Ok(()) => {
            transaction.commit().await?;
            tokio::spawn(keep_logging(db.clone()));
        }
        Err(error) => eprintln!(
            "without proofs: {error}. {}",
            error.hint().unwrap_or_default()
        ),
    }
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, catbird_server::router(db.clone()))
        .with_graceful_shutdown(async {
            // If the signal cannot be waited for, the server runs until it is killed.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}

async fn keep_logging(db: Database) {
    loop {
        for log in [Log::Messages, Log::KeyPackages] {
            if let Err(error) = transparency::log_now(&db, log).await {
                tracing::warn!(log = log.name(), %error, "no batch");
            }
        }
        tokio::time::sleep(BATCHES).await;
    }
}
