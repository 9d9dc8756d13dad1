//! The metrics of the process, with the names that Prometheus gives them in all languages
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>), and the version.

use std::{fs, time::Duration};

use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

use crate::{
    metrics::{EncodeLabelSet, Info, PREFIX, Registry, Unit, register_gauge, register_seconds_total},
    server::open_files,
};

/// The labels of the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// Adds the metrics of the process to a registry. `started_at` is the time of its start since 1970.
pub(super) fn register(registry: &mut Registry, started_at: Duration) {
    let build = Build { version: env!("CARGO_PKG_VERSION") };
    registry.sub_registry_with_prefix(PREFIX).register(
        "build",
        "The version of this service",
        Info::new(build),
    );
    let seconds = Some(Unit::Seconds);
    register_gauge(registry, "process_start_time", "Time of the start since 1970", seconds, move || {
        started_at.as_secs_f64()
    });
    register_seconds_total(registry, "process_cpu", "Processor time of all threads", cpu_time);
    let bytes = Some(Unit::Bytes);
    register_gauge(registry, "process_resident_memory", "Memory in use", bytes, resident_bytes);
    register_gauge(registry, "process_open_fds", "Number of open files and sockets", None, count_open_files);
    register_gauge(
        registry,
        "process_max_fds",
        "Limit on the number of open files and sockets",
        None,
        || open_files::limit().unwrap_or(usize::MAX),
    );
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// Returns the resident memory; 0 if the system does not say.
fn resident_bytes() -> u64 {
    // The second field is the number of resident pages (proc_pid_statm(5)).
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default();
    pages * page_size() as u64
}

/// Returns the number of open files; 0 if the system does not say.
fn count_open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
