//! A headless Chromium of a test's own, driven through chromedriver: its port, its folder, ended with the test.
//!
//! Where it is not installed the tests are skipped, and say so; with `RINGMASTER_REQUIRE_CHROMIUM=1` they fail instead.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::common::{SOON, free_address};

/// A browser takes hundreds of megabytes: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A browser with one window.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
    address: SocketAddr,
    _folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|binary| binary.is_file())
}

impl Browser {
    /// Starts one with a window of this size; none, said on standard error, where Chromium is not installed and need
    /// not be.
    pub(crate) async fn start(test: &str, width: u32, height: u32) -> Option<Browser> {
        let (Some(chromium), Some(chromedriver)) = (installed("chromium"), installed("chromedriver")) else {
            let required = std::env::var("RINGMASTER_REQUIRE_CHROMIUM").is_ok_and(|value| value == "1");
            assert!(!required, "{test} needs chromium and chromium-driver: run `make deps`");
            // Straight to the stream: the test harness hides what `eprintln!` writes.
            let line = format!("SKIPPED (no chromium): {test}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let turn = ONE_AT_A_TIME.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let driver = Command::new(chromedriver)
            .arg(format!("--port={}", address.port()))
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let data = format!("--user-data-dir={}", folder.path().join("profile").display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            &data,
        ];
        let capabilities = json!({
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": {
                "binary": chromium,
                "args": arguments,
                // Narrower than a desktop's window may be.
                "mobileEmulation": { "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1 } },
            },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("it is written above") };
        let deadline = Instant::now() + SOON;
        let client = loop {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            match builder.capabilities(capabilities.clone()).connect(&format!("http://{address}")).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "chromedriver on {address}: {error}"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        Some(Browser { client, driver, address, _folder: folder, _turn: turn })
    }

    /// Runs the body of a function in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{error}: {script}"))
    }

    /// Awaits that an expression in the page is true; tells how long that took.
    pub(crate) async fn until(&self, expression: &str) -> Duration {
        let (start, script) = (Instant::now(), format!("return Boolean({expression})"));
        while self.run(&script).await != json!(true) {
            if start.elapsed() > SOON {
                let text = self.run("return document.body.innerText").await;
                panic!("not within {SOON:?}: {expression}\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        start.elapsed()
    }

    /// The element that a selector finds, as soon as it is there.
    pub(crate) async fn find(&self, selector: &str) -> Element {
        self.until(&format!("document.querySelector('{selector}')")).await;
        self.client.find(Locator::Css(selector)).await.unwrap_or_else(|error| panic!("{selector}: {error}"))
    }

    /// What has been written to the console since it was last asked for: warnings and errors.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let session = self.client.session_id().await.unwrap().expect("it is connected");
        let url = format!("http://{}/session/{session}/se/log", self.address);
        let answer =
            reqwest::Client::new().post(url).json(&json!({ "type": "browser" })).send().await.unwrap();
        let log: Value = answer.json().await.unwrap();
        let entries = log["value"].as_array().expect("a list of entries").iter();
        entries
            .filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")))
            .map(|entry| entry["message"].to_string())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends its browsers in order, then itself; should it not answer, it has ended already.
        let shutdown = || {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new())
        };
        drop(shutdown());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
