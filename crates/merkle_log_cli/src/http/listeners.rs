//! Where a program listens: addresses and Unix sockets of its own, or sockets that systemd hands over; and telling
//! systemd that it does.

use crate::output::Failure;
use listenfd::ListenFd;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as unix;
use std::path::Path;
use tokio::net::{TcpListener, UnixListener};

#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub fn bind(wanted: &str) -> Result<Listener, Failure> {
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

/// A socket in a file that a program has left behind is replaced; one on which somebody listens is not. Group and owner
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

/// A socket from systemd, with the name that its unit gives it.
pub struct HandedOver {
    pub name: String,
    pub listener: Listener,
}

impl HandedOver {
    /// All of them (sd_listen_fds(3)).
    pub fn all() -> Result<Vec<HandedOver>, Failure> {
        // Before the other variables are read and taken away.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut all = Vec::new();
        for place in 0..sockets.len() {
            let listener = match sockets.take_tcp_listener(place) {
                Ok(Some(listener)) => Listener::of_tcp(listener)?,
                _ => match sockets.take_unix_listener(place)? {
                    Some(listener) => Listener::of_unix(listener)?,
                    None => continue,
                },
            };
            let name = names.split(':').nth(place).unwrap_or_default().to_owned();
            all.push(HandedOver { name, listener });
        }
        Ok(all)
    }
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
