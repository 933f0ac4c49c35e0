"""Byte-addressed memory: guest RAM, the host's packet memory, a process's buffers.

A region is a `bytearray`. Fields of 1, 2, 4 and 8 bytes are little-endian and lie at multiples of their size, as ring
fields always do; anything else is read and written as a slice. A recording region journals stores, slices and loads; a
plain one does not, and is the faster by that much.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from virtviz.engine.journal import LOAD, RECORD, SLICE, STORE

if TYPE_CHECKING:
    from virtviz.engine.journal import Journal

Load = Callable[[int], int]
Store = Callable[[int, int], None]
Bytes = bytes | bytearray
Namer = Callable[[int, int], str]
"""Given an offset in a named stretch and a size, the field's name, such as `avail.idx`."""

SIZES = (1, 2, 4, 8)
_LITTLE = sys.byteorder == "little"
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Region:
    """One region of memory, addressed from 0 to `size` - 1.

    Attributes:
        name: such as `vm1.ram`.
        base: where it begins among all regions of its machine; addresses in the journal count from there.
        size: bytes.
        load8, load16, load32, load64: read one little-endian field; an address that is not a multiple of its size, or lies outside, is an
            error of the caller, who has to check addresses that come from another party first (`holds`).
        store8, store16, store32, store64: write one.
        write: write bytes anywhere; the old ones are journaled as one entry.
        load_record: read a record of 16 bytes or fewer at any address; journaled as a load, without its value.
        put_back: write one without journaling, by log2 of its width; for undo only.
    """

    load8: Load
    load16: Load
    load32: Load
    load64: Load
    store8: Store
    store16: Store
    store32: Store
    store64: Store

    def __init__(self, name: str, size: int, base: int = 0, journal: Journal | None = None) -> None:
        self.name = name
        self.size = size
        self.base = base
        self.bytes = bytearray(size)
        self._journal = journal
        self.put_back: list[Store] = []
        self._starts: list[int] = []
        self._stretches: list[tuple[int, int, str, Namer]] = []
        for log2, width in enumerate(SIZES):
            load, store = self._accessors(log2, width)
            setattr(self, f"load{8 * width}", load)
            setattr(self, f"store{8 * width}", store)
        self.write, self.load_record = self._slices()

    def _accessors(self, log2: int, width: int) -> tuple[Load, Store]:
        """Make the functions that read and write a field of one width."""
        raw_load, raw_store = raw_accessors(self.bytes, log2, width)
        self.put_back.append(raw_store)
        if self._journal is None:
            return raw_load, raw_store
        append = self._journal.tail.append
        store_at = self.base << 5 | log2 << 3 | STORE
        load_at = self.base << 5 | log2 << 3 | LOAD

        def load(address: int) -> int:
            value = raw_load(address)
            append((address << 5) + load_at)
            append(value)
            return value

        def store(address: int, value: int) -> None:
            append((address << 5) + store_at)
            append(raw_load(address))
            raw_store(address, value)

        return load, store

    def holds(self, address: int, length: int) -> bool:
        """Say whether a stretch of bytes lies wholly inside."""
        return 0 <= address and address + length <= self.size

    def read(self, address: int, length: int) -> bytearray:
        """Copy bytes out; nothing is journaled."""
        return self.bytes[address : address + length]

    def _slices(self) -> tuple[Callable[[int, Bytes], None], Callable[[struct.Struct, int], tuple[int, ...]]]:
        """Make the functions that write a slice and read a record."""
        buffer = self.bytes
        if self._journal is None:

            def write(address: int, data: Bytes) -> None:
                buffer[address : address + len(data)] = data

            def load_record(codec: struct.Struct, address: int) -> tuple[int, ...]:
                return codec.unpack_from(buffer, address)

            return write, load_record
        journal = self._journal
        append = journal.tail.append
        slice_at = self.base << 3 | SLICE
        record_at = self.base << 3 | RECORD

        def write_journaled(address: int, data: Bytes) -> None:
            length = len(data)
            end = address + length
            append((address << 3) + slice_at)
            append(length)
            journal.blobs += buffer[address:end]
            buffer[address:end] = data

        def load_record_journaled(codec: struct.Struct, address: int) -> tuple[int, ...]:
            append((address << 3) + record_at)
            append(codec.size)
            return codec.unpack_from(buffer, address)

        return write_journaled, load_record_journaled

    def store_record(self, codec: struct.Struct, address: int, *values: int) -> None:
        """Write a record at any address."""
        self.write(address, codec.pack(*values))

    # Names of the fields, for people: nothing in the machine depends on them.

    def name_stretch(self, start: int, length: int, owner: str, namer: Namer) -> None:
        """Say how the fields of a stretch are called; `owner` is the queue or pool it belongs to."""
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._stretches.insert(at, (start, length, owner, namer))

    def field_at(self, address: int, size: int) -> tuple[str, str]:
        """Give owner and name of a field; both empty where nobody named it."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            start, length, owner, namer = self._stretches[at]
            if address < start + length:
                return owner, namer(address - start, size)
        return "", ""


def raw_accessors(buffer: bytearray, log2: int, width: int) -> tuple[Load, Store]:
    """Make functions that read and write one little-endian field of a buffer, at multiples of its width."""
    if _LITTLE and len(buffer) % 8 == 0:
        view = memoryview(buffer).cast(_FORMATS[width])

        def load(address: int) -> int:
            return view[address >> log2]

        def store(address: int, value: int) -> None:
            view[address >> log2] = value

        return load, store
    codec = struct.Struct("<" + _FORMATS[width])

    def load_by_struct(address: int) -> int:
        value: int = codec.unpack_from(buffer, address)[0]
        return value

    def store_by_struct(address: int, value: int) -> None:
        codec.pack_into(buffer, address, value)

    return load_by_struct, store_by_struct
