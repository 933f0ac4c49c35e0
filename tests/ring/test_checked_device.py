"""The split device side as QEMU and as a strict device read it; vhost's is `test_ring_device`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from virtviz.engine.state import State
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.rings import DeviceRing, DriverRing, readable_bytes, restart, take, writable_bytes
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver
from virtviz.ring.verdicts import NAMES, BackEnd, DriverMalformed, judge

if TYPE_CHECKING:
    from virtviz.engine.memory import Region

NEXT, WRITE, INDIRECT = 1, 2, 4
TABLE, BUFFERS = 0x1000, 0x1400


@dataclass
class Ring:
    memory: Region
    layout: SplitLayout
    device: CheckedSplitDevice

    def put(self, index: int, address: int, length: int, flags: int, following: int = 0) -> None:
        struct.pack_into("<QIHH", self.memory.bytes, self.layout.desc + 16 * index, address, length, flags, following)

    def entry(self, index: int, address: int, length: int, flags: int, following: int = 0) -> None:
        struct.pack_into("<QIHH", self.memory.bytes, TABLE + 16 * index, address, length, flags, following)

    def word(self, address: int) -> int:
        return self.memory.plain_u16[address // 2]

    def put_word(self, address: int, value: int) -> None:
        self.memory.plain_u16[address // 2] = value

    def offer(self, *heads: int) -> None:
        index = self.word(self.layout.avail_idx)
        for i, head in enumerate(heads):
            self.put_word(self.layout.avail_ring((index + i) % self.layout.size), head)
        self.put_word(self.layout.avail_idx, (index + len(heads)) % 65536)

    def overlooked(self) -> str:
        number = self.device.cells.overlooked
        return NAMES[number - 1] if number else ""


def make_ring(
    size: int = 4, *, back_end: BackEnd = "qemu", event_idx: bool = True, indirect: bool = True, start: int = 0
) -> Ring:
    state = State(recording=False)
    memory = state.region("ram", 0x4000)
    layout = SplitLayout.at(0x100, size)
    device = CheckedSplitDevice(
        state, "dev", memory, layout, back_end=back_end, event_idx=event_idx, indirect=indirect, start=start
    )
    ring = Ring(memory, layout, device)
    for address in (layout.avail_idx, layout.used_idx):
        ring.put_word(address, start)
    return ring


def take_alike(rings: dict[BackEnd, Ring]) -> dict[BackEnd, str]:
    return {back_end: take(ring.device) for back_end, ring in rings.items()}


@pytest.mark.parametrize("start", [0, 65535])
def test_an_index_that_jumped_goes_round_the_ring_for_qemu(start: int):
    ring = make_ring(start=start)
    ring.put(0, BUFFERS, 8, 0)
    ring.put_word(ring.layout.avail_idx, (start + 5) % 65536)
    for _ in range(5):
        assert take(ring.device) == "buffer"
        ring.device.write_used([ring.device.cells.head], [0])
    assert take(ring.device) == "empty"
    assert ring.overlooked() == "avail.idx jumped"


def test_a_strict_device_notices_and_so_does_qemu_where_it_counts():
    strict, qemu = make_ring(back_end="strict", start=9), make_ring(start=9)
    for ring in (strict, qemu):
        ring.put_word(ring.layout.avail_idx, 8)
    assert take(strict.device) == "avail.idx jumped"
    assert qemu.device.room(1) == "avail.idx jumped"
    assert (qemu.device.cells.expected, qemu.device.cells.seen) == (9, 8)


def test_more_in_flight_than_descriptors_is_too_many():
    ring = make_ring(1)
    ring.put(0, BUFFERS, 8, 0)
    ring.put_word(ring.layout.avail_idx, 2)
    assert take(ring.device) == "buffer"
    assert take(ring.device) == "too many in flight"
    ring.device.write_used([0], [0])
    assert take(ring.device) == "buffer"
    ring.device.put_back([0])
    assert ring.device.cells.in_flight == 0


def test_a_head_and_a_next_must_be_descriptors():
    ring = make_ring()
    ring.offer(4)
    assert take(ring.device) == "head out of range"
    assert ring.device.room(1) == "head out of range"
    assert ring.device.cells.seen == 4
    ring = make_ring()
    ring.put(0, BUFFERS, 8, NEXT | WRITE, 7)
    ring.offer(0)
    assert take(ring.device) == "next out of range"
    assert ring.device.room(9) == "next out of range"
    assert ring.device.cells.seen == 7


def test_a_chain_that_comes_back_is_a_loop_after_as_many_as_there_are():
    ring = make_ring()
    ring.put(0, BUFFERS, 8, NEXT, 1)
    ring.put(1, BUFFERS, 8, NEXT, 0)
    ring.offer(0)
    assert take(ring.device) == "descriptor loop"
    assert len(ring.device.pieces()) == 5, "after as many as the queue has, and one"
    assert ring.device.room(1) == "descriptor loop"


def test_qemu_maps_a_piece_before_it_counts_it():
    ring = make_ring(2)
    ring.put(0, BUFFERS, 8, NEXT, 1)
    ring.put(1, BUFFERS, 8, NEXT | WRITE, 0)
    ring.offer(0)
    assert take(ring.device) == "readable after writable"


def test_a_table_is_read_by_its_next_fields():
    ring = make_ring()
    ring.put(0, TABLE, 48, INDIRECT)
    ring.entry(0, BUFFERS, 1, NEXT, 2)
    ring.entry(2, BUFFERS, 2, NEXT | WRITE, 1)
    ring.entry(1, BUFFERS, 3, WRITE)
    ring.offer(0)
    assert ring.device.room(5) == "enough"
    assert ring.device.room(6) == "short"
    assert take(ring.device) == "buffer"
    assert [length for _, length in ring.device.pieces()] == [1, 2, 3]
    assert (readable_bytes(ring.device), writable_bytes(ring.device)) == (1, 5)


def test_a_table_may_loop_or_lead_out_of_itself():
    ring = make_ring()
    ring.put(0, TABLE, 32, INDIRECT)
    ring.entry(0, BUFFERS, 1, NEXT, 1)
    ring.entry(1, BUFFERS, 1, NEXT, 0)
    ring.offer(0)
    assert take(ring.device) == "descriptor loop"
    assert len(ring.device.pieces()) == 3, "noticed at the first entry that comes again"
    ring = make_ring()
    ring.put(0, TABLE, 32, INDIRECT)
    ring.entry(0, BUFFERS, 1, NEXT, 2)
    ring.offer(0)
    assert take(ring.device) == "next out of range"


def test_a_malformed_table_is_forgotten_with_its_buffer():
    ring = make_ring()
    ring.put(0, TABLE, 32, INDIRECT)
    ring.entry(0, BUFFERS, 0, 0)
    ring.put(1, BUFFERS, 8, 0)
    ring.offer(0)
    assert take(ring.device) == "zero length"
    ring.put_word(ring.layout.avail_ring(0), 1)
    assert take(ring.device) == "buffer"
    assert ring.device.pieces() == [(BUFFERS, 8)]


@pytest.mark.parametrize(
    ("address", "length", "problem"),
    [(TABLE, 24, "indirect length"), (TABLE, 0, "indirect length"), (0x3FF8, 16, "table outside memory")],
)
def test_a_split_table_is_looked_at_before_it_is_read(address: int, length: int, problem: str):
    ring = make_ring()
    ring.put(0, address, length, INDIRECT)
    ring.offer(0)
    assert ring.device.room(1) == problem
    assert take(ring.device) == problem


def test_room_counts_chains_and_tables_together_against_the_queues_size():
    ring = make_ring(2)
    ring.put(0, BUFFERS, 8, WRITE | NEXT, 1)
    ring.put(1, BUFFERS, 8, WRITE)
    ring.offer(0, 0)
    assert ring.device.room(16) == "enough"
    assert ring.device.room(17) == "descriptor loop"
    ring.put(0, TABLE, 16, INDIRECT)
    ring.entry(0, BUFFERS, 8, WRITE)
    assert ring.device.room(16) == "enough"
    assert ring.device.room(17) == "short"
    ring.put(0, BUFFERS, 8, WRITE | NEXT, 1)
    ring.put(1, TABLE, 16, INDIRECT)
    ring.put_word(ring.layout.avail_ring(1), 1)
    assert ring.device.room(100) == "descriptor loop"


CASES = {
    "indirect and next": INDIRECT | NEXT,
    "longer than the queue": INDIRECT,
    "indirect inside indirect": INDIRECT,
    "indirect not negotiated": INDIRECT,
}


@pytest.mark.parametrize(("problem", "flags"), CASES.items())
def test_what_qemu_lets_pass_a_strict_device_does_not(problem: str, flags: int):
    for back_end in ("qemu", "strict"):
        ring = make_ring(2, back_end=back_end, indirect=problem != "indirect not negotiated")
        ring.put(0, TABLE, 16 * (3 if problem == "longer than the queue" else 1), flags)
        ring.entry(0, BUFFERS, 8, INDIRECT if problem == "indirect inside indirect" else 0)
        ring.offer(0)
        if back_end == "qemu":
            assert take(ring.device) == "buffer"
            assert ring.overlooked() == problem
        else:
            assert take(ring.device) == problem


def test_virtio_2_7_5_3_2_a_chain_may_end_in_a_table_but_qemu_takes_it_for_a_piece():
    pieces = {}
    for back_end in ("qemu", "strict"):
        ring = make_ring(back_end=back_end)
        ring.put(0, BUFFERS, 8, NEXT, 1)
        ring.put(1, TABLE, 16, INDIRECT)
        ring.entry(0, BUFFERS + 64, 9, 0)
        ring.offer(0)
        assert take(ring.device) == "buffer"
        pieces[back_end] = ring.device.pieces()
    assert pieces["strict"] == [(BUFFERS, 8), (BUFFERS + 64, 9)]
    assert pieces["qemu"] == [(BUFFERS, 8), (TABLE, 16)]


def test_what_lies_outside_memory_is_gathered_as_zeros():
    ring = make_ring()
    ring.memory.write(0x3FFC, b"last")
    ring.put(0, 0x3FFC, 6, 0)
    ring.offer(0)
    assert take(ring.device) == "buffer"
    assert ring.device.gather() == b"last\0\0"


def test_a_strict_device_has_no_memory_to_lend():
    ring = make_ring(back_end="strict")
    ring.put(0, 1 << 40, 8, 0)
    ring.offer(0)
    assert take(ring.device) == "address outside memory"


def test_the_place_of_the_next_kick_moves_with_each_buffer_while_kicks_are_asked_for():
    ring = make_ring()
    ring.put(0, BUFFERS, 8, 0)
    ring.offer(0, 0)
    assert take(ring.device) == "buffer"
    assert ring.word(ring.layout.avail_event) == 1
    ring.device.disable_kicks()
    assert take(ring.device) == "buffer"
    assert ring.word(ring.layout.avail_event) == 1
    ring.offer(0)
    assert ring.device.enable_kicks()
    assert ring.device.enable_kicks(), "asked for again"
    assert ring.word(ring.layout.avail_event) == 3


def test_without_event_idx_the_flag_is_written_when_it_changes():
    ring = make_ring(event_idx=False)
    assert not ring.device.enable_kicks()
    assert not ring.device.move_kick_event()
    ring.device.disable_kicks()
    assert ring.word(ring.layout.used_flags) == 1
    assert ring.device.enable_kicks()
    assert ring.word(ring.layout.used_flags) == 0


def test_a_queue_begins_anew_after_a_reset():
    ring = make_ring(start=7)
    ring.put(0, BUFFERS, 8, 0)
    ring.offer(0)
    assert take(ring.device) == "buffer"
    restart(ring.device)
    mine = ring.device.cells
    assert (mine.last_avail_idx, mine.last_used_idx, mine.in_flight, mine.readable) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("head", "problem"),
    [(4, "used id out of range"), (0xFFFFFFFF, "used id out of range"), (1, "used id not outstanding")],
)
def test_a_split_driver_says_by_what_it_was_broken(head: int, problem: DriverMalformed):
    state = State(recording=False)
    memory = state.region("ram", 0x4000)
    layout = SplitLayout.at(0x100, 4)
    driver: DriverRing = SplitDriver(state, "q", memory, layout, event_idx=True)
    struct.pack_into("<HII", memory.bytes, layout.used_idx, 1, head, 0)
    assert not driver.take_used()
    assert driver.broken_by() == (problem, head)
    assert judge(problem, "vhost", seen=head).message.startswith(f"id {head} ")


def test_vhost_is_used_as_any_other_ring_is():
    state = State(recording=False)
    memory = state.region("ram", 0x4000)
    layout = SplitLayout.at(0x100, 4)
    ring: DeviceRing = SplitDevice(state, "dev", memory, layout, event_idx=True)
    assert take(ring) == "empty"
    struct.pack_into("<QIHH", memory.bytes, layout.desc, BUFFERS, 8, 0, 0)
    memory.plain_u16[layout.avail_idx // 2] = 1
    assert take(ring) == "buffer"
    ring.put_back([0])
    assert ring.waiting()
    assert take(ring) == "buffer"
    assert not ring.move_kick_event()
    memory.plain_u16[layout.avail_ring(1) // 2] = 9
    memory.plain_u16[layout.avail_idx // 2] = 2
    assert take(ring) == "head out of range"
