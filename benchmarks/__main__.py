"""Run the measurements and print one table: all of them, or the groups named as arguments.

Exit code 1 if a row of the engine is over its budget, or if a program that is to be measured does not run. The other
groups depend on how fast terminal programs are on the machine at hand: they are shown, and judged by people.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks import engine, rings, screen, startup
from benchmarks.table import draw
from benchmarks.terminal import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.table import Row

REPETITIONS = 5
GROUPS: Mapping[str, Callable[[], Iterator[Row]]] = {
    engine.GROUP: lambda: engine.rows(REPETITIONS),
    rings.GROUP: lambda: rings.rows(REPETITIONS),
    startup.GROUP: lambda: startup.rows(REPETITIONS),
    screen.GROUP: screen.rows,
}


def main(names: list[str]) -> int:
    """Measure, print, judge."""
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        print(f"no group {unknown[0]!r}; there is {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    found: list[Row] = []
    failures = []
    for name in names or GROUPS:
        try:
            for row in GROUPS[name]():
                print(f"{row.what}: {row.measured}", file=sys.stderr, flush=True)
                found.append(row)
        except TerminalError as error:
            failures.append(f"[{name}] could not be measured: {error}")
    print(draw(found))
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures) or any(row.group == engine.GROUP and not row.holds for row in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
