//! Parses arbitrary texts as the file of callers. The result must have callers or an error message.

use std::sync::LazyLock;

use kairos_identity::{callers::Callers, grpc::layer::all_method_paths};

use super::super::input;

static METHODS: LazyLock<Vec<String>> = LazyLock::new(all_method_paths);

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(text) = input::<&str>(bytes) else { return };
    let methods: Vec<_> = METHODS.iter().map(String::as_str).collect();
    match Callers::parse(text, &methods) {
        Ok(callers) => assert!(!callers.names().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
