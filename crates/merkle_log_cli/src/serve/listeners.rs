//! Where the gateway listens: addresses and Unix sockets of its own, or sockets that systemd hands over; and telling
//! systemd that it does.

use super::config::{Admin, Config};
use crate::output::Failure;
use listenfd::ListenFd;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as unix;
use std::path::Path;
use tokio::net::{TcpListener, UnixListener};

#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

pub struct Listeners {
    pub public: Vec<Listener>,
    pub admin: Option<Listener>,
}

/// The name in FileDescriptorName= of the socket for administration.
const ADMIN: &str = "admin";

impl Listeners {
    pub fn open(config: &Config) -> Result<Listeners, Failure> {
        let (mut public, mut admin) = handed_over()?;
        if admin.is_some() && config.admin.is_none() {
            return Err(Failure::Said(
                "there is a socket for administration, and nothing in the configuration about it\n\
                 Hint: Name a file of tokens in [admin]."
                    .to_owned(),
            ));
        }
        if let (None, Some(wanted)) = (&admin, &config.admin) {
            check_admin(wanted, config.tls.is_some())?;
            admin = Some(Listener::bind(&wanted.listen)?);
        }
        if public.is_empty() {
            let wanted = config.listen.iter().map(|wanted| Listener::bind(wanted));
            public = wanted.collect::<Result<_, _>>()?;
        }
        Ok(Listeners { public, admin })
    }
}

/// Administration is not for the network, unless it is encrypted: the token would go over it for everyone to read.
fn check_admin(admin: &Admin, tls: bool) -> Result<(), Failure> {
    let host = admin.listen.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    match admin.listen.starts_with("unix:") || loopback || tls {
        true => Ok(()),
        false => Err(Failure::Said(format!(
            "admin.listen = {:?} is not of this machine alone\n\
             Hint: Use unix:PATH, 127.0.0.1:PORT or [::1]:PORT, or configure TLS.",
            admin.listen
        ))),
    }
}

impl Listener {
    fn bind(wanted: &str) -> Result<Listener, Failure> {
        let failed =
            |error: io::Error| Failure::Said(format!("cannot listen on {wanted}: {error}"));
        match wanted.strip_prefix("unix:") {
            Some(path) => Listener::of_unix(bind_unix(Path::new(path)).map_err(failed)?),
            None => {
                let listener = std::net::TcpListener::bind(wanted).map_err(failed)?;
                Listener::of_tcp(listener)
            }
        }
    }

    fn of_tcp(listener: std::net::TcpListener) -> Result<Listener, Failure> {
        listener.set_nonblocking(true)?;
        Ok(Listener::Tcp(TcpListener::from_std(listener)?))
    }

    fn of_unix(listener: unix::UnixListener) -> Result<Listener, Failure> {
        listener.set_nonblocking(true)?;
        Ok(Listener::Unix(UnixListener::from_std(listener)?))
    }

    /// Where it listens, for people.
    pub fn name(&self) -> String {
        match self {
            Listener::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|e| e.to_string(), |a| a.to_string()),
            Listener::Unix(listener) => {
                let address = listener.local_addr();
                let path = address
                    .as_ref()
                    .ok()
                    .and_then(|address| address.as_pathname());
                path.map_or_else(
                    || "a Unix socket".to_owned(),
                    |path| format!("unix:{}", path.display()),
                )
            }
        }
    }
}

/// A socket in a file that a gateway has left behind is replaced; one on which somebody listens is not. Group and owner
/// may connect.
fn bind_unix(path: &Path) -> io::Result<unix::UnixListener> {
    let bound = match unix::UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match unix::UnixStream::connect(path) {
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?
                }
                _ => return Err(error),
            }
            unix::UnixListener::bind(path)
        }
        bound => bound,
    }?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(bound)
}

type HandedOver = (Vec<Listener>, Option<Listener>);

/// Sockets from systemd (sd_listen_fds(3)), by the names that their units give them.
fn handed_over() -> Result<HandedOver, Failure> {
    // Before the other variables are read and taken away.
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut sockets = ListenFd::from_env();
    let (mut public, mut admin) = (Vec::new(), None);
    for place in 0..sockets.len() {
        let listener = match sockets.take_tcp_listener(place) {
            Ok(Some(listener)) => Listener::of_tcp(listener)?,
            _ => match sockets.take_unix_listener(place)? {
                Some(listener) => Listener::of_unix(listener)?,
                None => continue,
            },
        };
        match names.split(':').nth(place) {
            Some(ADMIN) => admin = Some(listener),
            _ => public.push(listener),
        }
    }
    Ok((public, admin))
}

/// Tells the service manager how things stand (sd_notify(3)), if there is one that wants to know.
pub fn tell_service_manager(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let send = || {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => unix::SocketAddr::from_abstract_name(name)?,
            None => unix::SocketAddr::from_pathname(&socket)?,
        };
        unix::UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn administration_is_not_for_the_network_in_the_clear() {
        let admin = |listen: &str| Admin {
            listen: listen.to_owned(),
            tokens: "tokens".into(),
            database: None,
        };
        for listen in ["unix:/run/a", "127.0.0.1:1", "127.8.8.8:1", "[::1]:1"] {
            assert!(check_admin(&admin(listen), false).is_ok(), "{listen}");
        }
        for listen in [
            "0.0.0.0:1",
            "[::]:1",
            "192.0.2.1:1",
            "localhost.example.com:1",
        ] {
            assert!(check_admin(&admin(listen), false).is_err(), "{listen}");
            assert!(check_admin(&admin(listen), true).is_ok(), "{listen}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = format!("unix:{}", directory.path().join("socket").display());
        let first = Listener::bind(&wanted).unwrap();
        assert!(Listener::bind(&wanted).is_err());
        drop(first);
        Listener::bind(&wanted).unwrap();
    }
}
