//! Each fuzz target with the inputs in `fuzz/seeds` and with changed ones. `scripts/fuzz` runs the targets
//! for longer, with libFuzzer, which looks for inputs that reach other code.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use kairos_identity::entropy::Entropy;

use crate::support::tools::repository;

#[path = "../../fuzz/src/lib.rs"]
#[expect(clippy::too_many_lines, reason = "the start of a service")]
mod fuzz;

/// The number of changed inputs of a target.
const CHANGED_INPUTS: usize = 2_000;

/// The same inputs at each run, so that a failure is not chance.
const SEED: u64 = 1;

/// The most bytes of an input.
const INPUT_BYTES_MAX: usize = 4_096;

/// Makes inputs of the bytes of others.
struct Changes {
    entropy: Entropy,
    seeds: Vec<Vec<u8>>,
}

impl Changes {
    /// Returns a random number below `end`, or 0 if `end` is 0.
    fn below(&self, end: usize) -> usize {
        usize::try_from(u32::from_be_bytes(self.entropy.bytes())).unwrap().checked_rem(end).unwrap_or(0)
    }

    fn seed(&self) -> Vec<u8> {
        self.seeds.get(self.below(self.seeds.len())).cloned().unwrap_or_default()
    }

    /// Returns a part of a seed.
    fn part(&self) -> Vec<u8> {
        let mut seed = self.seed();
        let mut part = seed.split_off(self.below(seed.len()));
        part.truncate(1 + self.below(16));
        part
    }

    /// Returns a seed with one to eight changes.
    fn input(&self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..=self.below(8) {
            let at = self.below(input.len() + 1);
            let end = (at + self.below(16)).min(input.len());
            match self.below(6) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = self.entropy.bytes::<1>()[0],
                2 => drop(input.splice(at..end, [])),
                3 => drop(input.splice(at..at, self.entropy.bytes::<3>())),
                4 => drop(input.splice(at..end, self.part())),
                _ => drop(input.splice(at..at, self.part().repeat(1 + self.below(20)))),
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }
}

/// Reads the seeds of a target. Not every target has some.
fn seeds(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn no_target_finds_a_fault_in_its_seeds_and_in_changed_ones() {
    for (name, run) in fuzz::targets::TARGETS {
        let seeds = seeds(&repository().join("fuzz/seeds").join(name));
        let generator = Changes { entropy: Entropy::seeded(SEED), seeds: seeds.clone() };
        let changed = std::iter::repeat_with(|| generator.input()).take(CHANGED_INPUTS);
        for input in seeds.into_iter().chain(changed) {
            let result = catch_unwind(AssertUnwindSafe(|| run(&input)));
            assert!(result.is_ok(), "{name} finds a fault in {:?}", String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let mut names: Vec<_> = fs::read_dir(repository().join("fuzz/fuzz_targets"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, fuzz::targets::TARGETS.map(|(name, _)| name));
    let manifest = fs::read_to_string(repository().join("fuzz/Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let program = fs::read_to_string(repository().join(format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("targets::{name}::run(bytes)")), "{program}");
    }
}
