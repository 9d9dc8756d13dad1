//! Reads the names of arbitrary bytes as a caller's certificate. rustls verifies the chain of a certificate,
//! but its owner chooses the names in it.

use kairos_identity::server::certificate_names;

/// Runs one input.
pub fn run(der: &[u8]) {
    for name in certificate_names(&der.into()) {
        assert!(["uri:", "dns:", "cn:"].iter().any(|kind| name.starts_with(kind)), "{name}");
    }
}
