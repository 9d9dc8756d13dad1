//! The metrics: what the port serves after calls of each kind, read as Prometheus reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    process::Stdio,
    time::Duration,
};

use kairos_identity::{
    callers::ANYBODY, domain::NOBODY, grpc::layer::all_method_paths, proto::ResolveTokenRequest,
};
use tonic::Code;

use crate::support::{
    callers::{CallersFile, token},
    engine::Engine,
    errors::assert_refused,
    http,
    people::{PASSWORD, login},
    server::TestServer,
    tools::{python_command, repository},
    wait::until,
};

/// Longer than the interval at which refusals are recorded.
const LIMIT: Duration = Duration::from_secs(40);

/// Maximum number of time series after calls with any paths and metadata.
const SERIES_MAX: usize = 3_000;

/// Returns the samples: name with labels, and value. Prometheus' own parser for Python reads them.
fn samples(server: &TestServer) -> BTreeMap<String, f64> {
    let reply = http::get(server.metrics_address(), "/metrics");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let mut parser = python_command("parse_metrics.py");
    let mut parser =
        parser.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(reply.body.as_bytes()).unwrap();
    let output = parser.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), reply.body);
    let lines = String::from_utf8(output.stdout).unwrap();
    let samples = lines.lines().map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

/// Returns the name of the number of calls of a method with this result.
fn calls(method: &str, code: &str, reason: &str) -> String {
    format!(
        "rpc_server_calls_total{{caller=\"{ANYBODY}\",error_type=\"{reason}\",\
         rpc_method=\"kairos.identity.v1.IdentityService/{method}\",rpc_response_status_code=\"{code}\"}}"
    )
}

/// Asserts that these values, which differ from run to run, are at least so large.
fn assert_at_least(samples: &BTreeMap<String, f64>, engine: Engine) {
    let of_engine = match engine {
        Engine::Sqlite => [
            ("kairos_identity_sqlite_file_size_bytes{}", 4_096.0),
            ("kairos_identity_sqlite_disk_free_bytes{}", 1.0),
        ],
        Engine::Postgres => [
            ("kairos_identity_database_connections_limit{}", 18.0),
            ("kairos_identity_database_connections_idle{}", 1.0),
        ],
    };
    for (name, least) in [
        ("kairos_identity_hashing_duration_seconds_sum{}", 0.000_1),
        ("kairos_identity_hashing_wait_seconds_count{}", 3.0),
        ("kairos_identity_lookups_total{}", 3.0),
        ("kairos_identity_lookup_batches_total{}", 1.0),
        ("kairos_identity_connections{port=\"api\"}", 1.0),
        ("kairos_identity_connections_accepted_total{port=\"telemetry\"}", 1.0),
        ("kairos_identity_signing_key_age_seconds{}", 0.0),
        ("process_resident_memory_bytes{}", 1e6),
        ("process_open_fds{}", 5.0),
        ("process_max_fds{}", 256.0),
        ("process_cpu_seconds_total{}", 0.001),
        ("process_start_time_seconds{}", 1.7e9),
    ]
    .into_iter()
    .chain(of_engine)
    {
        let value = samples.get(name).unwrap_or_else(|| panic!("{name} is missing: {samples:#?}"));
        assert!(*value >= least, "{name} is {value}");
    }
}

