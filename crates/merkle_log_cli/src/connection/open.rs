//! Opens a connection to the first of the named servers that takes it. The client library would do so by itself, but not
//! over a stream that bounds what the server may send.

use super::bounded::{Bounded, BoundedTls};
use super::{failed, said};
use crate::output::Failure;
use std::io::Error;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

const PORT: u16 = 5432;

/// One of the servers that were named.
struct Server<'c> {
    /// A name for certificates, or the directory of a socket.
    host: Option<&'c Host>,
    /// Where it is, if that is not to be asked of the name.
    address: Option<IpAddr>,
    port: u16,
}

pub async fn open(config: &Config, tls: MakeRustlsConnect) -> Result<Client, Failure> {
    let mut last = said("no host was named");
    for server in servers(config)? {
        match server.connect(config, &tls).await {
            Ok(client) => return Ok(client),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn servers(config: &Config) -> Result<Vec<Server<'_>>, Failure> {
    let (hosts, addresses, ports) = (
        config.get_hosts(),
        config.get_hostaddrs(),
        config.get_ports(),
    );
    let count = hosts.len().max(addresses.len());
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(said("there are not as many hosts as values of hostaddr"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(said("there are not as many ports as hosts"));
    }
    let server = |place: usize| Server {
        host: hosts.get(place),
        address: addresses.get(place).copied(),
        port: *ports.get(place).or(ports.first()).unwrap_or(&PORT),
    };
    Ok((0..count).map(server).collect())
}

impl Server<'_> {
    async fn connect(&self, config: &Config, tls: &MakeRustlsConnect) -> Result<Client, Failure> {
        match (self.address, self.host) {
            (Some(address), _) => {
                self.connect_tcp((address, self.port).into(), config, tls)
                    .await
            }
            (None, Some(Host::Unix(directory))) => {
                let socket = directory.join(format!(".s.PGSQL.{}", self.port));
                let opened = in_time(config, UnixStream::connect(Path::new(&socket))).await;
                self.start(opened.map_err(unreached)?, config, tls).await
            }
            (None, Some(Host::Tcp(name))) => {
                let found = tokio::net::lookup_host((name.as_str(), self.port)).await;
                let mut last = said("the host has no address");
                for address in found.map_err(unreached)? {
                    match self.connect_tcp(address, config, tls).await {
                        Ok(client) => return Ok(client),
                        Err(failure) => last = failure,
                    }
                }
                Err(last)
            }
            (None, None) => Err(said("no host was named")),
        }
    }

    async fn connect_tcp(
        &self,
        address: std::net::SocketAddr,
        config: &Config,
        tls: &MakeRustlsConnect,
    ) -> Result<Client, Failure> {
        let opened = in_time(config, TcpStream::connect(address)).await;
        let stream = opened.map_err(unreached)?;
        stream.set_nodelay(true).map_err(unreached)?;
        // A server that went away without a word is noticed in the end.
        rustix::net::sockopt::set_socket_keepalive(&stream, true)
            .map_err(|error| unreached(error.into()))?;
        self.start(stream, config, tls).await
    }

    async fn start<S>(
        &self,
        stream: S,
        config: &Config,
        tls: &MakeRustlsConnect,
    ) -> Result<Client, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let asks_for_tls = config.get_ssl_mode() != SslMode::Disable;
        let stream = Bounded::new(stream, asks_for_tls);
        let name = match self.host {
            Some(Host::Tcp(name)) => name,
            _ => "",
        };
        let connect = MakeTlsConnect::<Bounded<S>>::make_tls_connect(&mut tls.clone(), name);
        let connect = connect.map_err(|error| said(&error.to_string()))?;
        let (client, connection) = config
            .connect_raw(stream, BoundedTls(connect))
            .await
            .map_err(failed)?;
        // Why a connection ended is told to whoever uses it next.
        tokio::spawn(connection);
        is_wanted(&client, config.get_target_session_attrs()).await?;
        Ok(client)
    }
}

async fn in_time<T>(
    config: &Config,
    opening: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<T> {
    match config.get_connect_timeout() {
        Some(time) if *time > Duration::ZERO => match tokio::time::timeout(*time, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::other("connection timed out")),
        },
        _ => opening.await,
    }
}

fn unreached(error: Error) -> Failure {
    Failure::Said(format!("error connecting to server: {error}"))
}

/// That a server takes writes, or takes none, if that was asked for.
async fn is_wanted(client: &Client, wanted: TargetSessionAttrs) -> Result<(), Failure> {
    let (value, problem) = match wanted {
        TargetSessionAttrs::ReadWrite => ("off", "database does not allow writes"),
        TargetSessionAttrs::ReadOnly => ("on", "database is not read only"),
        _ => return Ok(()),
    };
    let messages = client.simple_query("SHOW transaction_read_only").await;
    let shown = messages.map_err(failed)?.into_iter().any(
        |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some(value)),
    );
    match shown {
        true => Ok(()),
        false => Err(said(&format!("error connecting to server: {problem}"))),
    }
}
