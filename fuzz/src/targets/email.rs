//! Parses arbitrary texts as an email. An accepted email must be within its bounds, and parsing it again must
//! return the same email.

use kairos_identity::domain::{EMAIL_OCTETS_MAX, Email};

use super::super::input;

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(text) = input::<&str>(bytes) else { return };
    let Ok(email) = Email::parse(text) else { return };
    assert!(email.as_str().len() <= EMAIL_OCTETS_MAX);
    assert!(!email.as_str().chars().any(char::is_control));
    assert_eq!(format!("{}@{}", email.local_part(), email.domain()), email.as_str());
    assert_eq!(Email::parse(email.as_str()), Ok(email));
}
