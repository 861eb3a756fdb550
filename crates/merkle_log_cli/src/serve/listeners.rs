//! Where the gateway listens, for everyone and for administration.

use super::config::{Admin, Config};
use crate::http::{HandedOver, Listener};
use crate::output::Failure;
use std::net::IpAddr;

pub struct Listeners {
    pub public: Vec<Listener>,
    pub admin: Option<Listener>,
}

/// The name in FileDescriptorName= of the socket for administration.
const ADMIN: &str = "admin";

impl Listeners {
    pub fn open(config: &Config) -> Result<Listeners, Failure> {
        let (mut public, mut admin) = (Vec::new(), None);
        for HandedOver { name, listener } in HandedOver::all()? {
            match name == ADMIN {
                true => admin = Some(listener),
                false => public.push(listener),
            }
        }
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
}
