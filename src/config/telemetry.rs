//! `[telemetry]`

use std::net::SocketAddr;

use super::{section::section, setting::Flag};

section! {
    /// The metrics, which a Prometheus server reads.
    TelemetrySettings in "telemetry" {
        /// The address of the port that serves the metrics at `/metrics`; empty disables it. The port has
        /// neither TLS nor authentication. The metrics contain the names of callers, and no data of users:
        /// let only the systems reach it that monitor the service.
        #[flag(Flag::of_serve(
            "telemetry-listen", "ADDR",
            "The HTTP address of the metrics; empty disables it",
        ))]
        listen: Option<SocketAddr> = "127.0.0.1:50090",
    }
}
