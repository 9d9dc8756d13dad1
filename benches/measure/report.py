"""RESULTS.md and RESULTS.svg."""

import bars
import plot
from progress import say
from tables import table

NOTES = "<!-- notes: kept by scripts/bench -->"


def write(folder, bench, facts, parts):
    """Writes what the parts measured; what stands below the line `NOTES` stays."""
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "RESULTS.md"
    sections = [
        "# Results",
        "Made by `scripts/bench`, client and server on the same cores. A ratio is that of a look to the mean of "
        f"the looks at the reference directly before and after it; the median of {bench.extent.repetitions} counts.",
    ]
    if "lookups" in parts:
        drawn = plot.svg(parts["lookups"].curves(), f"{bench.most_users:,} users")
        (folder / "RESULTS.svg").write_text(drawn)
        sections.append("![Throughput and p99 against calls in flight](RESULTS.svg)")
    sections.append(bars.table_of([bar for part in parts.values() for bar in part.bars()]))
    sections += [text for part in parts.values() for text in part.tables()]
    sections.append(table("Machine and versions", "", ["what", "which"], facts))
    sections.append(NOTES + _notes(results))
    results.write_text("\n\n".join(sections).rstrip() + "\n")
    print(results.read_text())
    say(f"wrote {results}")


def _notes(results):
    if not results.exists():
        return ""
    return results.read_text().partition(NOTES)[2]
