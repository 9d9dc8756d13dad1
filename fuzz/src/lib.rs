//! Code that several fuzz targets use.

pub mod service;
