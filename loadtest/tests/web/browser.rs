//! A headless Chromium, driven by its DevTools protocol.
//!
//! Owns: the process and its profile, both gone when it is dropped.
//! Never: takes a page for good that logged an error or asked for what it did
//! not get.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// Far more than anything here takes, so that only what hangs ends by it.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

pub(crate) struct Browser {
    process: Child,
    profile: PathBuf,
    socket: WebSocket<TcpStream>,
    session: Value,
    sent: u64,
    /// What a page should not do.
    pub(crate) faults: Vec<String>,
}

/// Whether the browser is to be left out, which has to be said.
pub(crate) fn is_skipped() -> bool {
    std::env::var_os("LOADTEST_SKIP_BROWSER").is_some_and(|value| value == "1")
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|program| program.is_file());
    all.expect(
        "Chromium is missing, which this test opens the page with. On Debian: apt-get install \
         chromium. On Ubuntu, whose package is only a snap: install Google Chrome's package, or \
         set LOADTEST_SKIP_BROWSER=1 to leave this test out",
    )
}

impl Browser {
    pub(crate) fn open(profile: &Path) -> Self {
        std::fs::create_dir(profile).unwrap();
        let mut process = Command::new(program())
            .args([
                "--headless=new",
                // As root, and in containers, its sandbox cannot start.
                "--no-sandbox",
                "--disable-gpu",
                // As on a phone; a picture has none either.
                "--hide-scrollbars",
                "--disable-dev-shm-usage",
                "--no-first-run",
                // Nothing but the page is asked for.
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).unwrap();
            assert!(read > 0, "Chromium ended: {said}");
            if let Some(url) = line.strip_prefix("DevTools listening on ") {
                break url.trim().to_owned();
            }
            said += &line;
        };
        // It would block once the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut std::io::sink()));
        let host = url.split('/').nth(2).unwrap();
        let stream = TcpStream::connect(host).unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tungstenite::client(url.as_str(), stream).unwrap();
        socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        let mut browser = Self {
            process,
            profile: profile.to_owned(),
            socket,
            session: Value::Null,
            sent: 0,
            faults: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sends a command and waits for its answer; events on the way are looked at.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": params});
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.sent {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.look_at(&answer);
        }
    }

    fn look_at(&mut self, event: &Value) {
        let params = &event["params"];
        let bad = match event["method"].as_str().unwrap_or("") {
            "Runtime.exceptionThrown" | "Network.loadingFailed" => true,
            "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "warning",
            "Log.entryAdded" => params["entry"]["level"] == "error",
            "Network.responseReceived" => params["response"]["status"].as_u64() >= Some(400),
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or("");
                !url.starts_with("http://127.0.0.1:") && url != "about:blank"
            }
            _ => false,
        };
        // A download that was begun is no answer of the page.
        if bad && params["canceled"] != true {
            self.faults.push(event.to_string());
        }
    }

    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    pub(crate) fn scheme(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// The value of a script, which may be a promise.
    pub(crate) fn eval(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "returnByValue": true, "awaitPromise": true, "userGesture": true});
        let mut answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{script}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until a script gives true.
    #[track_caller]
    pub(crate) fn wait(&mut self, script: &str) {
        let begun = Instant::now();
        while self.eval(&format!("Boolean({script})")) != true {
            let text = "document.body.innerText";
            if PATIENCE < begun.elapsed() {
                panic!(
                    "never came true: {script}\n{}\n{:?}",
                    self.eval(text),
                    self.faults
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses the middle of an element with the mouse.
    pub(crate) fn click(&mut self, selector: &str) {
        let place = self.eval(&format!(
            "(() => {{ const e = document.querySelector('{selector}'); \
             e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); \
             return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Replaces what a field holds, as somebody who types.
    pub(crate) fn fill(&mut self, selector: &str, text: &str) {
        self.eval(&format!(
            "(() => {{ const e = document.querySelector('{selector}'); e.focus(); e.select(); }})()"
        ));
        if text.is_empty() {
            self.eval("document.execCommand('delete')");
        } else {
            self.call("Input.insertText", json!({"text": text}));
        }
    }

    /// A picture of the whole page.
    pub(crate) fn picture(&mut self, file: &Path) {
        self.eval("scrollTo(0, 0)");
        let mut clip = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].take();
        clip["scale"] = json!(1);
        let options = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.call("Page.captureScreenshot", options);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(picture["data"].as_str().unwrap())
            .unwrap();
        std::fs::write(file, bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        // Its helpers may still write for a moment.
        std::fs::remove_dir_all(&self.profile).ok();
    }
}
