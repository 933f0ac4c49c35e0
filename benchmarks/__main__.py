"""Run every measurement and print one table. Exit code 1 if an engine row is over its budget."""

from __future__ import annotations

import sys

from benchmarks import engine
from benchmarks.table import draw

REPETITIONS = 5


def main() -> int:
    """Measure, print, judge."""
    found = []
    for row in engine.rows(REPETITIONS):
        print(".", end="", file=sys.stderr, flush=True)
        found.append(row)
    print(file=sys.stderr)
    print(draw(found))
    return int(any(row.group == engine.GROUP and not row.holds for row in found))


if __name__ == "__main__":
    sys.exit(main())
