"""Measures the service against the limit (`load echo`), against PostgreSQL, and against its bars.

Every ratio is of one run: the reference is measured directly before and after. Started by scripts/bench.
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
from process import Broken
from progress import say

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
    parser.add_argument("--service", required=True, help="the service's program")
    parser.add_argument("--load", required=True, help="our load generator")
    parser.add_argument("--small", action="store_true", help="a minute, to see that it works")
    parser.add_argument("--users", type=int, nargs="+", metavar="N", help="sizes of the databases")
    parser.add_argument("--repetitions", type=int, metavar="N", help="how many ratios each median is of")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    return parser.parse_args()


def extent(given):
    replaced = {name: value for name in ("users", "repetitions") if (value := getattr(given, name))}
    return dataclasses.replace(bench.SMALL if given.small else bench.FULL, **replaced)


def main():
    given = arguments()
    # So that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parts = {}
    with tempfile.TemporaryDirectory(prefix="kairos-bench-") as folder:
        with bench.bench(given.service, given.load, extent(given), pathlib.Path(folder)) as measured:
            failures = measured.generators.failures
            try:
                for name in given.only:
                    say(f"measuring {name}")
                    parts[name] = PARTS[name](measured)
            except Broken as broken:
                failures.append(str(broken))
        is_part = given.small or given.users or given.repetitions or set(given.only) != set(PARTS)
        target = machine.ROOT / ("target/bench" if is_part or failures else "benches")
        report.write(target, measured, machine.facts(measured), parts)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(bool(failures))


main()
