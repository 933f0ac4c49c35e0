"""All mutable state of a machine: integer cells and memory regions, with exact undo, snapshots and a digest.

Nothing of a machine that can change lives anywhere else, apart from where each thread stands (which the timeline's rows
restore). So taking back, jumping, branching and comparing are the same few loops whatever is simulated.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from virtviz.engine.cells import Cells, JournaledSlots, journaled
from virtviz.engine.journal import CELL, KIND, SLICE, STORE, Journal, cell_word
from virtviz.engine.memory import Region

T = TypeVar("T", bound=Cells)

PAGE_BYTES = 16384
"""Memory is copied and compared in pages of this size. Smaller ones share more and take longer to compare."""
ZERO_PAGE = bytes(PAGE_BYTES)
Snapshot = list[Any]
"""The content of every page (bytes, or ints in a list or a tuple); unchanged pages are shared between snapshots."""


class CellNames(Sequence[str]):
    """The name of every cell, by its number. A world has up to 60,000, so each is made when it is asked for."""

    def __init__(self) -> None:
        # Stretches of cells: where each begins, what it is called, and whether it is a list.
        self._starts: list[int] = []
        self._called: list[tuple[str, bool]] = []
        self._start_of: dict[str, int] = {}
        self._length = 0

    def add(self, name: str, length: int | None) -> int:
        """Name the next cell, or the next `length` cells of a list; answers the number of the first."""
        start = self._start_of[name] = self._length
        self._starts.append(start)
        self._called.append((name, length is not None))
        self._length += 1 if length is None else length
        return start

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(self._length))]
        number = range(self._length)[number]
        at = bisect_right(self._starts, number) - 1
        name, is_list = self._called[at]
        return f"{name}[{number - self._starts[at]}]" if is_list else name

    def index(self, value: str, start: int = 0, stop: int = sys.maxsize) -> int:
        """Give the number of a cell by its name, at once.

        Raises:
            ValueError: no cell (from `start` up to `stop`) has that name.
        """
        whole, _, element = value.partition("[")
        first, place = self._start_of.get(whole, -1), element.removesuffix("]")
        number = first + int(place) if place.isdecimal() else first
        if first < 0 or not start <= number < min(stop, self._length) or self[number] != value:
            raise ValueError(f"no cell is called {value!r}")
        return number


class State:
    """The registry of cells and regions.

    Attributes:
        journal: where changes are noted; None in a machine that only counts.
        names: name of every cell, by number, such as `vm1.transmitq1.num_free` or `tap0.queue.slots[12]`.
        regions: memory regions, by number.
    """

    def __init__(self, *, recording: bool) -> None:
        self.journal: Journal | None = Journal() if recording else None
        self.names = CellNames()
        self.regions: list[Region] = []
        # A cell is a slot of a component, or an element of one of its lists; its key is the slot, or the element's
        # index.
        self._owners: list[Any] = []
        self._keys: list[Any] = []
        self._numbers: list[int] = []
        # Pages: what a snapshot keeps together. A component's plain cells are one, each list is one, a stretch of
        # memory is one.
        self._pages: list[tuple[Any, Any]] = []
        self._region_bases: list[int] = []
        self._memory_bytes = 0

    # Building

    def add(self, cls: type[T], name: str, **initial: int | list[int]) -> T:
        """Make the cells of a component.

        Args:
            cls: a class made by `cells`.
            name: the component's name, unique; its cells are called `name.field`.
            initial: initial values that differ from the declared ones; every list field must be given.
        """
        scalars = [field for field, default in cls.fields.items() if default is not None]
        numbers = {field: cell_word(len(self.names) + i) for i, field in enumerate(scalars)}
        made = (cls if self.journal is None else journaled(cls, numbers, self.journal.tail.append))()
        slots = [getattr(cls, field) for field in scalars]
        for field, slot in zip(scalars, slots, strict=True):
            slot.__set__(made, initial.get(field, cls.fields[field]))
        for field in scalars:
            self.names.add(f"{name}.{field}", None)
        self._register(made, slots, (made, tuple(slots)))
        for field in (f for f, default in cls.fields.items() if default is None):
            values = list(initial[field])  # type: ignore[arg-type]
            first = self.names.add(f"{name}.{field}", len(values))
            if self.journal is not None:
                values = JournaledSlots(values, first, self.journal.tail.append)
            getattr(cls, field).__set__(made, values)
            self._register(values, self._first_numbers(len(values)), (values, None))
        return made

    def region(self, name: str, size: int) -> Region:
        """Make a memory region of zeros; the size is rounded up to whole pages."""
        return self._take_region(name, bytearray(-(-size // PAGE_BYTES) * PAGE_BYTES))

    def adopt(self, name: str, content: bytearray) -> Region:
        """Make a memory region of bytes that somebody else has, and may change between steps.

        Args:
            name: the region's name.
            content: the bytes, an even number of them, fewer than a journal address can tell apart (see `journal`).
                They are used as they are, not copied, and cannot change their length while the region exists.

        Raises:
            ValueError: an odd number of bytes.
        """
        if len(content) % 2:
            raise ValueError("a memory region is made of 16-bit words")
        return self._take_region(name, content)

    def _take_region(self, name: str, content: bytearray) -> Region:
        size = len(content)
        made = Region(name, size, self._memory_bytes, self.journal, content)
        self.regions.append(made)
        self._region_bases.append(self._memory_bytes)
        self._memory_bytes += -(-size // PAGE_BYTES) * PAGE_BYTES
        self._pages += [(made.bytes, start) for start in range(0, size, PAGE_BYTES)]
        return made

    def region_at(self, address: int) -> Region:
        """Give the region that an address of the journal lies in."""
        return self.regions[bisect_right(self._region_bases, address) - 1]

    def _register(self, owner: object, keys: list[Any], page: tuple[Any, Any]) -> None:
        self._pages.append(page)
        self._owners += [owner] * len(keys)
        self._keys += keys

    def _first_numbers(self, count: int) -> list[int]:
        """Give the numbers below a limit; the same objects every time, for all lists together have very many."""
        self._numbers += range(len(self._numbers), count)
        return self._numbers[:count]

    # Reading

    def value(self, number: int) -> int:
        """Give a cell's value by its number."""
        owner, key = self._owners[number], self._keys[number]
        value: int = owner[key] if isinstance(key, int) else key.__get__(owner)
        return value

    def digest(self) -> str:
        """Give a fingerprint of every cell and every byte (BLAKE2b, 32 hex digits)."""
        from hashlib import blake2b  # noqa: PLC0415 - takes a while to import, and a lesson needs it for nothing

        sink = blake2b(digest_size=16)
        sink.update(array("Q", map(self.value, range(len(self.names)))).tobytes())
        for region in self.regions:
            sink.update(region.bytes)
        return sink.hexdigest()

    # Taking back

    def restore(self, number: int, value: int) -> None:
        """Set a cell without journaling."""
        owner, key = self._owners[number], self._keys[number]
        if isinstance(key, int):
            list.__setitem__(owner, key, value)
        else:
            key.__set__(owner, value)

    def undo(self, entries: array[int] | list[int], blobs: bytes | bytearray, blob_end: int) -> int:
        """Put back what a stretch of journal entries overwrote, last first.

        Args:
            entries: words of the journal, two for each entry.
            blobs: the journal's old bytes.
            blob_end: where in `blobs` the last slice of these entries ends.

        Returns:
            Where in `blobs` the first slice of these entries began.
        """
        for i in range(len(entries) - 2, -1, -2):
            word, old = entries[i], entries[i + 1]
            kind = word & KIND
            if kind == CELL:
                self.restore(word >> 3, old)
            elif kind == SLICE:
                region = self.region_at(word >> 3)
                at = (word >> 3) - region.base
                region.bytes[at : at + old] = blobs[blob_end - old : blob_end]
                blob_end -= old
            elif kind == STORE:
                region = self.region_at(word >> 3 << 1)
                region.plain_u16[(word >> 3) - (region.base >> 1)] = old
        return blob_end

    # Snapshots

    def snapshot(self, previous: Snapshot | None = None) -> Snapshot:
        """Copy the whole state; pages that did not change since a previous snapshot are shared with it."""
        taken: Snapshot = []
        for number, (owner, key) in enumerate(self._pages):
            before: Any = previous[number] if previous is not None else ZERO_PAGE
            if isinstance(owner, bytearray):
                # This compares without copying.
                taken.append(before if owner.startswith(before, key) else bytes(owner[key : key + PAGE_BYTES]))
            elif key is None:
                taken.append(before if before == owner else owner[:])
            else:
                content = tuple([slot.__get__(owner) for slot in key])
                taken.append(before if before == content else content)
        return taken

    def load_snapshot(self, taken: Snapshot) -> None:
        """Set the whole state to what a snapshot holds."""
        for (owner, key), content in zip(self._pages, taken, strict=True):
            if isinstance(owner, bytearray):
                owner[key : key + PAGE_BYTES] = content
            elif key is None:
                list.__setitem__(owner, slice(None), content)
            else:
                for slot, value in zip(key, content, strict=True):
                    slot.__set__(owner, value)
