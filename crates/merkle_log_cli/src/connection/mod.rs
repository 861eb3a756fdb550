//! The connection to the database, named as psql names it: `--dbname`, a service file, the environment.
//!
//! Whoever gives no host reaches the server on this machine. A password comes from a file or the
//! environment, never from an argument, which every user of the machine can read.

mod bounded;
mod conninfo;
mod open;
mod passfile;
mod settings;
mod tls;

use crate::output::Failure;
use settings::Settings;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config};

#[derive(clap::Args, Clone, Debug, Default)]
pub struct Connection {
    /// The database: its name, a URI (postgresql://…) or a keyword string (host=… dbname=…), as for psql.
    /// What it leaves open comes from PGSERVICE, PGHOST, PGPORT, PGDATABASE, PGUSER and so on; a password from
    /// PGPASSFILE, ~/.pgpass or PGPASSWORD
    #[arg(short, long, value_name = "NAME", help_heading = "Connection")]
    dbname: Option<String>,
}

impl Connection {
    /// With what another place says where an argument says nothing.
    pub fn or(&self, dbname: Option<&str>) -> Connection {
        Connection {
            dbname: self.dbname.clone().or_else(|| dbname.map(str::to_owned)),
        }
    }
}

/// Connects, and lets the connection do its work in the background.
pub async fn connect(options: &Connection) -> Result<Client, Failure> {
    let settings = Settings::gather(options.dbname.as_deref(), &|name| std::env::var(name).ok())?;
    let mode = tls::Mode::of(&settings)?;
    let config = config(&settings, mode)?;
    let connector = tls::connector(&settings, mode)?;
    open::open(&config, connector).await
}

fn config(settings: &Settings, mode: tls::Mode) -> Result<Config, Failure> {
    let mut config = Config::new();
    config
        .user(settings.user()?)
        .dbname(settings.dbname()?)
        .application_name(settings.get("application_name").unwrap_or("merkle-log"));
    for host in settings.hosts() {
        config.host(host);
    }
    for address in settings.list("hostaddr") {
        let address = address.parse();
        config.hostaddr(address.map_err(|_| said("hostaddr is not an IP address"))?);
    }
    for port in settings.ports()? {
        config.port(port);
    }
    if let Some(password) = settings.password()? {
        config.password(password);
    }
    if let Some(options) = settings.get("options") {
        config.options(options);
    }
    if let Some(seconds) = settings.get("connect_timeout") {
        let seconds = u64::from_str(seconds)
            .map_err(|_| said("connect_timeout is not a number of seconds"))?;
        config.connect_timeout(Duration::from_secs(seconds));
    }
    config.target_session_attrs(match settings.get("target_session_attrs") {
        None | Some("any") => TargetSessionAttrs::Any,
        Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
        Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
        Some(other) => {
            return Err(said(&format!(
                "target_session_attrs={other} is not supported"
            )));
        }
    });
    let only_sockets = config
        .get_hosts()
        .iter()
        .all(|host| matches!(host, Host::Unix(_)));
    config.ssl_mode(match mode {
        // A socket is a file of this machine, and no server offers TLS on one.
        _ if only_sockets && config.get_hostaddrs().is_empty() => SslMode::Disable,
        tls::Mode::Disable => SslMode::Disable,
        tls::Mode::Prefer => SslMode::Prefer,
        tls::Mode::Require | tls::Mode::VerifyCa | tls::Mode::VerifyFull => SslMode::Require,
    });
    Ok(config)
}

fn said(what: &str) -> Failure {
    Failure::Said(what.to_owned())
}

/// What the server said, with its hint; or why it could not be asked.
pub fn failed(error: tokio_postgres::Error) -> Failure {
    let Some(refused) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            let error_text = error.to_string();
            if !text.contains(&error_text) {
                let _ = write!(text, ": {error_text}");
            }
            cause = error.source();
        }
        return Failure::Said(text);
    };
    let mut text = refused.message().to_owned();
    for (name, part) in [("Detail", refused.detail()), ("Hint", refused.hint())] {
        if let Some(part) = part {
            let _ = write!(text, "\n{name}: {part}");
        }
    }
    Failure::Said(text)
}
