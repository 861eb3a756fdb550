//! A datagram to the socket of syslog, as syslog(3) writes it.

use crate::monitor::event::Event;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

pub struct Syslog {
    socket: PathBuf,
}

/// RFC 3164 §4.1.1: the facility for daemons, and severities.
const DAEMON: u8 = 3 << 3;
const CRITICAL: u8 = 2;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;

impl Syslog {
    pub fn new(socket: &Path) -> Syslog {
        Syslog {
            socket: socket.to_owned(),
        }
    }

    pub fn tell(&self, event: &Event, json: &str) -> Result<(), String> {
        let severity = match (event.was, event.proven) {
            (Some(_), _) => NOTICE,
            (None, true) => CRITICAL,
            (None, false) => WARNING,
        };
        let (priority, pid) = (DAEMON | severity, std::process::id());
        let line = format!("<{priority}>merkle-log[{pid}]: {json}");
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(line.as_bytes(), &self.socket)
        });
        match sent {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{}: {error}", self.socket.display())),
        }
    }
}
