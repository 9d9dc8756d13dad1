//! Parses arbitrary texts as the file of callers. The result must have callers or an error message.
#![no_main]

use std::sync::LazyLock;

use kairos_identity::{callers::Callers, grpc::layer::all_method_paths};
use libfuzzer_sys::fuzz_target;

static METHODS: LazyLock<Vec<String>> = LazyLock::new(all_method_paths);

fuzz_target!(|text: &str| {
    let methods: Vec<_> = METHODS.iter().map(String::as_str).collect();
    match Callers::parse(text, &methods) {
        Ok(callers) => assert!(!callers.names().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
