#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kairos_identity_fuzz::targets::json::run(bytes));
