"""The driver of scripts/disasters; see there."""

import argparse
import concurrent.futures
import pathlib
import random
import resource
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback

import postgres
import processes
import scenarios
import service
from disk import compile_shim

# Several at a time: most of a scenario is waiting.
CASES_AT_A_TIME = 6
PROGRESS_SECONDS = 60


class Campaign:
    """What the cases share. Each part is made when a case first needs it."""

    def __init__(self, binary, keeps_files):
        self.binary = binary
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kairos-disasters-"))
        # PostgreSQL runs under another account.
        self.folder.chmod(0o755)
        if not keeps_files:
            processes.reaper().tell("folder", self.folder)
        self.lock = threading.RLock()
        self.made = {}
        self.running = []

    def once(self, name, make):
        with self.lock:
            if name not in self.made:
                self.made[name] = make()
            return self.made[name]

    def shim(self):
        return self.once("shim", lambda: compile_shim(self.folder))

    def template(self):
        return self.once("template", lambda: postgres.make_template(self.folder / "template", self.binary, service.Service))

    def shared_cluster(self):
        return self.once("cluster", lambda: postgres.Cluster(self.folder / "shared", self.template()).start())


class Result:
    def __init__(self, case, seconds, failure=None, skipped=None):
        self.case, self.seconds, self.failure, self.skipped = case, seconds, failure, skipped

    @property
    def verdict(self):
        return "skipped" if self.skipped else "FAILED" if self.failure else "passed"


def run_case(campaign, scenario, engine, arguments, rounds):
    case = scenarios.Case(campaign, scenario.name, engine, arguments.seed, rounds, arguments.small)
    campaign.running.append(case)
    began = time.monotonic()
    failure = skipped = None
    try:
        scenario.run(case)
    except scenarios.Skipped as reason:
        skipped = reason.reason
    except Exception as error:  # noqa: BLE001  every failure is reported, the other cases go on
        failure = f"{type(error).__name__}: {error}"
        if not isinstance(error, AssertionError):
            failure += "\n" + traceback.format_exc()
    try:
        case.end()
    except Exception as error:  # noqa: BLE001
        failure = failure or f"while ending: {error}"
    campaign.running.remove(case)
    result = Result(case, time.monotonic() - began, failure, skipped)
    print(f"disasters: {case.name} on {engine} {result.verdict} after {result.seconds:.1f} s", file=sys.stderr, flush=True)
    if skipped:
        print(f"disasters: {case.name} on {engine} was skipped: {skipped}", flush=True)
    if failure:
        repeat = f"scripts/disasters --only {case.name} --seed {arguments.seed} --rounds {rounds}"
        repeat += " --small" if arguments.small else ""
        lines = [f"disasters: {case.name} on {engine} FAILED in round {case.done + 1}: {failure}", f"  repeat it with: {repeat}"]
        if arguments.keep:
            lines.append(f"  files: {case.folder}")
        elif case.service:
            lines.append("  the log of the service ends with:\n" + case.service.last_lines())
        print("\n".join(lines), flush=True)
    return result


def report_progress(campaign, ended):
    """Prints the rounds that the running cases have done, once in PROGRESS_SECONDS."""
    while not ended.wait(PROGRESS_SECONDS):
        rounds = [f"{case.name} on {case.engine} {case.done} of {case.rounds}" for case in list(campaign.running)]
        print(f"disasters: rounds: {', '.join(rounds)}", file=sys.stderr, flush=True)


def table(results):
    rows = [["scenario", "engine", "rounds", "acknowledged", "users checked", "errors that callers got", "also", "s", ""]]
    for result in results:
        case = result.case
        codes = ", ".join(f"{code} {count}" for code, count in sorted(case.codes.items()) if code not in ("OK", "UNAUTHENTICATED"))
        other = {name: value for name, value in case.figures.items() if name not in ("acknowledged", "users", "checks")}
        also = ", ".join(f"{name} {value}" for name, value in other.items())
        figures = [str(case.done), str(case.figures.get("acknowledged", 0)), str(case.figures.get("users", 0))]
        rows.append([case.name, case.engine, *figures, codes or "-", also or "-", f"{result.seconds:.0f}", result.verdict])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def chosen(arguments):
    """Returns the (scenario, engine, rounds) to run."""
    import patroni

    # Patroni's are the longest.
    known = [*patroni.SCENARIOS, *scenarios.SCENARIOS]
    only = arguments.only or []
    unknown = [name for name in only if not any(name in (each.name, each.name.split("-")[0]) for each in known)]
    if unknown:
        sys.exit(f"disasters: no scenario {unknown[0]}; there are: {' '.join(each.name for each in known)}")
    found = []
    for each in known:
        if only and each.name not in only and each.name.split("-")[0] not in only:
            continue
        rounds = arguments.rounds or (each.small if arguments.small else each.rounds)
        if rounds == 0 and not only:
            continue
        found += [(each, engine, rounds or 1) for engine in each.engines if arguments.engine in (None, engine)]
    return found


def main():
    parser = argparse.ArgumentParser(prog="scripts/disasters", description="Disasters of the database and the service.")
    parser.add_argument("--binary", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="one or a few short rounds of each scenario: at most 60 s")
    parser.add_argument("--only", action="append", metavar="NAME", help="this scenario; can be repeated")
    parser.add_argument("--engine", choices=["sqlite", "postgres"], help="this engine")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run")
    parser.add_argument("--rounds", type=int, help="number of rounds of each scenario")
    parser.add_argument("--keep", action="store_true", help="keeps the files of the run")
    parser.add_argument("--list", action="store_true", help="lists the scenarios")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1_000_000)
    cases = chosen(arguments)
    if arguments.list:
        for scenario in dict.fromkeys(scenario for scenario, _, _ in cases):
            print(f"{scenario.name:20} {', '.join(scenario.engines):18} {scenario.rounds:4} rounds  {scenario.text}")
        return 0
    # As in scripts/test: many connections.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"disasters: seed {arguments.seed}", flush=True)
    began = time.monotonic()
    service.generate_stubs(tempfile.mkdtemp(prefix="kairos-stubs-"))
    campaign = Campaign(arguments.binary.resolve(), arguments.keep)
    ended = threading.Event()
    threading.Thread(target=report_progress, args=(campaign, ended), daemon=True).start()
    with concurrent.futures.ThreadPoolExecutor(CASES_AT_A_TIME) as pool:
        started = [pool.submit(run_case, campaign, scenario, engine, arguments, rounds) for scenario, engine, rounds in cases]
        results = [future.result() for future in started]
    ended.set()
    print(table(results))
    failed = [result for result in results if result.failure]
    used = sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"disasters: {len(results) - len(failed)} of {len(results)} passed, seed {arguments.seed}, "
        f"{time.monotonic() - began:.0f} s ({used:.0f} s of processor time)",
        flush=True,
    )
    if arguments.keep:
        print(f"disasters: the files are in {campaign.folder}")
    processes.reaper().finish()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
