//! A real Prometheus: Debian's package `prometheus`, which has promtool as well.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the dashboards and rules are.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/monitoring")
}

/// What Prometheus scrapes.
pub struct Target<'t> {
    pub job: &'t str,
    /// What it is called in labels.
    pub instance: &'t str,
    pub address: &'t str,
}

pub struct Prometheus {
    child: Child,
    address: String,
    agent: ureq::Agent,
    directory: TempDir,
}

impl Prometheus {
    /// Scrapes the targets every two seconds, with the rules of these files of `examples/monitoring`.
    pub fn start(targets: &[Target], rules: &[&str]) -> Prometheus {
        let directory = tempfile::tempdir().unwrap();
        let examples = examples().canonicalize().unwrap();
        let mut configuration =
            "global: {scrape_interval: 2s, evaluation_interval: 1s}\n".to_owned();
        let rules: Vec<_> = rules.iter().map(|file| examples.join(file)).collect();
        let _ = writeln!(configuration, "rule_files: {}", json!(rules));
        let mut jobs: Vec<Value> = Vec::new();
        for Target {
            job,
            instance,
            address,
        } in targets
        {
            let of = json!({"targets": [address], "labels": {"instance": instance}});
            match jobs.iter_mut().find(|known| known["job_name"] == *job) {
                Some(known) => known["static_configs"].as_array_mut().unwrap().push(of),
                None => jobs.push(json!({"job_name": job, "static_configs": [of]})),
            }
        }
        let _ = writeln!(configuration, "scrape_configs: {}", json!(jobs));
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let address = free_address();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is Debian's package prometheus: scripts/setup.sh test");
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let prometheus = Prometheus {
            child,
            address,
            agent: config.timeout_global(Some(PATIENCE)).build().into(),
            directory,
        };
        prometheus.wait("it is not ready", || {
            let ready = format!("http://{}/-/ready", prometheus.address);
            let answer = prometheus.agent.get(&ready).call();
            answer
                .is_ok_and(|answer| answer.status() == 200)
                .then_some(())
        });
        prometheus
    }

    /// The series that a query gives: their labels, and the value now.
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let address = format!("http://{}/api/v1/query", self.address);
        let answer = self.agent.post(&address).send_form([("query", query)]);
        let answer = self.data(query, answer);
        assert_eq!(answer["resultType"], "vector", "{query}");
        let series = answer["result"].as_array().unwrap().iter();
        let value = |of: &Value| of["value"][1].as_str().unwrap().parse().unwrap();
        series.map(|of| (of["metric"].clone(), value(of))).collect()
    }

    /// Waits until a query gives what the test wants.
    pub fn until(&self, query: &str, wanted: impl Fn(&[(Value, f64)]) -> bool) {
        self.wait(query, || wanted(&self.query(query)).then_some(()));
    }

    /// The rules, with their queries and how their evaluation went.
    pub fn rules(&self) -> Vec<Value> {
        let address = format!("http://{}/api/v1/rules", self.address);
        let answer = self.data("rules", self.agent.get(&address).call());
        let groups = answer["groups"].as_array().unwrap().iter();
        groups
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect()
    }

    fn wait<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(done) = done() {
                return done;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: still not\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn data(
        &self,
        what: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Value {
        let mut answer = answer.unwrap_or_else(|error| panic!("{what}: {error}\n{}", self.log()));
        let text = answer.body_mut().read_to_string().unwrap();
        let mut document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["status"], "success", "{what}: {text}");
        document["data"].take()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The node exporter (Debian's package `prometheus-node-exporter`) with nothing but files of a directory.
pub struct NodeExporter {
    child: Child,
    pub address: String,
}

impl NodeExporter {
    pub fn start(directory: &Path) -> NodeExporter {
        let address = free_address();
        let child = Command::new("prometheus-node-exporter")
            .args(["--collector.disable-defaults", "--collector.textfile"])
            .arg(format!(
                "--collector.textfile.directory={}",
                directory.display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is Debian's package prometheus-node-exporter: scripts/setup.sh test");
        NodeExporter { child, address }
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `promtool check metrics` finds fault with in a text.
pub fn lint(metrics: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package prometheus: scripts/setup.sh test");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    match output.status.success() {
        true => said,
        false => format!("{}: {said}", output.status),
    }
}

/// An address that nobody listens at. These programs do not say which port they were given.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
