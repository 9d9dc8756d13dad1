//! The fuzz targets and the code that several of them use. The tests of the service include this file.

use arbitrary::{Arbitrary, Unstructured};

pub mod service;
pub mod targets;

/// Makes the input of a target of the bytes that libFuzzer has chosen, as `fuzz_target!` does. Returns `None`
/// if they are too few.
pub fn input<'a, T: Arbitrary<'a>>(bytes: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(bytes)).ok()
}
