//! `kairos-identity healthcheck`

#![expect(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "clap shows these comments on a terminal, where marks are noise"
)]

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Failure, reason};
use crate::{config::Settings, domain::chain};

/// Time limit of the check. A service that does not answer within it is unhealthy.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    /// The URL of the service, such as http://127.0.0.1:50051 or https://identity.example:443
    /// [default: the address of server.listen, on this machine]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The CA certificate that verifies the service's certificate, a PEM file [default: server.tls-cert]
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// The name in the service's certificate
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_name: String,
}

impl Healthcheck {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let url = self.url.clone().unwrap_or_else(|| own_url(settings));
        let status = tokio::time::timeout(LIMIT, async {
            let channel = self.connect(&url, settings).await?;
            let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
            answer
                .map(|answer| answer.into_inner().status())
                .map_err(|status| no_answer(&url, &status, status.message()))
        });
        match status.await {
            Ok(Ok(ServingStatus::Serving)) => {
                println!("SERVING");
                Ok(())
            }
            Ok(Ok(status)) => Err(format!("{url}: {}", status.as_str_name())),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(format!("{url}: no answer within {LIMIT:?}")),
        }
    }

    /// Connects to the service at `url`.
    async fn connect(&self, url: &str, settings: &Settings) -> Result<Channel, Failure> {
        let mut endpoint =
            Endpoint::from_shared(url.to_owned()).map_err(|error| format!("{url}: {}", reason(error)))?;
        if url.starts_with("https:") {
            let mut tls = ClientTlsConfig::new().domain_name(&self.server_name);
            if let Some(path) = self.ca_cert.as_ref().or(settings.server.tls_cert.as_ref()) {
                let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls).map_err(|error| format!("{url}: {}", reason(error)))?;
        }
        endpoint.connect().await.map_err(|error| no_answer(url, &error, ""))
    }
}

/// Formats why the service did not answer: the sources of `error`, or `message` if it has none. tonic's own
/// errors among them are only "transport error".
fn no_answer(url: &str, error: &dyn Error, message: &str) -> Failure {
    let cause = error.source().map_or_else(|| message.to_owned(), chain);
    let cause = cause.strip_prefix("transport error: ").unwrap_or(&cause);
    let hint = if url.starts_with("http:") { "; a service with TLS needs an https URL (--url)" } else { "" };
    format!("{url}: the service does not answer: {cause}{hint}")
}

/// Returns the URL at which a service with these settings is reached from this machine.
fn own_url(settings: &Settings) -> String {
    let listen = settings.server.listen;
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let scheme = if settings.server.tls_cert.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, listen.port()))
}
