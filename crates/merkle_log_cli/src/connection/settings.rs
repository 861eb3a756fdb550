//! The settings of a connection by their names in libpq. What `--dbname` says goes before what the service file
//! says, and that before the environment.

use super::{conninfo, passfile};
use crate::output::Failure;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The settings that are understood, and the variables that hold them.
const KNOWN: [(&str, &str); 18] = [
    ("application_name", "PGAPPNAME"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("port", "PGPORT"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("user", "PGUSER"),
    ("sysconfdir", "PGSYSCONFDIR"),
];

/// Where servers put their sockets: Debian's packages, and PostgreSQL itself.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<String, String>,
    home: Option<PathBuf>,
}

impl Settings {
    /// `variable`: the environment.
    pub fn gather(
        dbname: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Settings, Failure> {
        let mut settings = Settings {
            values: BTreeMap::new(),
            home: variable("HOME")
                .filter(|home| !home.is_empty())
                .map(PathBuf::from),
        };
        let given = dbname.map(conninfo::parse).transpose()?.unwrap_or_default();
        if given
            .iter()
            .any(|(name, value)| name == "password" && !value.is_empty())
        {
            return Err(Failure::Said(
                "a password in an argument can be read by everyone on this machine\n\
                 Hint: Put it into ~/.pgpass, or a file that PGPASSFILE names."
                    .to_owned(),
            ));
        }
        settings.add(given)?;
        let environment = KNOWN.iter().filter_map(|(name, in_environment)| {
            Some((
                name.to_string(),
                variable(in_environment).filter(|value| !value.is_empty())?,
            ))
        });
        let environment: Vec<_> = environment.collect();
        let from_environment = |name| {
            environment
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value)
        };
        let service = settings
            .values
            .get("service")
            .or_else(|| from_environment("service"))
            .cloned();
        if let Some(service) = service {
            let files = [
                from_environment("servicefile")
                    .map(PathBuf::from)
                    .or_else(|| settings.in_home(".pg_service.conf")),
                Some(
                    from_environment("sysconfdir")
                        .map_or(Path::new("/etc/postgresql-common"), |directory| {
                            Path::new(directory)
                        })
                        .join("pg_service.conf"),
                ),
            ];
            settings.add(self::service(&service, files.into_iter().flatten())?)?;
        }
        settings.add(environment)?;
        Ok(settings)
    }

    /// Adds what is not there yet.
    fn add(&mut self, pairs: Vec<(String, String)>) -> Result<(), Failure> {
        for (name, value) in pairs {
            if !KNOWN.iter().any(|(known, _)| *known == name) {
                return Err(Failure::Said(format!(
                    "the connection setting {name:?} is not supported"
                )));
            }
            self.values.entry(name).or_insert(value);
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub fn list<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s str> + use<'s> {
        self.get(name)
            .into_iter()
            .flat_map(|values| values.split(','))
    }

    /// A file in the home directory, whether it exists or not.
    pub fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }

    /// The hosts, or the socket's directory where none is given.
    pub fn hosts(&self) -> Vec<String> {
        let given: Vec<String> = self
            .list("host")
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        if !given.is_empty() || self.get("hostaddr").is_some() {
            return given;
        }
        let port = self
            .ports()
            .ok()
            .and_then(|ports| ports.first().copied())
            .unwrap_or(DEFAULT_PORT);
        let socket = format!(".s.PGSQL.{port}");
        let has_socket = |directory: &&&str| Path::new(directory).join(&socket).exists();
        let directory = SOCKET_DIRECTORIES.iter().find(has_socket);
        vec![
            directory
                .map_or("localhost", |directory| directory)
                .to_owned(),
        ]
    }

    pub fn ports(&self) -> Result<Vec<u16>, Failure> {
        let port = |port: &str| match port {
            "" => Ok(DEFAULT_PORT),
            port => port
                .parse()
                .map_err(|_| Failure::Said(format!("{port:?} is not a port"))),
        };
        self.list("port").map(port).collect()
    }

    pub fn user(&self) -> Result<String, Failure> {
        match self.get("user") {
            Some(user) => Ok(user.to_owned()),
            None => whoami::username().map_err(|error| {
                Failure::Said(format!("nobody knows who runs this ({error}): set PGUSER"))
            }),
        }
    }

    pub fn dbname(&self) -> Result<String, Failure> {
        self.get("dbname")
            .map_or_else(|| self.user(), |dbname| Ok(dbname.to_owned()))
    }

    pub fn password(&self) -> Result<Option<String>, Failure> {
        if let Some(password) = self.get("password") {
            return Ok(Some(password.to_owned()));
        }
        let file = self
            .get("passfile")
            .map(PathBuf::from)
            .or_else(|| self.in_home(".pgpass"));
        let hosts = self.hosts();
        let host = hosts
            .first()
            .map(String::as_str)
            .or_else(|| self.list("hostaddr").next());
        // As in libpq, the default socket is the local host.
        let host = host
            .filter(|host| !SOCKET_DIRECTORIES.contains(host))
            .unwrap_or("localhost");
        let port = self
            .ports()?
            .first()
            .copied()
            .unwrap_or(DEFAULT_PORT)
            .to_string();
        let (dbname, user) = (self.dbname()?, self.user()?);
        Ok(file.and_then(|file| passfile::find(&file, [host, &port, &dbname, &user])))
    }
}

/// The settings of a service, from the first file that has it.
fn service(
    name: &str,
    files: impl Iterator<Item = PathBuf>,
) -> Result<Vec<(String, String)>, Failure> {
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut lines = lines.skip_while(|line| {
            line.strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
                != Some(name)
        });
        if lines.next().is_none() {
            continue;
        }
        let pairs = lines.take_while(|line| !line.starts_with('[')).map(|line| {
            let (name, value) = line.split_once('=').ok_or_else(|| {
                Failure::Said(format!(
                    "{}: the line {line:?} is no setting",
                    file.display()
                ))
            })?;
            Ok((name.trim_end().to_owned(), value.trim_start().to_owned()))
        });
        return pairs.collect();
    }
    Err(Failure::Said(format!(
        "there is no definition of the service {name:?}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(dbname: Option<&str>, environment: &[(&str, &str)]) -> Result<Settings, Failure> {
        Settings::gather(dbname, &|wanted| {
            let found = environment.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn a_string_goes_before_the_service_and_that_before_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("services");
        std::fs::write(&file, "[other]\nhost=x\n[audit]\n# mine\nhost=from-service\nport = 7\nuser=s\n[more]\nuser=m\n").unwrap();
        let environment = [
            ("PGSERVICEFILE", file.to_str().unwrap()),
            ("PGHOST", "from-environment"),
            ("PGDATABASE", "d"),
            ("PGUSER", "e"),
        ];
        let settings = gather(Some("service=audit user=me"), &environment).unwrap();
        assert_eq!(settings.hosts(), ["from-service"]);
        assert_eq!(settings.ports().unwrap(), [7]);
        assert_eq!(
            (settings.user().unwrap(), settings.dbname().unwrap()),
            ("me".to_owned(), "d".to_owned())
        );
        let settings = gather(None, &environment).unwrap();
        assert_eq!(settings.hosts(), ["from-environment"]);
        assert!(gather(Some("service=absent"), &environment).is_err());
    }

    #[test]
    fn a_password_comes_from_a_file_or_the_environment_only() {
        assert!(gather(Some("password=x"), &[]).is_err());
        assert!(gather(Some("postgres://me:x@h/d"), &[]).is_err());
        let settings = gather(None, &[("PGPASSWORD", "x")]).unwrap();
        assert_eq!(settings.password().unwrap().as_deref(), Some("x"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".pgpass");
        std::fs::write(&file, "h:5432:d:me:y\n").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let settings = gather(
            Some("postgres://me@h/d"),
            &[("HOME", directory.path().to_str().unwrap())],
        )
        .unwrap();
        assert_eq!(settings.password().unwrap().as_deref(), Some("y"));
    }

    #[test]
    fn a_setting_that_would_be_ignored_is_refused() {
        assert!(gather(Some("sslmod=verify-full"), &[]).is_err());
    }
}
