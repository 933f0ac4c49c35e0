"""The exact match cache of a PMD thread: whole flow keys, found by one hash, in front of the flow table.

A packet that was looked up in the flow table is put into it with a probability of 1 in 100, so that a multitude of
short flows does not throw the long ones out. The dice are those of Open vSwitch, a 32-bit xorshift; here they begin
with a fixed seed, so that a run can be repeated.

Source: OVS lib/dpif-netdev-dfc.h, lib/dpif-netdev.c (emc_insert, emc_probabilistic_insert), lib/random.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final
from zlib import crc32

from virtviz.engine.cells import Cells, cells

if TYPE_CHECKING:
    from virtviz.engine.state import State

ENTRIES: Final = 8192
"""EM_FLOW_HASH_ENTRIES."""
INSERT_BELOW: Final = 0xFFFFFFFF // 100
"""DEFAULT_EM_FLOW_INSERT_MIN: a number up to this one inserts."""
SEED: Final = 4002
_BITS: Final = 13
_WORD: Final = 0xFFFFFFFF
_ENTRY: Final = struct.Struct("<QQ")
_ETHERTYPE_AT, _IPV4 = 12, b"\x08\x00"
_IP_AT, _PROTOCOL_AT, _ADDRESSES_AT, _ADDRESSES_END = 14, 23, 26, 34
_PORTS_BYTES = 4


@cells
class EmcCells(Cells):
    """What the cache keeps beside its entries: the state of the dice, and how many entries are in use."""

    dice: int = SEED
    used: int = 0


class ExactMatchCache:
    """An exact match cache.

    An entry is 16 bytes: 64 bits that stand for the whole key, and what the flow is, in the caller's terms; 0 for an
    empty one. A key can be in one of two entries, as two parts of its hash say.
    """

    def __init__(self, state: State, name: str) -> None:
        self.memory = state.region(f"{name}.entries", ENTRIES * _ENTRY.size)
        self.cells = state.add(EmcCells, name)

    @staticmethod
    def key(frame: bytes | bytearray, port: int) -> int:
        """Give the 64 bits that stand for a flow key: port, Ethernet header, and of IPv4 addresses, protocol, ports."""
        what = bytes(frame[:_IP_AT]) + port.to_bytes(2, "little")
        if frame[_ETHERTYPE_AT:_IP_AT] == _IPV4:
            ports = _IP_AT + 4 * (frame[_IP_AT] & 15)
            what += bytes(frame[_ADDRESSES_AT:_ADDRESSES_END]) + bytes(frame[_PROTOCOL_AT : _PROTOCOL_AT + 1])
            what += bytes(frame[ports : ports + _PORTS_BYTES])
        # Forwards it is the hash; backwards it tells apart keys of the same hash.
        return crc32(what[::-1]) << 32 | crc32(what)

    def find(self, key: int) -> int:
        """Give what a key's flow is, 0 if the key is not here."""
        data = self.memory.bytes
        for at in _places(key):
            found, flow = _ENTRY.unpack_from(data, at)
            if found == key and flow:
                return int(flow)
        return 0

    def throw(self) -> bool:
        """Throw the dice: whether a key is to be inserted."""
        dice = self.cells.dice
        dice ^= dice << 13 & _WORD
        dice ^= dice >> 17
        dice ^= dice << 5 & _WORD
        self.cells.dice = dice
        return dice <= INSERT_BELOW

    def insert(self, key: int, flow: int) -> None:
        """Put a key in: over itself, else into an empty one of its two entries, else over that of the lower hash."""
        data, chosen, old = self.memory.bytes, -1, (0, 0)
        for at in _places(key):
            entry = _ENTRY.unpack_from(data, at)
            if entry[1] and entry[0] == key:
                chosen, old = at, entry
                break
            if chosen < 0 or (old[1] and not entry[1]) or entry[0] & _WORD < old[0] & _WORD:
                chosen, old = at, entry
        if not old[1]:
            self.cells.used += 1
        self.memory.write(chosen, _ENTRY.pack(key, flow))


def _places(key: int) -> tuple[int, int]:
    """Give the addresses of the two entries that a key can be in; its low 32 bits are its hash."""
    mask = ENTRIES - 1
    return (key & mask) * _ENTRY.size, ((key & _WORD) >> _BITS & mask) * _ENTRY.size
