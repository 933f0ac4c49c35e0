"""Virtqueues read off the specification once more: slowly, obviously, and apart from the rings under test.

Nothing is shared with `virtviz.ring`. Positions are counted without end and reduced only where memory is touched,
decisions are made by looking at every entry in question, and both layouts are used through the same few calls:

    driver.offer(pieces, writable, token), driver.kick(), driver.reclaim(), driver.ask(wish)
    device.fetch(), device.give_back(buffers), device.interrupt(), device.ask(wanted)

A piece is (address, length), a buffer is (name, readable pieces, writable pieces). Section numbers are those of virtio
1.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15

Piece = tuple[int, int]


def get(memory: bytearray, address: int, size: int) -> int:
    return int.from_bytes(memory[address : address + size], "little")


def put(memory: bytearray, address: int, size: int, value: int) -> None:
    memory[address : address + size] = value.to_bytes(size, "little")


@dataclass
class Buffer:
    """A buffer as a device sees it."""

    name: int
    readable: list[Piece] = field(default_factory=list)
    writable: list[Piece] = field(default_factory=list)
    slots: int = 1


def indirect_table(memory: bytearray, address: int, length: int, *, chained: bool) -> list[tuple[int, int, int]]:
    """Read an indirect table: by its next fields if split (2.7.5.3), in sequence if packed (2.8.7)."""
    entries = [
        (get(memory, at, 8), get(memory, at + 8, 4), get(memory, at + 12, 2), get(memory, at + 14, 2))
        for at in range(address, address + length, 16)
    ]
    if not chained:
        return [(where, size, flags) for where, size, _, flags in entries]
    found, at = [], 0
    while True:
        where, size, flags, following = entries[at]
        found.append((where, size, flags))
        if not flags & NEXT:
            return found
        at = following


def sort_into(buffer: Buffer, pieces: list[tuple[int, int, int]]) -> Buffer:
    for address, length, flags in pieces:
        (buffer.writable if flags & WRITE else buffer.readable).append((address, length))
    return buffer


# The split layout (2.7)


@dataclass
class SplitDeviceOracle:
    """What a device does with a split virtqueue."""

    memory: bytearray
    size: int
    desc: int
    avail: int
    used: int
    event_idx: bool
    taken: int = 0
    returned: int = 0
    told: int = 0

    def fetch(self) -> Buffer | None:
        # 2.7.6: idx says where the driver would put the next entry.
        if get(self.memory, self.avail + 2, 2) == self.taken % 65536:
            return None
        head = get(self.memory, self.avail + 4 + 2 * (self.taken % self.size), 2)
        self.taken += 1
        pieces: list[tuple[int, int, int]] = []
        at = head
        while True:
            where = self.desc + 16 * at
            address, length = get(self.memory, where, 8), get(self.memory, where + 8, 4)
            flags, following = get(self.memory, where + 12, 2), get(self.memory, where + 14, 2)
            if flags & INDIRECT:
                pieces += indirect_table(self.memory, address, length, chained=True)
            else:
                pieces.append((address, length, flags))
            if not flags & NEXT:
                return sort_into(Buffer(head), pieces)
            at = following

    def give_back(self, buffers: list[tuple[Buffer, int]]) -> None:
        for buffer, written in buffers:
            at = self.used + 4 + 8 * (self.returned % self.size)
            put(self.memory, at, 4, buffer.name)
            put(self.memory, at + 4, 4, written)
            self.returned += 1
        put(self.memory, self.used + 2, 2, self.returned % 65536)

    def interrupt(self) -> bool:
        """2.7.7.2: notify if the entry that used_event names has been written since this was last asked."""
        if not self.event_idx:
            return get(self.memory, self.avail, 2) & 1 == 0
        event = get(self.memory, self.avail + 4 + 2 * self.size, 2)
        entries, self.told = range(self.told, self.returned), self.returned
        return any(entry % 65536 == event for entry in entries)

    def ask(self, *, wanted: bool) -> None:
        """2.7.10.1: by flags without EVENT_IDX, by avail_event with it."""
        if not self.event_idx:
            put(self.memory, self.used, 2, 0 if wanted else 1)
        elif wanted:
            put(self.memory, self.used + 4 + 8 * self.size, 2, self.taken % 65536)


@dataclass
class SplitDriverOracle:
    """What a driver does with a split virtqueue. It takes the highest descriptors first, and links chains downwards.

    Its indirect tables go backwards too, unless they are `tidy`: then entry follows entry.
    """

    memory: bytearray
    size: int
    desc: int
    avail: int
    used: int
    event_idx: bool
    table: int
    offered: int = 0
    kicked: int = 0
    seen: int = 0
    tidy: bool = False
    free: list[int] = field(default_factory=list)
    out: dict[int, tuple[int, list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = list(range(self.size))

    def offer(self, pieces: list[Piece], writable: int, token: int, *, indirect: bool) -> bool:
        needed = 1 if indirect else len(pieces)
        if len(self.free) < needed:
            return False
        mine = [self.free.pop() for _ in range(needed)]
        flags = [WRITE if i >= len(pieces) - writable else 0 for i in range(len(pieces))]
        if indirect:
            # Only the next fields tell the order (2.7.5.3); the first entry is entry 0.
            places = list(range(len(pieces))) if self.tidy else [0, *range(len(pieces) - 1, 0, -1)]
            base = self.table + 16 * self.size * mine[0]
            self._chain(base, places, pieces, flags)
            self._desc(self.desc + 16 * mine[0], (base, 16 * len(pieces)), INDIRECT, 0)
        else:
            self._chain(self.desc, mine, pieces, flags)
        put(self.memory, self.avail + 4 + 2 * (self.offered % self.size), 2, mine[0])
        self.offered += 1
        put(self.memory, self.avail + 2, 2, self.offered % 65536)
        self.out[mine[0]] = token, mine
        return True

    def _chain(self, base: int, places: list[int], pieces: list[Piece], flags: list[int]) -> None:
        for i, place in enumerate(places):
            last = i == len(places) - 1
            self._desc(base + 16 * place, pieces[i], flags[i] | (0 if last else NEXT), 0 if last else places[i + 1])

    def _desc(self, at: int, piece: Piece, flags: int, following: int) -> None:
        for offset, size, value in ((0, 8, piece[0]), (8, 4, piece[1]), (12, 2, flags), (14, 2, following)):
            put(self.memory, at + offset, size, value)

    def kick(self) -> bool:
        """2.7.10: kick if the entry that avail_event names has been offered since this was last asked."""
        entries, self.kicked = range(self.kicked, self.offered), self.offered
        if not self.event_idx:
            return get(self.memory, self.used, 2) & 1 == 0
        event = get(self.memory, self.used + 4 + 8 * self.size, 2)
        return any(entry % 65536 == event for entry in entries)

    def reclaim(self) -> list[tuple[int, int]]:
        back = []
        while get(self.memory, self.used + 2, 2) != self.seen % 65536:
            at = self.used + 4 + 8 * (self.seen % self.size)
            token, mine = self.out.pop(get(self.memory, at, 4))
            self.free += mine
            self.seen += 1
            back.append((token, get(self.memory, at + 4, 4)))
        return back

    def ask(self, wish: str) -> None:
        """2.7.7.1: by flags without EVENT_IDX, by used_event with it."""
        if not self.event_idx:
            put(self.memory, self.avail, 2, int(wish == "never"))
        elif wish != "never":
            put(self.memory, self.avail + 4 + 2 * self.size, 2, self.seen % 65536)


# The packed layout (2.8): position n is slot n % size, in lap n // size; the wrap counter is 1 in even laps.


def wrap_of(position: int, size: int) -> int:
    return 1 - position // size % 2


def passed(memory: bytearray, event: int, size: int, positions: range) -> bool:
    """2.8.10: say whether an event suppression structure asks to be told of one of these positions."""
    where, flags = get(memory, event, 2), get(memory, event + 2, 2)
    if flags < 2:
        return flags == 0
    return any((p % size, wrap_of(p, size)) == (where % 32768, where >> 15) for p in positions)


@dataclass
class PackedDeviceOracle:
    """What a device does with a packed virtqueue."""

    memory: bytearray
    size: int
    ring: int
    driver_event: int
    device_event: int
    event_idx: bool
    taken: int = 0
    returned: int = 0
    told: int = 0

    def fetch(self) -> Buffer | None:
        # 2.8.1: available if AVAIL is the wrap counter and USED is not.
        flags = self._read(self.taken)[3]
        wrap = wrap_of(self.taken, self.size)
        if (bool(flags & AVAIL), bool(flags & USED)) != (bool(wrap), not wrap):
            return None
        pieces: list[tuple[int, int, int]] = []
        slots = 0
        while True:
            address, length, name, flags = self._read(self.taken)
            self.taken += 1
            slots += 1
            if flags & INDIRECT:
                pieces += indirect_table(self.memory, address, length, chained=False)
            else:
                pieces.append((address, length, flags))
            if not flags & NEXT:
                # 2.8.6: the buffer's id is the one in its last descriptor.
                return sort_into(Buffer(name, slots=slots), pieces)

    def _read(self, position: int) -> tuple[int, int, int, int]:
        at = self.ring + 16 * (position % self.size)
        return (
            get(self.memory, at, 8),
            get(self.memory, at + 8, 4),
            get(self.memory, at + 12, 2),
            get(self.memory, at + 14, 2),
        )

    def give_back(self, buffers: list[tuple[Buffer, int]]) -> None:
        for buffer, written in buffers:
            at = self.ring + 16 * (self.returned % self.size)
            put(self.memory, at + 8, 4, written)
            put(self.memory, at + 12, 2, buffer.name)
            turn = AVAIL | USED if wrap_of(self.returned, self.size) else 0
            put(self.memory, at + 14, 2, turn | (WRITE if written else 0))
            self.returned += buffer.slots

    def interrupt(self) -> bool:
        positions, self.told = range(self.told, self.returned), self.returned
        return passed(self.memory, self.driver_event, self.size, positions)

    def ask(self, *, wanted: bool) -> None:
        if wanted and self.event_idx:
            put(self.memory, self.device_event, 2, self.taken % self.size | wrap_of(self.taken, self.size) << 15)
        put(self.memory, self.device_event + 2, 2, (2 if self.event_idx else 0) if wanted else 1)


@dataclass
class PackedDriverOracle:
    """What a driver does with a packed virtqueue. It names buffers by a running number, in the last descriptor only."""

    memory: bytearray
    size: int
    ring: int
    driver_event: int
    device_event: int
    event_idx: bool
    table: int
    offered: int = 0
    kicked: int = 0
    seen: int = 0
    names: int = 0
    free: int = 0
    out: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = self.size

    def offer(self, pieces: list[Piece], writable: int, token: int, *, indirect: bool) -> bool:
        needed = 1 if indirect else len(pieces)
        if self.free < needed:
            return False
        flags = [WRITE if i >= len(pieces) - writable else 0 for i in range(len(pieces))]
        # Ids are any 16 bits; these never repeat while fewer than 60000 are outstanding.
        name, self.names = 100 + self.names, (self.names + 1) % 60000
        if indirect:
            base = self.table + 16 * self.size * (self.offered % self.size)
            for i, piece in enumerate(pieces):
                self._desc(base + 16 * i, piece, 0, flags[i])
            pieces, flags = [(base, 16 * len(pieces))], [INDIRECT]
        writes = []
        for i, piece in enumerate(pieces):
            position, last = self.offered + i, i == len(pieces) - 1
            turn = AVAIL if wrap_of(position, self.size) else USED
            at = self.ring + 16 * (position % self.size)
            writes.append((at, piece, name if last else 0xDEAD, flags[i] | turn | (0 if last else NEXT)))
        # 2.8.21.1: the first descriptor becomes available last.
        for write in reversed(writes):
            self._desc(*write)
        self.offered += needed
        self.free -= needed
        self.out[name] = token, needed
        return True

    def _desc(self, at: int, piece: Piece, name: int, flags: int) -> None:
        for offset, size, value in ((0, 8, piece[0]), (8, 4, piece[1]), (12, 2, name), (14, 2, flags)):
            put(self.memory, at + offset, size, value)

    def kick(self) -> bool:
        positions, self.kicked = range(self.kicked, self.offered), self.offered
        return passed(self.memory, self.device_event, self.size, positions)

    def reclaim(self) -> list[tuple[int, int]]:
        back = []
        while self.out:
            at = self.ring + 16 * (self.seen % self.size)
            flags, wrap = get(self.memory, at + 14, 2), wrap_of(self.seen, self.size)
            # 2.8.1: used if both bits are the wrap counter.
            if (bool(flags & AVAIL), bool(flags & USED)) != (bool(wrap), bool(wrap)):
                break
            token, slots = self.out.pop(get(self.memory, at + 12, 2))
            self.seen += slots
            self.free += slots
            back.append((token, get(self.memory, at + 8, 4)))
        return back

    def ask(self, wish: str) -> None:
        if self.event_idx and wish != "never":
            put(self.memory, self.driver_event, 2, self.seen % self.size | wrap_of(self.seen, self.size) << 15)
        put(self.memory, self.driver_event + 2, 2, 1 if wish == "never" else 2 if self.event_idx else 0)
