//! The service while standard error is not read, as with a hanging log collector or a terminal after Ctrl-S.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Stdio},
    time::Duration,
};

use kairos_identity::proto::{ResolveTokenRequest, identity_service_client::IdentityServiceClient};
use tokio::task::JoinSet;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    audit::{RECORDED_LIMIT, audit},
    engine::Engine,
    people::{login, registration},
    server::TestServer,
    wait::until,
};

/// More lines than the pipe and the queue of the service take together.
const CALLS: usize = 24_000;

/// Number of calls at a time.
const CONCURRENT: usize = 64;

/// Time limit of one call, on a busy machine.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Time limit for the exit after a signal, on a busy machine.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

/// A second instance of the service. Its standard output and standard error are one pipe each, which nothing
/// reads once the address is known.
struct Instance {
    process: Child,
    log: BufReader<ChildStderr>,
    channel: Channel,
}

impl Instance {
    async fn start(server: &TestServer) -> Self {
        let mut command = server.command(&["serve", "--listen", "127.0.0.1:0", "--insecure-low-cost"]);
        command.arg("--mail-url").arg(format!("file://{}", server.mail_folder().display()));
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the service ended before it served");
            if let Some((_, address)) = line.split_once("Serving gRPC on ") {
                break address.split([' ', '"']).next().unwrap().trim_end_matches(['.', ':', ',']).to_owned();
            }
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().timeout(CALL_LIMIT);
        Self { process, log, channel: endpoint.connect().await.unwrap() }
    }

    fn client(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel.clone())
    }

    /// Makes [`CALLS`] calls, each of which logs a line. Panics if one fails.
    async fn fill_the_log(&self, request: &ResolveTokenRequest) {
        let mut callers = JoinSet::new();
        for _ in 0..CONCURRENT {
            let (mut client, request) = (self.client(), request.clone());
            callers.spawn(async move {
                for _ in 0..CALLS / CONCURRENT {
                    client.resolve_token(request.clone()).await.unwrap();
                }
            });
        }
        callers.join_all().await;
    }

    async fn health(&self) -> Option<ServingStatus> {
        let answer = HealthClient::new(self.channel.clone()).check(HealthCheckRequest::default()).await;
        ServingStatus::try_from(answer.ok()?.into_inner().status).ok()
    }

    fn terminate(&self) {
        let status = std::process::Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let process = &mut self.process;
        until("the service exits", EXIT_LIMIT, async || process.try_wait().unwrap()).await.code()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts an instance whose log is full, with the user `ada`.
async fn with_full_log(drain_notice: &str) -> (TestServer, Instance) {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_LOG_LEVEL", "debug")
        .with_env("KAIROS_IDENTITY_SERVER_DRAIN_NOTICE", drain_notice)
        .start()
        .await;
    let user = server.client().await.register(registration("ada")).await.unwrap().into_inner().user.unwrap();
    let instance = Instance::start(&server).await;
    instance.fill_the_log(&ResolveTokenRequest { auth_token: user.auth_token }).await;
    (server, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_health_and_shutdown_work_while_the_log_is_not_read() {
    let (_server, mut instance) = with_full_log("0s").await;
    assert_eq!(instance.health().await, Some(ServingStatus::Serving));
    instance.terminate();
    assert_eq!(instance.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_service_while_the_log_is_not_read() {
    let (_server, mut instance) = with_full_log("60s").await;
    instance.terminate();
    until("the service has received the first signal", EXIT_LIMIT, async || {
        (instance.health().await == Some(ServingStatus::NotServing)).then_some(())
    })
    .await;
    // Signals within a second are one.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    instance.terminate();
    assert_eq!(instance.exit_code().await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_lines_are_counted_and_audit_events_are_dropped_last() {
    let (server, mut instance) = with_full_log("0s").await;
    let refused = instance.client().login(login("ada", "not-the-password")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    // It is logged when it is recorded, up to a second later. The log must still be full then.
    until("the refused login is recorded", RECORDED_LIMIT, async || {
        audit(&server, &[]).iter().any(|line| line.kind == "authn_login_fail").then_some(())
    })
    .await;

    instance.terminate();
    let mut rest = String::new();
    instance.log.read_to_string(&mut rest).unwrap();
    assert_eq!(instance.exit_code().await, Some(0));
    let events = rest.lines().filter(|line| line.contains("authn_login_fail")).count();
    assert_eq!(events, 1, "the audit event is in the log");
    let dropped = rest.lines().filter_map(|line| line.split_once("Dropped ")?.1.split(' ').next());
    let dropped: usize = dropped.map(|number| number.parse::<usize>().unwrap()).sum();
    let lines = rest.lines().filter(|line| line.contains("ResolveToken")).count();
    assert!(dropped > 0 && dropped + lines >= CALLS, "{dropped} lines dropped, {lines} written");
}
