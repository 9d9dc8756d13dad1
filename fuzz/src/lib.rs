//! What the targets share.

pub mod service;
