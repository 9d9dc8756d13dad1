"""Describes the machine and the versions of a measurement."""

import datetime
import os
import pathlib
import platform
import re
import struct
import subprocess
import tomllib

from process import output_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("src", "proto", "migrations", "templates", "build.rs", "Cargo.toml", "Cargo.lock")


def facts(bench):
    """Returns pairs of a name and a value, for a table."""
    cpu = re.search(r"model name\s+: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory_kib = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1))
    locked = {p["name"]: p["version"] for p in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    return [
        ("date", datetime.date.today()),
        ("processor", f"{os.cpu_count()} cores, {cpu.group(1) if cpu else platform.machine()}"),
        ("memory", f"{memory_kib / 2**20:.0f} GiB"),
        ("system", f"Linux {platform.release()}"),
        ("service", _commit()),
        ("rustc", output_of(["rustc", "--version"]).split()[1]),
        *((crate, locked[crate]) for crate in ("tonic", "hyper", "h2", "tokio")),
        *(("SQLite", _sqlite_version(file)) for file in sorted(bench.folder.glob("*.sqlite3"))[:1]),
        ("PostgreSQL", bench.postgres.version()),
        ("h2load", output_of(["h2load", "--version"]).strip().rpartition("/")[2]),
    ]


def _commit():
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if head.returncode != 0:
        return "not a git checkout"
    is_changed = output_of([*git, "status", "--porcelain", "--", *SOURCES])
    return f"commit {head.stdout.strip()}{' with changes' if is_changed else ''}"


def _sqlite_version(database):
    """Returns the version of the library that last wrote the file (https://www.sqlite.org/fileformat.html,
    offset 96).
    """
    with database.open("rb") as file:
        number = struct.unpack_from(">I", file.read(100), 96)[0]
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
