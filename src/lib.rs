//! Kairos Identity: the service that knows people by one `auth_token`.

pub mod clock;
pub mod domain;
pub mod entropy;
pub mod password;
pub mod proto;
pub mod store;
