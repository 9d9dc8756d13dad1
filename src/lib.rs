//! Kairos Identity: who a person is, for every service of Kairos.
pub mod proto;
