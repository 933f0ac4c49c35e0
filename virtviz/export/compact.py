"""The state before the first step, written small: up to 60,000 cells and 12 MB, mostly alike, in a few kilobytes.

Cells come in the order of their numbers. A plain cell is `name: value` and takes one number; a list of cells is
`name: [runs]` and takes as many as it is long, named `name[0]`, `name[1]`, ... A run is `[first, count, step]`. Of
memory only the stretches that are not 0 are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.export.lines import RegionLine, StateLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from virtviz.paths.describe import InitialState

GAP: Final = bytes(8)
"""So many zeros in a row end a stretch; fewer are cheaper to write than another address."""
BLANK: Final = bytes(4096)
"""Memory is looked through in pieces of this size; most are blank, and comparing is quicker than searching."""
CELLS_MAX: Final = 1 << 22
MEMORY_MAX: Final = 1 << 30
"""A file that asks for more than this is refused before anything is made for it."""


def pack(state: InitialState) -> StateLine:
    """Write cells and memory small."""
    cells: dict[str, int | list[tuple[int, int, int]]] = {}
    lists: dict[str, list[int]] = {}
    for name, value in state.cells.items():
        if not name.endswith("]"):
            cells[name] = value
            continue
        stem = name[: name.rindex("[")]
        if stem not in lists:
            lists[stem] = []
            cells[stem] = []
        lists[stem].append(value)
    for stem, values in lists.items():
        cells[stem] = list(_runs(values))
    memory = {
        name: RegionLine(len(content), [(at, data.hex()) for at, data in _stretches(content)])
        for name, content in state.memory.items()
    }
    return StateLine(cells, memory)


def unpack(line: StateLine) -> tuple[dict[str, int], dict[str, bytearray]]:
    """Rebuild all cells, in the order of their numbers, and all memory.

    Raises:
        ValueError: a stretch does not lie in its region, or there is more of something than anybody could mean.
    """
    many = sum(1 if isinstance(value, int) else sum(run[1] for run in value) for value in line.cells.values())
    if many > CELLS_MAX:
        raise ValueError(f"{many} cells are more than {CELLS_MAX}")
    size = sum(region.size for region in line.memory.values())
    if size > MEMORY_MAX:
        raise ValueError(f"{size} bytes of memory are more than {MEMORY_MAX}")
    cells: dict[str, int] = {}
    for name, value in line.cells.items():
        if isinstance(value, int):
            cells[name] = value
        else:
            cells.update((f"{name}[{i}]", cell) for i, cell in enumerate(_values(value)))
    memory: dict[str, bytearray] = {}
    for name, region in line.memory.items():
        content = memory[name] = bytearray(region.size)
        for address, digits in region.bytes:
            data = bytes.fromhex(digits)
            if address + len(data) > region.size:
                raise ValueError(f"{name} has {region.size} bytes, and none at {address + len(data) - 1}")
            content[address : address + len(data)] = data
    return cells, memory


def _runs(values: list[int]) -> Iterator[tuple[int, int, int]]:
    """Cut a list into runs of equal steps, each as long as it goes."""
    at, end = 0, len(values)
    while at < end:
        first, count, step = values[at], 1, 0
        if at + 1 < end:
            step = values[at + 1] - first
            while at + count < end and values[at + count] == first + count * step:
                count += 1
        # Two different values that nothing continues: the second may begin a run of its own.
        if step and count == 2 and at + 2 < end:
            count, step = 1, 0
        yield first, count, step
        at += count


def _values(runs: Iterable[tuple[int, int, int]]) -> Iterator[int]:
    for first, count, step in runs:
        for i in range(count):
            yield first + i * step


def _stretches(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Find what is not 0: address and bytes of each stretch."""
    start = end = 0
    for piece in range(0, len(content), len(BLANK)):
        if content.startswith(BLANK, piece):
            continue
        for at, byte in enumerate(content[piece : piece + len(BLANK)], piece):
            if not byte:
                continue
            if start < end and at - end >= len(GAP):
                yield start, content[start:end]
                start = end
            if start == end:
                start = at
            end = at + 1
    if start < end:
        yield start, content[start:end]
