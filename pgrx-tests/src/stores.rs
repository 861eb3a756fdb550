//! Object stores on this machine: moto and Azurite, which speak the protocols of S3 and Azure.

use crate::command_line::says;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What answers as an object store, which has a bucket of the name `bucket`.
pub struct Store {
    child: Child,
    pub kind: &'static str,
    endpoint: String,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> PathBuf {
    tests().join("../target/clients/python/bin/python")
}

/// An address of this machine that is free.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Store {
    pub fn s3() -> Store {
        let address = free();
        let mut moto = Command::new(python());
        moto.arg(python().with_file_name("moto_server")).args([
            "-H",
            "127.0.0.1",
            "-p",
            &address.port().to_string(),
        ]);
        Store::start("s3", moto, address, "")
    }

    pub fn azure() -> Store {
        let address = free();
        let mut azurite = Command::new("node");
        azurite
            .arg(tests().join("../target/clients/node/node_modules/azurite/dist/src/blob/main.js"))
            .args(["--blobHost", "127.0.0.1", "--blobPort"])
            .arg(address.port().to_string())
            .args([
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--silent",
                "--disableTelemetry",
            ]);
        Store::start("az", azurite, address, "/devstoreaccount1")
    }

    fn start(kind: &'static str, mut server: Command, address: SocketAddr, path: &str) -> Store {
        let child = server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/setup.sh test installs it");
        let store = Store {
            child,
            kind,
            endpoint: format!("http://{address}{path}"),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "{kind}: nobody listens");
            std::thread::sleep(Duration::from_millis(50));
        }
        store.objects(&["bucket"]);
        store
    }

    /// From now on nobody answers.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn objects(&self, arguments: &[&str]) {
        let script = tests().join("clients/store_objects.py");
        let (code, text) = says(
            Command::new(python())
                .arg(script)
                .args([self.kind, &self.endpoint])
                .args(arguments),
        );
        assert_eq!(code, 0, "{text}");
    }

    /// Where it is, and who may write to it, as the environment says it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoint = self.endpoint.clone();
        match self.kind {
            "s3" => vec![
                ("AWS_ENDPOINT", endpoint),
                ("AWS_ALLOW_HTTP", "true".to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ACCESS_KEY_ID", "a".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
            ],
            _ => vec![
                ("AZURE_ENDPOINT", endpoint),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY.to_owned()),
            ],
        }
    }
}

/// Of the account that every Azurite has.
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
