//! A real browser: Chromium without a screen, told what to do through chromedriver (W3C WebDriver, and the
//! DevTools protocol for what a reader's machine is like).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Browser {
    driver: Child,
    /// The address of the session at the driver.
    session: String,
    agent: ureq::Agent,
    _home: TempDir,
}

/// How long anything may take that a browser does, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

impl Browser {
    pub fn start() -> Browser {
        let home = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is Debian's package chromium-driver: scripts/setup.sh test");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver says on which port it listens");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        let mut browser = Browser {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            agent: config.build().into(),
            _home: home,
        };
        let profile = format!("--user-data-dir={}", browser._home.path().display());
        // Only pages of our own are opened; its sandbox is not there for root, nor in every container.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1100,900",
            "--host-resolver-rules=MAP another.example 127.0.0.1",
            &profile,
        ];
        let made = browser.post(
            "",
            json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": PATIENCE.as_millis() as u64},
            }}}),
        );
        let id = made["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {made}"));
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    pub fn go(&self, address: &str) {
        self.post("/url", json!({"url": address}));
    }

    pub fn address(&self) -> String {
        self.script("return location.href", json!([]))
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What a script in the page returns.
    pub fn script(&self, script: &str, arguments: Value) -> Value {
        self.post(
            "/execute/sync",
            json!({"script": script, "args": arguments}),
        )
    }

    /// What a script in the page gives to its last argument, which it may do later.
    pub fn script_async(&self, script: &str, arguments: Value) -> Value {
        self.post(
            "/execute/async",
            json!({"script": script, "args": arguments}),
        )
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post(
            "/goog/cdp/execute",
            json!({"cmd": command, "params": parameters}),
        )
    }

    pub fn without_javascript(self) -> Browser {
        self.devtools(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": true}),
        );
        self
    }

    pub fn without_network(self) -> Browser {
        self.devtools("Network.enable", json!({}));
        let none =
            json!({"offline": true, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0});
        self.devtools("Network.emulateNetworkConditions", none);
        self
    }

    pub fn dark(self) -> Browser {
        let dark = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": dark}));
        self
    }

    /// A phone of that width in CSS pixels.
    pub fn phone(self, width: u32) -> Browser {
        let screen = json!({"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": true});
        self.devtools("Emulation.setDeviceMetricsOverride", screen);
        self
    }

    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), json!({}));
    }

    /// Types into a field, or at what has the focus there.
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/value"), json!({"text": text}));
    }

    /// Presses a key wherever the focus is. Keys without a character have numbers in WebDriver: Tab is U+E004.
    pub fn press(&self, key: char) {
        let press = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.post(
            "/actions",
            json!({"actions": [{"type": "key", "id": "keyboard", "actions": press}]}),
        );
    }

    /// The text of an element, as it can be seen.
    pub fn text(&self, selector: &str) -> String {
        let element = self.element(selector);
        let text = self.get(&format!("/element/{element}/text"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a script returns true.
    pub fn until(&self, script: &str) {
        let start = Instant::now();
        while self.script(script, json!([])) != json!(true) {
            assert!(
                start.elapsed() < PATIENCE,
                "{script}: still not so on\n{}",
                self.text("body")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the browser complains of: refused resources, errors of scripts.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"}));
        let lines = log.as_array().into_iter().flatten();
        lines
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// A picture of the whole page, for people.
    pub fn screenshot(&self, file: &Path) {
        let size = &self.devtools("Page.getLayoutMetrics", json!({}))["cssContentSize"];
        let all =
            json!({"x": 0, "y": 0, "scale": 1, "width": size["width"], "height": size["height"]});
        let picture = json!({"captureBeyondViewport": true, "format": "png", "clip": all});
        let picture = self.devtools("Page.captureScreenshot", picture);
        let encoded = picture["data"].as_str().unwrap_or_default();
        std::fs::write(file, STANDARD.decode(encoded).unwrap()).unwrap();
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post(
            "/element",
            json!({"using": "css selector", "value": selector}),
        );
        // The specification gives this name to references of elements.
        let id = found["element-6066-11e4-a52e-4f735466cecf"].as_str();
        id.unwrap_or_else(|| panic!("no {selector}: {found}"))
            .to_owned()
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let address = format!("{}{path}", self.session);
        let answer = self
            .agent
            .post(&address)
            .content_type("application/json")
            .send(body.to_string());
        value_of(&address, answer)
    }

    fn get(&self, path: &str) -> Value {
        let address = format!("{}{path}", self.session);
        value_of(&address, self.agent.get(&address).call())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; without it, only the driver would end.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn value_of(address: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut answer = answer.unwrap_or_else(|error| panic!("{address}: {error}"));
    let text = answer
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    assert!(
        answer.status().is_success(),
        "{address}: {}",
        document["value"]["message"]
    );
    document["value"].take()
}