on_both_engines! {
    async fn the_work_of_the_service_is_counted_and_measured(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let mut client = server.client().await;
        client.login(login("ada", PASSWORD)).await.unwrap();
        let wrong = client.login(login("ada", "a wrong password")).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
        for _ in 0..3 {
            client.resolve_token(ResolveTokenRequest { auth_token: ada.auth_token.clone() }).await.unwrap();
        }

        // Refusals are recorded together, at an interval.
        let refusal = "kairos_identity_audit_events_total{event=\"authn_login_fail\",reason=\"INVALID_CREDENTIALS\"}";
        let samples = until("the refusal is recorded", LIMIT, async || {
            Some(samples(&server)).filter(|samples| samples.contains_key(refusal))
        })
        .await;
        let duration = "rpc_server_call_duration_seconds_count{rpc_method=\"kairos.identity.v1.IdentityService/Login\"}";
        for (name, value) in [
            (calls("Register", "OK", "").as_str(), 1.0),
            (&calls("Login", "OK", ""), 1.0),
            (&calls("Login", "UNAUTHENTICATED", "INVALID_CREDENTIALS"), 1.0),
            (&calls("ResolveToken", "OK", ""), 3.0),
            (duration, 2.0),
            ("kairos_identity_audit_events_total{event=\"authn_login_success\",reason=\"\"}", 1.0),
            (refusal, 1.0),
            ("kairos_identity_mail_attempts_total{kind=\"verify_email\",result=\"sent\"}", 1.0),
            ("kairos_identity_hashing_queue_length{}", 0.0),
            ("kairos_identity_serving{}", 1.0),
            ("kairos_identity_lookups_serving{}", 1.0),
            ("kairos_identity_log_lines_dropped_total{}", 0.0),
            ("kairos_identity_audit_lines_dropped_total{}", 0.0),
            ("kairos_identity_database_disk_full_failures_total{}", 0.0),
            (concat!("kairos_identity_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
        ] {
            assert_eq!(samples.get(name), Some(&value), "{name}: {samples:#?}");
        }
        assert_at_least(&samples, engine);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_lists_each_metric() {
    let mut served = BTreeSet::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let service = TestServer::start(engine).await;
        service.member("ada").await;
        let text = http::get(service.metrics_address(), "/metrics").body;
        served.extend(text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(|family| {
            let (name, metric_type) = family.split_once(' ').unwrap();
            match metric_type {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            }
        }));
    }
    // Only a service with TLS has this one, and only one with replicas the next.
    served.insert("kairos_identity_tls_certificate_expiry_timestamp_seconds".to_owned());
    served.extend(["kairos_identity_replicas", "kairos_identity_replicas_used"].map(str::to_owned));
    // A connection that was refused is needed for this one.
    served.insert("kairos_identity_connections_closed_early_total".to_owned());
    let document = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let documented: BTreeSet<String> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .filter(|name| {
            name.starts_with("rpc_") || name.starts_with("kairos_") || name.starts_with("process_")
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(served, documented);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_adds_no_time_series_and_no_text() {
    let server = TestServer::start(Engine::Sqlite).await;
    let paths = ["/secret.Path/Number", "/kairos.identity.v1.IdentityService/Secret"];
    for number in 0..50 {
        for path in paths {
            for method in ["POST", "GET", "BREW"] {
                let header = format!("traceparent: 00-{number:032x}-00f067aa0ba902b7-01");
                let headers =
                    [header.as_str(), "content-type: application/json", "kairos-caller-token: secret"];
                http::request(server.address(), method, &format!("{path}{number}"), &headers, "{}");
            }
        }
    }
    for method in all_method_paths() {
        http::request(
            server.address(),
            "POST",
            &method,
            &["content-type: application/json"],
            "{\"secret\":1}",
        );
        http::request(server.address(), "POST", &method, &["content-type: text/secret"], "secret");
    }
    let samples = samples(&server);
    assert!(samples.len() < SERIES_MAX, "{}", samples.len());
    let other = format!("rpc_server_calls_total{{caller=\"{NOBODY}\",error_type=\"\",rpc_method=\"_OTHER\"");
    assert!(samples.keys().any(|name| name.starts_with(&other)), "{samples:#?}");
    assert!(samples.keys().all(|name| !name.to_lowercase().contains("secret")), "{samples:#?}");
}

/// Any client can choose a trace id, and only the callers are trusted.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_calls_of_callers_leave_their_trace_id() {
    let (of_caller, of_stranger) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000bad");
    let file = CallersFile::new(&[("agent", &token(1), "*", "*")]);
    let server = file.serve(Engine::Sqlite).await;
    let call = |trace_id: &str, path: &str, authorization: &str| {
        let trace = format!("traceparent: 00-{trace_id}-00f067aa0ba902b7-01");
        let headers = [trace.as_str(), authorization, "content-type: application/json"];
        http::request(server.address(), "POST", path, &headers, "{}").status
    };
    let (resolve, health) =
        ("/kairos.identity.v1.IdentityService/ResolveToken", "/grpc.health.v1.Health/Check");
    assert_eq!(call(of_stranger, resolve, "accept: */*"), 401);
    assert_eq!(call(of_stranger, resolve, "authorization: Bearer guessed"), 401);
    assert_eq!(call(of_stranger, health, "accept: */*"), 200);
    call(of_stranger, "/a.Service/Method", "accept: */*");
    let bearer = format!("authorization: Bearer {}", token(1).expose());
    assert_eq!(call(of_caller, resolve, &bearer), 400);
    let metrics = http::get(server.metrics_address(), "/metrics").body;
    assert!(metrics.contains(of_caller) && !metrics.contains(of_stranger), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_serves_nothing_else_and_can_be_disabled() {
    let server = TestServer::start(Engine::Sqlite).await;
    let address = server.metrics_address();
    let other = http::get(address, "/");
    assert_eq!((other.status, other.body.as_str()), (404, "This port serves the metrics at /metrics.\n"));
    let post = http::request(address, "POST", "/metrics", &[], "");
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD"));

    let without = TestServer::builder(Engine::Sqlite).with_args(&["--telemetry-listen", ""]).start().await;
    assert!(!without.log().contains("Serving metrics"), "{}", without.log());
}
