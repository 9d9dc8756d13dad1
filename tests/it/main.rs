//! The real binary, driven as its users drive it. One crate, so that it links once; `support` is its vocabulary.

#![expect(clippy::disallowed_methods, reason = "tests wait for real processes, so they use the real clock")]

// `cfg(test)` tells clippy that these files are tests, where unwrap and indexing are how a test fails.
#[cfg(test)]
#[macro_use]
mod support;

#[cfg(test)]
mod arrows;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod clock_jumps;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod django;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod model;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod pgbouncer;
#[cfg(test)]
mod races;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod smtp;
#[cfg(test)]
mod standalone;
#[cfg(test)]
mod store;
#[cfg(test)]
mod timing;
#[cfg(test)]
mod tools;
