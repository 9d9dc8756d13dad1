//! `kairos-identity healthcheck`

#![expect(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "clap shows these comments on a terminal, where marks are noise"
)]

mod connection;
mod trust;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

pub(super) use tonic_health::pb::health_check_response::ServingStatus;

use self::{
    connection::{Target, connect},
    trust::Roots,
};
use super::{Failure, output::print};
use crate::{config::Settings, domain::chain};

/// Time limit of the check. A service that does not answer within it is unhealthy.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    /// The URL of the service, such as http://127.0.0.1:50051 or https://identity.example:443
    /// [default: the address of server.listen, on this machine]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A PEM file with the service's own certificate, or with that of the CA that issued it
    /// [default: server.tls-cert, or the CAs that this system trusts]
    #[arg(long, value_name = "FILE", visible_alias = "tls-ca")]
    ca_cert: Option<PathBuf>,
    /// The name in the service's certificate
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_name: String,
}

/// Asks a service with these settings on this machine for its health.
pub(super) async fn ask_running(settings: &Settings) -> Result<ServingStatus, Failure> {
    let healthcheck = Healthcheck { url: None, ca_cert: None, server_name: "localhost".to_owned() };
    let checked = tokio::time::timeout(LIMIT, healthcheck.check(&own_url(settings), settings)).await;
    checked.map_err(|_| format!("no answer within {LIMIT:?}"))?
}

impl Healthcheck {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let url = self.url.clone().unwrap_or_else(|| own_url(settings));
        let checked = tokio::time::timeout(LIMIT, self.check(&url, settings));
        match checked.await {
            Ok(Ok(ServingStatus::Serving)) => print("SERVING"),
            Ok(Ok(status)) => Err(format!("{url}: {}", status.as_str_name())),
            Ok(Err(failure)) => Err(format!("{url}: {failure}")),
            Err(_) => Err(format!("{url}: no answer within {LIMIT:?}")),
        }
    }

    /// Asks the service at `url` for its status.
    async fn check(&self, url: &str, settings: &Settings) -> Result<ServingStatus, Failure> {
        let target = Target::parse(url)?;
        let roots = match (&self.ca_cert, &settings.server.tls_cert) {
            (Some(file), _) => Some(Roots { named_by: "--ca-cert", file }),
            (None, Some(file)) => Some(Roots { named_by: "server.tls-cert", file }),
            (None, None) => None,
        };
        let channel = connect(&target, &self.server_name, roots).await?;
        match HealthClient::new(channel).check(HealthCheckRequest::default()).await {
            Ok(answer) => Ok(answer.into_inner().status()),
            // The service did not send a status that has a source: the connection failed.
            Err(status) if std::error::Error::source(&status).is_some() => {
                let cause = chain(std::error::Error::source(&status).unwrap_or(&status));
                Err(target.no_grpc(&cause).await)
            }
            Err(status) => {
                Err(format!("the service refuses the check: {}: is it kairos-identity?", status.message()))
            }
        }
    }
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
