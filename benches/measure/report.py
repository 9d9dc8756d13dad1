"""Writes RESULTS.md and RESULTS.svg."""

import bars
import plot
from progress import log
from tables import table

NOTES = "<!-- notes: kept by scripts/bench -->"


def write(folder, bench, facts, parts):
    """Writes the results of the parts. The text below the line `NOTES` is preserved."""
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "RESULTS.md"
    sections = [
        "# Results",
        "Written by `scripts/bench`; client and server run on the same cores. `echo` is the reference: a server that "
        "returns a constant user with the service's accept loop. A ratio compares one sample with the mean of the "
        "samples of the reference directly before and after it; the tables show the median of "
        f"{bench.scale.repetitions} ratios.",
    ]
    if "lookups" in parts:
        drawn = plot.svg(parts["lookups"].curves(), f"{bench.most_users:,} users")
        (folder / "RESULTS.svg").write_text(drawn)
        sections.append("![Throughput and p99 against calls in flight](RESULTS.svg)")
    sections.append(bars.table_of([bar for part in parts.values() for bar in part.bars()]))
    sections += [text for part in parts.values() for text in part.tables()]
    sections.append(table("Machine and versions", "", ["item", "value"], facts))
    sections.append(NOTES + _notes(results))
    results.write_text("\n\n".join(sections).rstrip() + "\n")
    print(results.read_text())
    log(f"wrote {results}")


def _notes(results):
    if not results.exists():
        return ""
    return results.read_text().partition(NOTES)[2]
