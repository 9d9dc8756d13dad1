//! Prometheus, which reads the metrics of services and evaluates the alert rules of `deploy/prometheus`.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use super::{daemon::Daemon, http, tools::repository, wait::until_blocking};

const START_LIMIT: Duration = Duration::from_secs(30);

/// The times of the rules, and the short ones that replace them, so that a test takes seconds.
const SHORT_TIMES: &[(&str, &str)] = &[
    ("[5m]", "[6s]"),
    ("[10m]", "[6s]"),
    ("[15m]", "[6s]"),
    ("[30m]", "[12s]"),
    ("[1h]", "[12s]"),
    ("[6h]", "[12s]"),
    ("[1d]", "[12s]"),
    ("offset 15m", "offset 6s"),
    ("offset 1h", "offset 12s"),
    ("for: 1m\n", "for: 2s\n"),
    ("for: 2m\n", "for: 2s\n"),
    ("for: 5m\n", "for: 2s\n"),
    ("for: 10m\n", "for: 2s\n"),
    ("for: 15m\n", "for: 2s\n"),
    ("for: 1h\n", "for: 2s\n"),
];

/// Returns the text of the rules.
pub fn rules() -> String {
    fs::read_to_string(repository().join("deploy/prometheus/kairos-identity.rules.yml")).unwrap()
}

/// Returns the path of `prometheus` or `promtool`.
pub fn program(name: &str) -> PathBuf {
    let path = repository().join(".tools/bin").join(name);
    assert!(path.exists(), "{} is missing: run `scripts/setup test`", path.display());
    path
}

/// A running Prometheus.
pub struct Prometheus(Daemon);

impl Prometheus {
    /// Starts Prometheus, which reads the metrics at these addresses every second. The rules have short
    /// times, and these texts of them are replaced.
    pub fn start(metrics: &[SocketAddr], replaced: &[(&str, &str)]) -> Self {
        let server = Daemon::prepare("prometheus");
        let mut rules = rules();
        for (long, short) in SHORT_TIMES.iter().chain(replaced) {
            assert!(rules.contains(long), "{long} is not in the rules");
            rules = rules.replace(long, short);
        }
        fs::write(server.folder().join("rules.yml"), rules).unwrap();
        let settings = server.folder().join("prometheus.yml");
        let targets: Vec<String> = metrics.iter().map(|address| format!("\"{address}\"")).collect();
        let targets = targets.join(", ");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yml]\nscrape_configs:\n  \
             - job_name: kairos-identity\n    static_configs: [{{ targets: [{targets}] }}]\n"
        );
        fs::write(&settings, text).unwrap();
        let mut command = Command::new(program("prometheus"));
        command.arg(format!("--config.file={}", settings.display()));
        command.arg(format!("--storage.tsdb.path={}", server.folder().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", server.port()));
        server.start(&command);
        let prometheus = Self(server);
        until_blocking("Prometheus has read the metrics", START_LIMIT, || {
            (prometheus.query("kairos_identity_serving").len() == metrics.len()).then_some(())
        });
        prometheus
    }

    /// Returns the result of an expression: empty if there is no data, or if Prometheus does not answer yet.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = byte_serialize(expression.as_bytes()).collect();
        let Some(body) = self.get(&format!("/api/v1/query?query={encoded}")) else { return Vec::new() };
        assert_eq!(body["status"], "success", "{expression}: {body}");
        body["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Returns the names of the alerts that fire.
    pub fn firing(&self) -> BTreeSet<String> {
        let alerts = self.get("/api/v1/alerts").expect("Prometheus answers");
        let alerts = alerts["data"]["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn get(&self, path: &str) -> Option<Value> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.0.port()));
        std::net::TcpStream::connect(address).ok()?;
        serde_json::from_str(&http::get(address, path).body).ok()
    }
}
