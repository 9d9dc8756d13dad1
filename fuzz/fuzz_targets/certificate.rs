//! Reads the names of arbitrary bytes as a caller's certificate. rustls verifies the chain of a certificate,
//! but its owner chooses the names in it.
#![no_main]

use kairos_identity::server::certificate_names;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    for name in certificate_names(&der.into()) {
        assert!(["uri:", "dns:", "cn:"].iter().any(|kind| name.starts_with(kind)), "{name}");
    }
});
