"""Memory that belongs to somebody else, and that begins at an address other than 0.

A `Window` is a `Port` over a region whose first byte has an address of its own, such as the part of a guest's memory
that a device was given. The two sides of a ring use it as they use a region; addresses below the start and from the end
on lie outside.

    memory = state.adopt("arena", bytearray(...))
    port = Window(memory, 0x100000)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import struct
    from collections.abc import Callable

    from virtviz.engine.memory import Bytes, Region, Words


class Window:
    """A region seen from an address on; it is a `Port`.

    Attributes:
        start: address of the region's first byte, even.
        size: the address behind its last byte.
        u16: the 16-bit words; index i is the word at address 2 i.
    """

    def __init__(self, region: Region, start: int) -> None:
        self.start = start
        self.size = start + region.size
        self.u16: Words = _ShiftedWords(region.u16, start // 2)
        self._region = region

    def holds(self, address: int, length: int) -> bool:
        """Say whether a stretch of bytes lies wholly inside."""
        return self._region.holds(address - self.start, length)

    def read(self, address: int, length: int) -> bytearray:
        """Copy bytes out."""
        return self._region.read(address - self.start, length)

    def write(self, address: int, data: Bytes) -> None:
        """Write bytes anywhere inside."""
        self._region.write(address - self.start, data)

    def reader(self, codec: struct.Struct) -> Callable[[int], tuple[int, ...]]:
        """Give a function that reads a record of that form from an address."""
        read, start = self._region.reader(codec), self.start
        return lambda address: read(address - start)

    def writer(self, codec: struct.Struct) -> Callable[..., None]:
        """Give a function that writes a record of that form to an address: address, then the values."""
        write, start = self._region.writer(codec), self.start

        def write_record(address: int, *values: int | bytes) -> None:
            write(address - start, *values)

        return write_record


class _ShiftedWords:
    """The words of a region that does not begin at address 0."""

    def __init__(self, words: Words, shift: int) -> None:
        self._words = words
        self._shift = shift

    def __getitem__(self, index: int) -> int:
        return self._words[index - self._shift]

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index - self._shift] = value
