//! A real SMTP server (aiosmtpd) that refuses, delays or drops mails on request:
//! `tests/support/smtp_server.py`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    engine::Engine,
    server::{Builder, TestServer},
    tools::python_command,
    wait::until,
};

/// Time limit for the arrival of mails.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(15);

/// Returns the settings of a service that sends mail to `url` with short pauses between attempts.
pub fn mailing_to(url: &str) -> Builder {
    with_short_pauses(TestServer::builder(Engine::Sqlite)).with_mail_url(url)
}

/// Sets short pauses between the attempts to send a mail.
pub fn with_short_pauses(builder: Builder) -> Builder {
    builder
        .with_env("KAIROS_IDENTITY_MAIL_RETRY_FIRST", "200ms")
        .with_env("KAIROS_IDENTITY_MAIL_POLL_INTERVAL", "50ms")
        .with_env("KAIROS_IDENTITY_MAIL_TIMEOUT", "2s")
}

/// Waits until there are at least `count` delivery attempts, and returns all of them.
pub async fn attempts(smtp: &SmtpServer, count: usize) -> Vec<Value> {
    let enough = async || Some(smtp.log()).filter(|log| log.len() >= count);
    until(&format!("{count} attempts"), ARRIVAL_LIMIT, enough).await
}

/// A running SMTP server on loopback; it ends when the value is dropped or the test process ends.
pub struct SmtpServer {
    folder: TempDir,
    process: Child,
    port: u16,
}

impl SmtpServer {
    /// Starts a server without TLS that accepts every mail.
    pub fn start() -> Self {
        Self::launch(None, &[])
    }

    /// Starts a server without TLS that also accepts addresses beyond ASCII (SMTPUTF8).
    pub fn start_with_utf8() -> Self {
        Self::launch(None, &["--smtputf8"])
    }

    /// Starts a server that requires STARTTLS, with this certificate and key (PEM files).
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        Self::launch(Some((certificate, key)), &[])
    }

    fn launch(tls: Option<(&Path, &Path)>, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = python_command("smtp_server.py");
        command.args(["--port", "0", "--log"]).arg(folder.path().join("log.jsonl"));
        command.arg("--control-file").arg(folder.path().join("control"));
        command.args(flags);
        if let Some((certificate, key)) = tls {
            command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
        }
        write_mode(folder.path(), "ok");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output is a pipe")).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ").and_then(|port| port.parse().ok());
        Self { folder, process, port: port.unwrap_or_else(|| panic!("smtp_server.py printed {line:?}")) }
    }

    /// Returns the value for `--mail-url`.
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// Returns the value for `--mail-url` with a username and a password.
    pub fn url_with_credentials(&self) -> String {
        format!("smtp://ada:secret@127.0.0.1:{}", self.port)
    }

    /// Returns a URL of the same server with an address that is not a loopback address: Linux routes 0.0.0.0
    /// to loopback.
    pub fn non_loopback_url(&self) -> String {
        format!("smtp://0.0.0.0:{}", self.port)
    }

    /// Sets how the server handles the next mails: `ok`, `refuse-4xx`, `refuse-5xx-rcpt`, `refuse-5xx-data`,
    /// `delay N` (seconds), `drop-before-250`, or `refuse-at STAGE REPLY` (`smtp_server.py` lists the
    /// stages).
    pub fn set_mode(&self, mode: &str) {
        write_mode(self.folder.path(), mode);
    }

    /// Returns the delivery attempts so far, oldest first.
    pub fn log(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.path().join("log.jsonl")).unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Replaces the control file in one step, since the server may be reading it.
fn write_mode(folder: &Path, mode: &str) {
    fs::write(folder.join("control.new"), mode).unwrap();
    fs::rename(folder.join("control.new"), folder.join("control")).unwrap();
}
