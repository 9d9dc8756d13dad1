//! The connections of the ports: how many are open, and why others were closed.

use std::fmt;

use crate::metrics::{Counter, EncodeLabelSet, Family, Gauge, Registry};

/// Counts the connections of all ports. Clones share the values.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    open: Family<PortLabel, Gauge>,
    accepted: Family<PortLabel, Counter>,
    closed: Family<ClosedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    port: &'static str,
    reason: &'static str,
}

/// Why a connection was not accepted, or was closed before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Its peer had too many.
    TooManyOfPeer,
    /// The port had too many, and its peer no fewer than others.
    NoPlace,
    /// It was open, and its place was given to a peer that had fewer.
    Displaced,
    /// The system did not accept it, for example for lack of file descriptors. Each retry counts.
    AcceptFailed,
    /// Its TLS handshake failed or took too long.
    Handshake,
}

impl CloseReason {
    const fn label(self) -> &'static str {
        match self {
            Self::TooManyOfPeer => "too_many_of_peer",
            Self::NoPlace => "no_place",
            Self::Displaced => "displaced",
            Self::AcceptFailed => "accept_failed",
            Self::Handshake => "tls_handshake",
        }
    }
}

impl ConnectionMetrics {
    /// Adds the values to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Number of open connections", self.open.clone());
        registry.register(
            "connections_accepted",
            "Number of connections that were accepted",
            self.accepted.clone(),
        );
        registry.register(
            "connections_closed_early",
            "Number of connections that were refused, displaced, or failed at the TLS handshake, by reason",
            self.closed.clone(),
        );
    }

    /// Returns the metrics of one port, with its name as a label.
    #[must_use]
    pub fn of_port(&self, port: &'static str) -> PortMetrics {
        PortMetrics { all: self.clone(), port }
    }
}

/// Counts the connections of one port.
#[derive(Clone)]
pub struct PortMetrics {
    all: ConnectionMetrics,
    port: &'static str,
}

impl fmt::Debug for PortMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PortMetrics").field(&self.port).finish()
    }
}

impl PortMetrics {
    /// Counts a connection as open until the result is dropped.
    pub(super) fn opened(&self) -> OpenConnection {
        let port = PortLabel { port: self.port };
        self.all.accepted.get_or_create(&port).inc();
        let open = self.all.open.get_or_create_owned(&port);
        open.inc();
        OpenConnection(open)
    }

    /// Counts a connection that was closed early.
    pub(super) fn closed(&self, reason: CloseReason) {
        let labels = ClosedLabels { port: self.port, reason: reason.label() };
        self.all.closed.get_or_create(&labels).inc();
    }
}

/// A connection that is counted as open.
pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
