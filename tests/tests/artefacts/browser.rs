//! A real browser: headless Chromium, driven over WebDriver (W3C) by its own chromedriver.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests: what fails here fails the test"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use killwatch_tests::wait::wait_until;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// Longest that a command to the browser may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running chromedriver. Dropping it ends it.
pub(crate) struct Driver {
    child: Child,
    url: String,
    agent: Agent,
    profiles: TempDir,
}

/// A browser with one window. Dropping it closes it.
pub(crate) struct Browser<'a> {
    driver: &'a Driver,
    session: String,
}

impl Driver {
    /// Starts it on a port that it finds.
    pub(crate) fn start(chromedriver: &Path) -> Self {
        let mut command = Command::new(chromedriver);
        command.args(["--port=0", "--allowed-ips=127.0.0.1"]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // "ChromeDriver was started successfully on port 41234."
        let port = lines.map_while(Result::ok).find_map(|line| {
            let port = line.strip_suffix('.').unwrap_or(&line).rsplit_once("on port ")?.1;
            line.contains("successfully").then(|| port.parse::<u16>().ok()).flatten()
        });
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .http_status_as_error(false);
        Self {
            child,
            url: format!("http://127.0.0.1:{}", port.expect("chromedriver names its port")),
            agent: config.build().new_agent(),
            profiles: TempDir::new().unwrap(),
        }
    }

    /// Opens a browser.
    pub(crate) fn open(&self, chromium: &Path, scripts: bool) -> Browser<'_> {
        let profile = TempDir::new_in(self.profiles.path()).unwrap().keep();
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1280,1000",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let allowed = if scripts { 1 } else { 2 };
        let options = json!({
            "binary": chromium, "args": args,
            "prefs": { "profile.managed_default_content_settings.javascript": allowed },
        });
        let logs = json!({ "performance": "ALL", "browser": "ALL" });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": logs });
        let session = self.post("/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        let session = session["sessionId"].as_str().expect("a session").to_owned();
        let browser = Browser { driver: self, session };
        // What it shows by itself is its own business.
        browser.go("about:blank");
        browser.requests();
        browser.complaints();
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json");
        let mut answer =
            request.send(body.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));
        let text = answer.body_mut().read_to_string().unwrap();
        let value = serde_json::from_str::<Value>(&text).unwrap()["value"].take();
        assert!(answer.status().is_success(), "{path}: {value:#}");
        value
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser<'_> {
    fn post(&self, path: &str, body: &Value) -> Value {
        self.driver.post(&format!("/session/{}/{path}", self.session), body)
    }

    /// Loads a page, and waits for it.
    pub(crate) fn go(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// What a function's body returns in the page.
    pub(crate) fn ask(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same as text.
    pub(crate) fn text(&self, script: &str) -> String {
        self.ask(script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a function's body returns true.
    pub(crate) fn until(&self, what: &str, script: &str) {
        wait_until(Duration::from_secs(20), what, || Ok((self.ask(script) == true).then_some(())))
            .unwrap_or_else(|error| {
                panic!("{error:#}\n{}", self.text("return document.body.innerText"))
            });
    }

    /// Presses keys, as the W3C writes them.
    pub(crate) fn press(&self, keys: &str) {
        let press = |key: char| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        self.post(
            "actions",
            &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }),
        );
    }

    /// Shows pages to somebody who wants them dark, or light.
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let params = json!({ "media": "screen", "features": features });
        self.post(
            "goog/cdp/execute",
            &json!({ "cmd": "Emulation.setEmulatedMedia", "params": params }),
        );
    }

    /// As wide as a telephone, or a screen.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.post(
            "goog/cdp/execute",
            &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": params }),
        );
    }

    /// Keeps a picture, if somebody wants to look (`KILLWATCH_SCREENSHOTS`, a directory).
    pub(crate) fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os("KILLWATCH_SCREENSHOTS") else { return };
        let params = json!({ "format": "png", "captureBeyondViewport": false });
        let picture = self.post(
            "goog/cdp/execute",
            &json!({ "cmd": "Page.captureScreenshot", "params": params }),
        );
        // As it comes; `base64 -d` makes the picture of it.
        let text = picture["data"].as_str().expect("a picture");
        std::fs::write(Path::new(&directory).join(format!("{name}.png.base64")), text).unwrap();
    }

    /// Addresses that were asked for since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "performance" }));
        let sent = entries.as_array().expect("entries").iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
        });
        sent.collect()
    }

    /// What the browser complained of since the last call.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().expect("entries").iter();
        entries.filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let url = format!("{}/session/{}", self.driver.url, self.session);
        let _ = self.driver.agent.delete(url).call();
    }
}
