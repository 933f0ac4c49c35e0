"""Byte-addressed memory: guest RAM, the host's packet memory, a process's buffers.

A region is a `bytearray`. Ring indices and flags are little-endian 16-bit words at even addresses, and are read and
written as such; anything larger goes by records or slices. A recording region journals what is stored and read; a plain
one does not, and is the faster by that much.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from virtviz.engine.journal import LOAD, RECORD, SLICE, STORE

if TYPE_CHECKING:
    from virtviz.engine.journal import Journal

Bytes = bytes | bytearray
Namer = Callable[[int, int], str]
"""Given an offset in a named stretch and a size, the field's name, such as `avail.idx`."""


class Words(Protocol):
    """The 16-bit words of a region; index i is the word at address 2 i."""

    def __getitem__(self, index: int, /) -> int:
        """Read a word."""
        ...

    def __setitem__(self, index: int, value: int, /) -> None:
        """Write a word."""
        ...


class Port(Protocol):
    """How the two sides of a ring reach the memory they share: a region, or a CPU's store buffer in front of one.

    Attributes:
        size: bytes.
        bytes: the content as others see it; looking at it is not journaled.
        u16: its 16-bit words.
    """

    size: int
    bytes: bytearray
    u16: Words

    def reader(self, codec: struct.Struct) -> Callable[[int], tuple[int, ...]]:
        """Give a function that reads a record of that form from an address."""
        ...

    def writer(self, codec: struct.Struct) -> Callable[..., None]:
        """Give a function that writes a record of that form to an address: address, then the values."""
        ...

    def write(self, address: int, data: Bytes) -> None:
        """Write bytes anywhere."""
        ...

    def read(self, address: int, length: int) -> bytearray:
        """Copy bytes out."""
        ...

    def holds(self, address: int, length: int) -> bool:
        """Say whether a stretch of bytes lies wholly inside."""
        ...


class Region:
    """One region of memory, addressed from 0 to `size` - 1. It is a `Port`.

    An address that lies outside is an error of the caller, who has to check addresses that come from another party
    first (`holds`).

    Attributes:
        name: such as `vm1.ram`.
        base: where it begins among all regions of its machine; addresses in the journal count from there.
        size: bytes, a multiple of 2.
        bytes: the content; looking at it is not journaled.
        u16: its 16-bit words, little-endian.
        write: write bytes anywhere; the old ones are journaled as one entry.
    """

    u16: Words
    write: Callable[[int, Bytes], None]

    def __init__(
        self, name: str, size: int, base: int = 0, journal: Journal | None = None, content: bytearray | None = None
    ) -> None:
        self.name = name
        self.size = size
        self.base = base
        self.bytes = bytearray(size) if content is None else content
        self._journal = journal
        self._starts: list[int] = []
        self._stretches: list[tuple[int, int, str, Namer]] = []
        self.plain_u16: Words = (
            memoryview(self.bytes).cast("H") if sys.byteorder == "little" else _LittleWords(self.bytes)
        )
        if journal is None:
            self.u16 = self.plain_u16
            self.write = partial(_write, self.bytes)
        else:
            self.u16 = JournaledWords(self.plain_u16, base, journal.tail.append)
            self.write = partial(_write_journaled, self.bytes, base, journal)

    def holds(self, address: int, length: int) -> bool:
        """Say whether a stretch of bytes lies wholly inside."""
        return address >= 0 and address + length <= self.size

    def read(self, address: int, length: int) -> bytearray:
        """Copy bytes out; nothing is journaled."""
        return self.bytes[address : address + length]

    def reader(self, codec: struct.Struct) -> Callable[[int], tuple[int, ...]]:
        """Give a function that reads a record of that form from an address; that is journaled, its values are not."""
        if self._journal is None:
            return partial(codec.unpack_from, self.bytes)
        append, buffer, entry, length = self._journal.tail.append, self.bytes, self.base << 3 | RECORD, codec.size

        def read_record(address: int) -> tuple[int, ...]:
            append((address << 3) + entry)
            append(length)
            return codec.unpack_from(buffer, address)

        return read_record

    def writer(self, codec: struct.Struct) -> Callable[..., None]:
        """Give a function that writes a record of that form to an address: address, then the values."""
        if self._journal is None:
            return partial(codec.pack_into, self.bytes)
        write, pack = self.write, codec.pack

        def write_record(address: int, *values: int | bytes) -> None:
            write(address, pack(*values))

        return write_record

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


class JournaledWords:
    """The words of a recording region."""

    __slots__ = ("_append", "_load", "_store", "_words")

    def __init__(self, words: Words, base: int, append: Callable[[int], None]) -> None:
        self._words = words
        self._append = append
        self._load = (base >> 1) << 3 | LOAD
        self._store = (base >> 1) << 3 | STORE

    def __getitem__(self, index: int) -> int:
        value = self._words[index]
        append = self._append
        append((index << 3) + self._load)
        append(value)
        return value

    def __setitem__(self, index: int, value: int) -> None:
        append = self._append
        append((index << 3) + self._store)
        append(self._words[index])
        self._words[index] = value


class _LittleWords:
    """The words of a buffer on a big-endian host."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer

    def __getitem__(self, index: int) -> int:
        return int.from_bytes(self._buffer[2 * index : 2 * index + 2], "little")

    def __setitem__(self, index: int, value: int) -> None:
        self._buffer[2 * index : 2 * index + 2] = bytearray(value.to_bytes(2, "little"))


class _Packers(dict[int, Callable[..., None]]):
    """Length -> a function that writes so many bytes into a buffer; much quicker than assigning them to a slice."""

    def __missing__(self, length: int) -> Callable[..., None]:
        made = self[length] = struct.Struct(f"{length}s").pack_into
        return made


_packers = _Packers()


def _write(buffer: bytearray, address: int, data: Bytes) -> None:
    _packers[len(data)](buffer, address, data)


def _write_journaled(buffer: bytearray, base: int, journal: Journal, address: int, data: Bytes) -> None:
    length = len(data)
    append = journal.tail.append
    append(address + base << 3 | SLICE)
    append(length)
    journal.blobs += buffer[address : address + length]
    _packers[length](buffer, address, data)
