//! A POST of JSON to a URL. Any answer of class 2xx means that it was heard.

use crate::output::Failure;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Handle;

pub struct Webhook {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
    runtime: Handle,
}

impl Webhook {
    pub fn new(
        url: &str,
        token_file: Option<&Path>,
        timeout: Duration,
        runtime: &Handle,
    ) -> Result<Webhook, Failure> {
        // Reqwest asks for a process-wide provider; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let token = token_file.map(|path| std::fs::read_to_string(path).map_err(Failure::of(path)));
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("merkle-log/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Webhook {
            client,
            url: url::Url::parse(url)?.to_string(),
            token: token.transpose()?.map(|token| token.trim().to_owned()),
            runtime: runtime.clone(),
        })
    }

    pub fn tell(&self, json: String) -> Result<(), String> {
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .body(json);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = self.runtime.block_on(async { request.send().await });
        // The URL may hold a secret.
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(format!("the webhook answered {}", answer.status())),
        }
    }
}
