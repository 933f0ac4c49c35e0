"""All mutable state of a machine: integer cells and memory regions, with exact undo, snapshots and a digest.

Nothing of a machine that can change lives anywhere else, apart from where each thread stands (which the timeline's rows
restore). So taking back, jumping, branching and comparing are the same few loops whatever is simulated.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from typing import Any, TypeVar

from virtviz.engine.cells import Cells, JournaledSlots, journaled
from virtviz.engine.journal import CELL, KIND, SLICE, STORE, Journal, cell_word
from virtviz.engine.memory import Region

T = TypeVar("T", bound=Cells)

PAGE_BYTES = 16384
"""Memory is copied and compared in pages of this size. Smaller ones share more and take longer to compare."""
ZERO_PAGE = bytes(PAGE_BYTES)
Snapshot = list[Any]
"""The content of every page (bytes, or ints in a list or a tuple); unchanged pages are shared between snapshots."""


class State:
    """The registry of cells and regions.

    Attributes:
        journal: where changes are noted; None in a machine that only counts.
        names: name of every cell, by number, such as `vm1.transmitq1.num_free` or `tap0.queue.slots[12]`.
        regions: memory regions, by number.
    """

    def __init__(self, *, recording: bool) -> None:
        self.journal: Journal | None = Journal() if recording else None
        self.names: list[str] = []
        self.regions: list[Region] = []
        # A cell is a slot of a component, or an element of one of its lists; its key is the slot, or the element's
        # index.
        self._owners: list[Any] = []
        self._keys: list[Any] = []
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
        self._register(made, slots, [f"{name}.{field}" for field in scalars], (made, tuple(slots)))
        for field in (f for f, default in cls.fields.items() if default is None):
            values = list(initial[field])  # type: ignore[arg-type]
            first = len(self.names)
            if self.journal is not None:
                values = JournaledSlots(values, first, self.journal.tail.append)
            getattr(cls, field).__set__(made, values)
            keys = list(range(len(values)))
            self._register(values, keys, [f"{name}.{field}[{i}]" for i in keys], (values, None))
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

    def _register(self, owner: object, keys: list[Any], names: list[str], page: tuple[Any, Any]) -> None:
        self._pages.append(page)
        self._owners += [owner] * len(keys)
        self._keys += keys
        self.names += names

    # Reading

    def value(self, number: int) -> int:
        """Give a cell's value by its number."""
        owner, key = self._owners[number], self._keys[number]
        value: int = owner[key] if isinstance(key, int) else key.__get__(owner)
        return value

    def digest(self) -> str:
        """Give a fingerprint of every cell and every byte (BLAKE2b, 32 hex digits)."""
        sink = hashlib.blake2b(digest_size=16)
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
