//! The certificate of a caller, whose chain rustls has verified: its names are still whatever its owner wrote.
#![no_main]

use kairos_identity::server::certificate_names;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    for name in certificate_names(&der.into()) {
        assert!(["uri:", "dns:", "cn:"].iter().any(|kind| name.starts_with(kind)), "{name}");
    }
});
