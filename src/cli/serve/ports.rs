//! The ports of `serve`.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::{cli::Failure, config::Settings, server};

/// A port, with the setting and the flag that name its address.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Port {
    pub(in crate::cli) address: SocketAddr,
    pub(in crate::cli) setting: &'static str,
    flag: &'static str,
}

impl Port {
    /// Returns the API port.
    pub(super) fn api(settings: &Settings) -> Self {
        Self { address: settings.server.listen, setting: "server.listen", flag: "--listen" }
    }

    /// Returns the HTTP port, if `http.listen` is set.
    pub(super) fn http(settings: &Settings) -> Option<Self> {
        let port = |address| Self { address, setting: "http.listen", flag: "--http-listen" };
        settings.http.listen.map(port)
    }

    /// Returns the port of the metrics, if `telemetry.listen` is set.
    pub(super) fn telemetry(settings: &Settings) -> Option<Self> {
        let port = |address| Self { address, setting: "telemetry.listen", flag: "--telemetry-listen" };
        settings.telemetry.listen.map(port)
    }

    /// Returns all ports.
    pub(in crate::cli) fn all(settings: &Settings) -> impl Iterator<Item = Self> {
        [Some(Self::api(settings)), Self::http(settings), Self::telemetry(settings)].into_iter().flatten()
    }

    /// Opens the port.
    pub(super) fn bind(self) -> Result<TcpListener, Failure> {
        server::bind(self.address).map_err(|error| self.failure(&error))
    }

    /// Checks that the port can be opened. No client can connect meanwhile.
    pub(in crate::cli) fn check(self) -> io::Result<()> {
        server::check_bind(self.address)
    }

    /// Formats why the port could not be opened.
    pub(in crate::cli) fn failure(self, error: &io::Error) -> Failure {
        let Self { address, setting, flag } = self;
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there: stop it, or".to_owned(),
            io::ErrorKind::AddrNotAvailable => "it is not an address of this machine:".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "the user of this process may not open the port (ports below 1024 need CAP_NET_BIND_SERVICE): allow it, or"
                    .to_owned()
            }
            io::ErrorKind::InvalidInput => {
                "an address of one link (fe80::) needs the link, such as [fe80::1%2]:50051:".to_owned()
            }
            _ => format!("{error}:"),
        };
        format!("{setting}: cannot listen on {address}: {cause} choose another address with {flag}")
    }
}
