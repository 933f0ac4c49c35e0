"""Store buffers: a CPU's stores wait in a queue of their own before the other CPUs can see them.

This is the memory model of x86 (x86-TSO): stores become visible in the order in which they were made, but later, and
meanwhile the CPU's own loads already find them. So a store and a load that follows it can seem exchanged to everybody
else, and nothing but a full barrier between them helps.

A `StoreBuffer` is a `Port` in front of guest memory. What goes through it is what two parties share by agreement of a
ring: the ring itself, and what a device writes into buffers. Other memory, which nobody looks at before the ring says
so, is written at once. Draining the oldest store is a move of its own, of a thread that stands for the buffer. A thread
that comes to a fence, or is interrupted, first waits until its buffer is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, goto, op
from virtviz.spec.citation import Source

if TYPE_CHECKING:
    import struct
    from collections.abc import Callable, Mapping

    from virtviz.engine.memory import Bytes, Region, Words
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Registers

MEMORY_ORDERING = Source("intel sdm", "vol. 3A, memory ordering; store buffer")
ENTRIES: Final = 64
"""Stores that wait at most; one more pushes the oldest out. A real buffer holds some dozens, a cache line at most."""
WORD: Final = 2


@cells
class StoreCells(Cells):
    """The stores that wait, oldest first.

    Attributes:
        count: how many.
        used: bytes they take.
        packet: for each, the packet that the CPU was working on; for people only.
        address, length: for each, where it goes and how long it is.
        drained, drained_length: where the last one went, and how long it was.
    """

    count: int = 0
    used: int = 0
    drained: int = 0
    drained_length: int = 0
    packet: list[int]
    address: list[int]
    length: list[int]


class StoreBuffer:
    """One CPU's store buffer in front of a region. It is a `Port`.

    Args:
        state: where its cells are made, and the memory that holds the stores' bytes.
        name: such as `vm1.vcpu0.store_buffer`.
        region: the memory behind it.
        owner: the registers of the thread whose CPU this is.

    Attributes:
        size, bytes: of the memory behind it, as everybody else sees it.
        u16: 16-bit words, as this CPU sees them.
    """

    def __init__(self, state: State, name: str, region: Region, owner: Registers) -> None:
        self.name = name
        self.region = region
        self.owner = owner
        self.size = region.size
        self.bytes = region.bytes
        self.waiting = state.region(name, 1)
        self.waiting.name_stretch(0, self.waiting.size, name, self._waiting_field)
        self.cells = state.add(StoreCells, name, packet=[0] * ENTRIES, address=[0] * ENTRIES, length=[0] * ENTRIES)
        self.u16: Words = BufferedWords(self)

    def holds(self, address: int, length: int) -> bool:
        """Say whether a stretch of bytes lies wholly inside the memory behind it."""
        return self.region.holds(address, length)

    # Stores

    def write(self, address: int, data: Bytes) -> None:
        """Put a store behind the others; one too large for the whole buffer empties it and goes straight to memory."""
        mine, length = self.cells, len(data)
        while mine.count and (mine.count == ENTRIES or mine.used + length > self.waiting.size):
            self.drain()
        if length > self.waiting.size:
            self.region.write(address, data)
            return
        self.waiting.write(mine.used, data)
        at = mine.count
        mine.packet[at], mine.address[at], mine.length[at] = self.owner.packet, address, length
        mine.used += length
        mine.count = at + 1

    def writer(self, codec: struct.Struct) -> Callable[..., None]:
        """Give a function that stores a record of that form: address, then the values."""

        def write_record(address: int, *values: int | bytes) -> None:
            self.write(address, codec.pack(*values))

        return write_record

    # Loads: a CPU finds its own stores before anybody else does

    def read(self, address: int, length: int) -> bytearray:
        """Copy bytes out, with the CPU's own waiting stores; nothing is journaled."""
        data = self.region.read(address, length)
        self.lay_over(data, address)
        return data

    def reader(self, codec: struct.Struct) -> Callable[[int], tuple[int, ...]]:
        """Give a function that reads a record of that form; it is journaled as read, without its values."""
        read_record = self.region.reader(codec)

        def read(address: int) -> tuple[int, ...]:
            values = read_record(address)
            data = self.region.read(address, codec.size)
            return codec.unpack(data) if self.lay_over(data, address) else values

        return read

    def lay_over(self, data: bytearray, address: int) -> bool:
        """Put the waiting stores over bytes read from memory, the oldest first; answers whether there was any."""
        mine, at, found = self.cells, 0, False
        end = address + len(data)
        for i in range(mine.count):
            start, length = mine.address[i], mine.length[i]
            first, last = max(start, address), min(start + length, end)
            if first < last:
                found = True
                data[first - address : last - address] = self.waiting.bytes[at + first - start : at + last - start]
            at += length
        return found

    # Draining

    def is_empty(self) -> bool:
        """Say whether no store waits."""
        return not self.cells.count

    def is_filled(self) -> bool:
        """Say whether a store waits."""
        return bool(self.cells.count)

    def drain(self) -> None:
        """Let the oldest store reach memory; the others move up."""
        mine = self.cells
        address, length, used = mine.address[0], mine.length[0], mine.used
        data = self.waiting.read(0, used)
        if length == WORD and address % WORD == 0:
            self.region.u16[address // WORD] = int.from_bytes(data[:WORD], "little")
        else:
            self.region.write(address, data[:length])
        mine.drained, mine.drained_length = address, length
        last = mine.count - 1
        for column in (mine.packet, mine.address, mine.length):
            for i in range(last):
                column[i] = column[i + 1]
            column[last] = 0
        # Nothing stays behind: the same stores waiting are the same state, however they came to wait.
        self.waiting.write(0, data[length:] + bytes(length))
        mine.used = used - length
        mine.count = last

    def _waiting_field(self, offset: int, size: int) -> str:
        """Name the store that begins at an offset by where it goes."""
        mine, at = self.cells, 0
        for i in range(mine.count):
            if at == offset and mine.length[i] == size:
                return f"{self.region.field_at(mine.address[i], size)[1]} (waiting)"
            at += mine.length[i]
        return ""


class BufferedWords:
    """The words of a region as one CPU sees them."""

    __slots__ = ("_buffer", "_words")

    def __init__(self, buffer: StoreBuffer) -> None:
        self._buffer = buffer
        self._words = buffer.region.u16

    def __getitem__(self, index: int) -> int:
        buffer = self._buffer
        if buffer.is_filled():
            data = buffer.region.read(WORD * index, WORD)
            if buffer.lay_over(data, WORD * index):
                return int.from_bytes(data, "little")
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._buffer.write(WORD * index, value.to_bytes(WORD, "little"))


class DrainStores(Routine):
    """What a store buffer does by itself: it drains, one store at a time, whenever it likes."""

    def __init__(self, name: str, place: Place, stores: StoreBuffer, cpu: str) -> None:
        super().__init__(name, place)
        self.stores = stores
        self.cpu = cpu
        self.is_filled = stores.is_filled

    def words(self, me: Registers) -> Mapping[str, object]:  # noqa: ARG002 - the stores say it all
        """Name the CPU and what was drained."""
        mine = self.stores.cells
        owner, field = self.stores.region.field_at(mine.drained, mine.drained_length)
        return {"cpu": self.cpu, "field": f"{owner} {field}".strip() or f"{mine.drained:#x}", "left": mine.count}

    @op(
        "MEM.1",
        "let a waiting store become visible",
        "(hardware)",
        MEMORY_ORDERING,
        text="The oldest store in {cpu}'s store buffer, to {field}, reaches memory: only now can others see it. "
        "Still waiting there: {left}.",
        to=goto("drain"),
        guard="is_filled",
        cost="drain",
    )
    def drain(self, me: Registers) -> None:
        """Let the oldest store reach memory."""
        packet = self.stores.cells.packet[0]
        if me.packet != packet:
            me.packet = packet
        self.stores.drain()
