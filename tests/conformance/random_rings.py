"""Rings of any bytes, and a watch over what is done with them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from virtviz.spec.virtio import Feature

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from virtviz.engine.memory import Bytes, Port

MEMORY = 0x4000
QUEUES = 3
"""receiveq1, transmitq1, controlq."""
AREA = 0x800
"""Room for one queue; what lies behind them is buffers and tables."""

SWITCHED = (
    Feature.RING_F_EVENT_IDX,
    Feature.RING_F_INDIRECT_DESC,
    Feature.NET_F_MRG_RXBUF,
    Feature.F_VERSION_1,
    Feature.F_IN_ORDER,
    Feature.NET_F_CTRL_VLAN,
)


@dataclass(frozen=True)
class Plan:
    """What was negotiated, and where the queues lie."""

    features: int
    size: int

    @property
    def packed(self) -> bool:
        return bool(self.features >> Feature.F_RING_PACKED & 1)

    def queues(self) -> list[dict[str, Any]]:
        return [
            {"index": i, "size": self.size, "desc": AREA * i, "driver": AREA * i + 0x400, "device": AREA * i + 0x600}
            for i in range(QUEUES)
        ]


def random_plan(random: Random) -> Plan:
    packed = random.random() < 0.5
    features = sum(1 << feature for feature in SWITCHED if random.random() < 0.5) | packed << Feature.F_RING_PACKED
    size = random.randint(1, 40) if packed else random.choice((1, 2, 4, 8, 16, 32))
    return Plan(features, size)


def random_memory(random: Random, plan: Plan) -> bytes:
    """Make all of memory: any bytes, or, more often, bytes that look like rings and are wrong here and there."""
    if random.random() < 0.2:
        return random.randbytes(MEMORY)
    memory = bytearray(random.randbytes(MEMORY) if random.random() < 0.3 else MEMORY)
    for queue in plan.queues():
        for i in range(plan.size):
            put_desc(random, plan, memory, queue["desc"] + 16 * i)
        put_areas(random, plan, memory, queue)
    for at in range(AREA * QUEUES, MEMORY, 16):
        if random.random() < 0.5:
            put_desc(random, plan, memory, at)
    return bytes(memory)


def put_desc(random: Random, plan: Plan, memory: bytearray, at: int) -> None:
    address = random.choice((random.randrange(AREA * QUEUES, MEMORY), random.randrange(MEMORY + 0x1100)))
    if random.random() < 0.02:
        address = random.randrange(1 << 64)
    length = random.choice((random.randint(1, 0x80), 16 * random.randint(1, 12), random.randint(0, 0x2000)))
    flags = random.choice((0, 0, 1, 1, 2, 2, 3, 4, random.randrange(8)))
    if plan.packed:
        flags |= random.choice((0x80, 0x80, 0x80, 0x8000, 0x8080, 0))
        struct.pack_into("<QIHH", memory, at, address, length, random.randrange(1 << random.choice((3, 16))), flags)
    else:
        following = random.randrange(plan.size + (random.random() < 0.05))
        struct.pack_into("<QIHH", memory, at, address, length, flags, following)


def put_areas(random: Random, plan: Plan, memory: bytearray, queue: dict[str, Any]) -> None:
    driver, size = queue["driver"], plan.size
    if plan.packed:
        struct.pack_into("<HH", memory, driver, random.randrange(1 << 16), random.randrange(4))
        return
    most = size if random.random() < 0.95 else 1 << random.choice((6, 8, 16))
    index = random.randint(0, most - 1) if most > size else random.randint(0, most)
    struct.pack_into("<HH", memory, driver, random.randrange(2), index)
    for i in range(size + 1):
        head = random.randrange(size + (random.random() < 0.05))
        struct.pack_into("<H", memory, driver + 4 + 2 * i, head)


class TrespassError(AssertionError):
    """The device wrote where it must not, or looked at memory more often than it could have reason to."""


class Watch:
    """A port that counts accesses, and lets a device write nothing but its own fields and what it was offered.

    What was offered is read off memory itself: every descriptor with WRITE in any queue's table, and in every table
    that an indirect descriptor refers to. A buffer may lie over the descriptors; so this is looked up again whenever
    what was written may be one.
    """

    def __init__(self, port: Port, plan: Plan) -> None:
        self.port = port
        self.plan = plan
        self.size = port.size
        self.accesses = 0
        self.most = 0
        self.u16 = _WatchedWords(self)
        self.holds = port.holds
        self._offered = bytearray(MEMORY)
        self._tables = bytearray(MEMORY)
        self._own = bytearray(MEMORY)
        for queue in plan.queues():
            size = plan.size
            if plan.packed:
                for i in range(size):
                    self._allow(self._own, queue["desc"] + 16 * i + 8, 8)
                self._allow(self._own, queue["device"], 4)
            else:
                self._allow(self._own, queue["device"], 6 + 8 * size)

    @staticmethod
    def _allow(where: bytearray, address: int, length: int) -> None:
        end = min(address + length, MEMORY)
        if address < end:
            where[address:end] = b"\1" * (end - address)

    def begin(self) -> None:
        self.accesses = 0
        self._offered[:] = bytes(MEMORY)
        self._tables[:] = bytes(MEMORY)
        self._look_up()

    def _look_up(self) -> None:
        for queue in self.plan.queues():
            self._read_table(queue["desc"], 16 * self.plan.size, deep=True)

    def _read_table(self, address: int, length: int, *, deep: bool) -> None:
        end = min(address + length, MEMORY) - 15
        self._allow(self._tables, address, length)
        for at in range(address, end, 16):
            # In a packed ring, id and flags stand where next and flags do otherwise.
            where, size, first, second = struct.unpack("<QIHH", self.port.read(at, 16))
            flags = second if self.plan.packed else first
            if flags & 2:
                self._allow(self._offered, where, size)
            if flags & 4 and deep and where < MEMORY:
                self._read_table(where, min(size, 65536 * 16), deep=False)

    def count(self) -> None:
        self.accesses += 1
        if self.accesses > self.most:
            raise TrespassError(f"more than {self.most} accesses")

    def check(self, address: int, length: int) -> None:
        self.count()
        for at in range(address, address + length):
            if not (self._own[at] or self._offered[at]):
                raise TrespassError(f"{length} bytes written at {address:#x}")

    def wrote(self, address: int, length: int) -> None:
        if any(self._tables[address : address + length]):
            self._look_up()

    def read(self, address: int, length: int) -> bytearray:
        self.count()
        return self.port.read(address, length)

    def write(self, address: int, data: Bytes) -> None:
        self.check(address, len(data))
        self.port.write(address, data)
        self.wrote(address, len(data))

    def reader(self, codec: struct.Struct) -> Callable[[int], tuple[int, ...]]:
        read = self.port.reader(codec)

        def watched(address: int) -> tuple[int, ...]:
            self.count()
            return read(address)

        return watched

    def writer(self, codec: struct.Struct) -> Callable[..., None]:
        write = self.port.writer(codec)

        def watched(address: int, *values: int | bytes) -> None:
            self.check(address, codec.size)
            write(address, *values)
            self.wrote(address, codec.size)

        return watched


class _WatchedWords:
    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._words = watch.port.u16

    def __getitem__(self, index: int) -> int:
        self._watch.count()
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._watch.check(2 * index, 2)
        self._words[index] = value
        self._watch.wrote(2 * index, 2)
