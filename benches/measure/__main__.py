"""Measures the service and compares it with the reference server (`load echo`), with pgbench and with its
bars.

A bar is a bound that a measured value must meet. For every ratio, the reference is measured directly before
and directly after the service. scripts/bench runs this program.
"""

import argparse
import dataclasses
import pathlib
import signal
import sys
import tempfile

import bench
import machine
import report
from parts.batches import Batches
from parts.h2load import H2load
from parts.imports import Imports
from parts.logins import Logins
from parts.lookups import LookUps
from parts.open_loop import OpenLoop
from parts.pgbench import Pgbench
from parts.sizes import Sizes
from parts.start import Start
from process import ProgramError
from progress import log

PARTS = {
    "lookups": LookUps,
    "h2load": H2load,
    "open-loop": OpenLoop,
    "pgbench": Pgbench,
    "batches": Batches,
    "logins": Logins,
    "start": Start,
    "sizes": Sizes,
    "imports": Imports,
}


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--service", required=True, help="executable of the service")
    parser.add_argument("--load", required=True, help="executable of the load generator")
    parser.add_argument("--small", action="store_true", help="check in one minute that the benchmarks work")
    parser.add_argument("--users", type=int, nargs="+", metavar="N", help="numbers of users of the databases")
    parser.add_argument("--repetitions", type=int, metavar="N", help="number of ratios of which the median is taken")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    return parser.parse_args()


def scale(options):
    replaced = {name: value for name in ("users", "repetitions") if (value := getattr(options, name))}
    return dataclasses.replace(bench.SMALL if options.small else bench.FULL, **replaced)


def main():
    options = arguments()
    # SIGTERM raises SystemExit, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parts = {}
    with tempfile.TemporaryDirectory(prefix="kairos-bench-") as folder:
        with bench.bench(options.service, options.load, scale(options), pathlib.Path(folder)) as setup:
            failures = setup.generators.failures
            try:
                for name in options.only:
                    log(f"measuring {name}")
                    parts[name] = PARTS[name](setup)
            except ProgramError as error:
                failures.append(str(error))
        is_partial = options.small or options.users or options.repetitions or set(options.only) != set(PARTS)
        target = machine.ROOT / ("target/bench" if is_partial or failures else "benches")
        report.write(target, setup, machine.facts(setup), parts)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(bool(failures))


main()
