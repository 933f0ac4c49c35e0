"""Both sides of a packed ring, byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from virtviz.engine.state import State
from virtviz.ring.packed import PackedLayout
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.packed_driver import PackedDriver
from virtviz.ring.rings import read_buffer, take, write_buffer
from virtviz.ring.verdicts import NAMES, BackEnd

if TYPE_CHECKING:
    from virtviz.engine.memory import Region

NEXT, WRITE, INDIRECT, AVAIL, USED = 1, 2, 4, 0x80, 0x8000
TABLE, BUFFERS = 0x1000, 0x1400


@dataclass
class Ring:
    state: State
    memory: Region
    layout: PackedLayout
    driver: PackedDriver
    device: PackedDevice

    def desc(self, slot: int) -> tuple[int, ...]:
        """addr, len, id, flags."""
        return struct.unpack_from("<QIHH", self.memory.bytes, self.layout.desc(slot))

    def put(self, slot: int, address: int, length: int, flags: int, buffer_id: int = 0) -> None:
        struct.pack_into("<QIHH", self.memory.bytes, self.layout.desc(slot), address, length, buffer_id, flags)

    def entry(self, index: int, address: int, length: int, flags: int) -> None:
        struct.pack_into("<QIHH", self.memory.bytes, TABLE + 16 * index, address, length, 0, flags)

    def event(self, who: str) -> tuple[int, int, int]:
        """Slot, wrap counter and flags of an event suppression structure."""
        off_wrap, flags = struct.unpack_from("<HH", self.memory.bytes, getattr(self.layout, f"{who}_event"))
        return off_wrap & 0x7FFF, off_wrap >> 15, flags

    def put_event(self, who: str, slot: int, wrap: int, flags: int) -> None:
        struct.pack_into("<HH", self.memory.bytes, getattr(self.layout, f"{who}_event"), slot | wrap << 15, flags)

    def send(self, token: int, *lengths: int, writable: int = 0) -> int:
        head = self.driver.write_chain([(BUFFERS + 0x100 * i, n) for i, n in enumerate(lengths)], writable, token)
        self.driver.list_head()
        self.driver.publish()
        return head

    def serve(self, count: int = 1, written: int = 0) -> None:
        heads = []
        for _ in range(count):
            assert take(self.device) == "buffer"
            heads.append(self.device.cells.head)
        self.device.write_used(heads, [written] * count)
        self.device.publish()

    def overlooked(self) -> str:
        number = self.device.cells.overlooked
        return NAMES[number - 1] if number else ""


def make_ring(size: int = 4, *, back_end: BackEnd = "qemu", event_idx: bool = True, **more: Any) -> Ring:
    state = State(recording=False)
    memory = state.region("ram", 0x2000)
    layout = PackedLayout.at(0x100, size)
    driver = PackedDriver(state, "q", memory, layout, event_idx=event_idx, **more)
    device = PackedDevice(
        state, "dev", memory, layout, back_end=back_end, event_idx=event_idx, **{"indirect": True, **more}
    )
    return Ring(state, memory, layout, driver, device)


# Offering


def test_virtio_2_8_21_a_chain_is_invisible_until_its_first_flags_are_stored():
    ring = make_ring()
    assert ring.driver.write_chain([(BUFFERS, 12), (BUFFERS + 64, 60)], 1, 7) == 0
    assert ring.desc(0) == (BUFFERS, 12, 0, 0)
    assert ring.desc(1) == (BUFFERS + 64, 60, 0, AVAIL | WRITE)
    assert take(ring.device) == "empty"
    ring.driver.publish()
    assert ring.desc(0) == (BUFFERS, 12, 0, AVAIL | NEXT)
    assert take(ring.device) == "buffer"
    assert ring.device.pieces() == [(BUFFERS, 12), (BUFFERS + 64, 60)]
    assert (ring.device.cells.readable, ring.device.cells.writable) == (1, 1)


@pytest.mark.parametrize("size", [4, 5])
def test_virtio_2_8_1_past_the_end_the_flags_turn_over_within_a_chain(size: int):
    ring = make_ring(size)
    for token in range(1, size):
        ring.send(token, 60)
        ring.serve()
        assert ring.driver.take_used()
    ring.send(9, 12, 60)
    assert ring.desc(size - 1)[3] == AVAIL | NEXT
    assert ring.desc(0)[3] == USED
    ring.serve()
    assert ring.driver.more_used()
    assert ring.driver.take_used()
    assert (ring.driver.cells.token, ring.driver.cells.last_used, ring.driver.cells.used_wrap) == (9, 1, 0)
    ring.send(10, 60)
    assert ring.desc(1)[3] == USED


@pytest.mark.parametrize("flags", [0, WRITE])
def test_a_single_packed_buffer_is_a_chain_of_one(flags: int):
    ring = make_ring()
    ring.driver.write_single(BUFFERS, 60, flags, 7)
    ring.driver.publish()
    assert ring.desc(0) == (BUFFERS, 60, 0, AVAIL | flags)


def test_virtio_2_8_7_an_indirect_table_takes_one_slot_and_is_read_in_sequence():
    ring = make_ring(1, indirect=True)
    assert ring.driver.uses_indirect(2)
    assert not ring.driver.uses_indirect(1)
    ring.driver.write_indirect(TABLE, [(BUFFERS, 12), (BUFFERS + 64, 60)], 1)
    assert ring.driver.write_indirect_desc(TABLE, 2, 7) == 0
    ring.driver.publish()
    assert not ring.driver.fits(1)
    assert not ring.driver.uses_indirect(2)
    assert ring.desc(0) == (TABLE, 32, 0, AVAIL | INDIRECT)
    assert take(ring.device) == "buffer"
    assert ring.device.pieces() == [(BUFFERS, 12), (BUFFERS + 64, 60)]
    assert ring.device.cells.writable == 1
    assert (ring.driver.cells.next_avail, ring.driver.cells.avail_wrap) == (0, 0)


# Coming back


def test_returned_packed_buffers_are_named_by_their_token_in_any_order():
    ring = make_ring(6)
    for token, lengths in ((1, (60,)), (2, (12, 60)), (3, (60, 8, 8))):
        ring.send(token, *lengths)
    heads = []
    for _ in range(3):
        assert take(ring.device) == "buffer"
        heads.append(ring.device.cells.head)
    ring.device.write_used([heads[2], heads[0]], [5, 0])
    assert not ring.driver.more_used(), "the first of them hides the rest"
    ring.device.publish()
    ring.device.publish()
    assert ring.driver.peek_token() == 3
    back = []
    while ring.driver.more_used():
        assert ring.driver.too_many_used()
        assert ring.driver.take_used()
        back.append((ring.driver.cells.token, ring.driver.cells.written))
    assert back == [(3, 5), (1, 0)]
    assert ring.driver.cells.num_free == 4


@pytest.mark.parametrize(
    ("buffer_id", "problem"),
    [(4, "used id out of range"), (0xFFFF, "used id out of range"), (2, "used id not outstanding")],
)
def test_a_used_id_that_is_not_outstanding_breaks_the_packed_queue(buffer_id: int, problem: str):
    ring = make_ring()
    ring.send(7, 60)
    ring.put(0, 0, 0, AVAIL | USED, buffer_id)
    assert ring.driver.peek_token() == 0
    assert ring.driver.more_used()
    assert not ring.driver.take_used()
    assert (ring.driver.cells.broken, ring.driver.broken_by()) == (1, (problem, buffer_id))
    assert ring.driver.cells.num_free == 3


@pytest.mark.parametrize(("back_end", "flags"), [("qemu", 0x8080), ("strict", 0x8082)])
def test_who_wrote_says_so_in_the_used_flags_but_for_qemu(back_end: BackEnd, flags: int):
    ring = make_ring(back_end=back_end)
    ring.send(7, 60, writable=1)
    ring.serve(written=20)
    assert ring.desc(0) == (BUFFERS, 20, 0, flags)


def test_virtio_2_8_9_in_order_one_used_descriptor_ends_a_batch():
    ring = make_ring(6, in_order=True)
    for token in (1, 2, 3):
        ring.send(token, 60, 8)
    ring.serve(3)
    assert [ring.desc(slot)[3] for slot in range(6)] == [0x8080, AVAIL, AVAIL | NEXT, AVAIL, AVAIL | NEXT, AVAIL]
    assert ring.desc(0)[2] == 4
    back = []
    while ring.driver.more_used():
        assert ring.driver.take_used()
        back.append(ring.driver.cells.token)
    assert back == [1, 2, 3]
    assert (ring.device.cells.next_used, ring.device.cells.used_wrap) == (0, 0)


def test_virtio_2_8_9_buffers_passed_over_count_as_written_completely():
    ring = make_ring(6, in_order=True)
    for token in (1, 2):
        ring.send(token, 60, 8, writable=2)
    ring.put(0, 0, 10, AVAIL | USED, 2)
    back = []
    while ring.driver.more_used():
        assert ring.driver.take_used()
        back.append((ring.driver.cells.token, ring.driver.cells.written))
    assert back == [(1, 68), (2, 10)]


def test_packed_buffers_can_be_taken_as_not_taken_across_the_end_of_the_ring():
    ring = make_ring(5)
    for token in (1, 2):
        ring.send(token, 60, 8)
        ring.serve()
        assert ring.driver.take_used()
    ring.send(3, 60)
    ring.send(4, 60, 8)
    heads = []
    for _ in range(2):
        assert take(ring.device) == "buffer"
        heads.append(ring.device.cells.head)
    assert (ring.device.cells.next_avail, ring.device.cells.avail_wrap) == (2, 0)
    ring.device.put_back(heads)
    assert (ring.device.cells.next_avail, ring.device.cells.avail_wrap, ring.device.cells.in_flight) == (4, 1, 0)
    assert take(ring.device) == "buffer"
    assert ring.device.cells.head == heads[0]
    ring.device.put_back([heads[0]])
    assert ring.device.cells.next_avail == 4
    for _ in range(2):
        assert take(ring.device) == "buffer"
    ring.device.put_back([heads[1]])
    assert (ring.device.cells.next_avail, ring.device.cells.avail_wrap) == (0, 0)


# Telling, or not


@pytest.mark.parametrize(("flags", "told"), [(0, True), (1, False)])
def test_virtio_2_8_10_enable_and_disable_mean_what_they_say(flags: int, *, told: bool):
    ring = make_ring(event_idx=False)
    ring.put_event("device", 0, 0, flags)
    ring.put_event("driver", 0, 0, flags)
    ring.send(1, 60)
    assert ring.driver.kick_needed() == told
    ring.serve()
    assert ring.device.interrupt_wanted() == told


def test_virtio_2_8_10_the_driver_kicks_for_the_descriptor_that_was_asked_for():
    ring = make_ring(3)
    kicked = []
    for slot, wrap in ((0, 1), (2, 1), (2, 1), (0, 0), (0, 0)):
        ring.put_event("device", slot, wrap, 2)
        ring.send(1, 60)
        kicked.append(ring.driver.kick_needed())
        ring.serve()
        assert ring.driver.take_used()
    assert kicked == [True, False, True, True, False]
    assert not ring.driver.kick_needed(), "nothing was added"


def test_virtio_2_8_10_the_device_interrupts_for_the_descriptor_that_was_asked_for():
    ring = make_ring(3)
    told = []
    for slot, wrap in ((2, 1), (2, 1), (2, 1), (1, 1), (1, 0)):
        ring.put_event("driver", slot, wrap, 2)
        ring.send(1, 60)
        ring.serve()
        told.append(ring.device.interrupt_wanted())
        assert ring.driver.take_used()
    assert told == [True, False, True, False, True], "the first time in any case"


@pytest.mark.parametrize(
    ("slot", "wrap", "told"), [(1, 1, True), (2, 1, True), (0, 0, True), (0, 1, False), (1, 0, False), (2, 0, False)]
)
def test_a_whole_lap_at_once_passes_every_descriptor(slot: int, wrap: int, *, told: bool):
    ring = make_ring(3, back_end="strict")
    ring.send(1, 60)
    ring.serve()
    assert ring.driver.take_used()
    assert ring.device.interrupt_wanted()
    # From slot 1 of the first lap to slot 0 of the second.
    for token in (2, 3, 4):
        ring.send(token, 60)
    ring.put_event("driver", slot, wrap, 2)
    ring.serve(3)
    assert ring.device.interrupt_wanted() == told


@pytest.mark.parametrize(("back_end", "told"), [("qemu", [True, False, True]), ("strict", [True, False, False])])
def test_qemu_interrupts_once_a_lap_for_it_cannot_compare_slots_of_two(back_end: BackEnd, told: list[bool]):
    ring = make_ring(3, back_end=back_end)
    # A wish for a descriptor far ahead: none of the three has been passed.
    ring.put_event("driver", 2, 0, 2)
    found = []
    for token in (1, 2, 3):
        ring.send(token, 60)
        ring.serve()
        assert ring.driver.take_used()
        found.append(ring.device.interrupt_wanted())
    assert found == told
    ring.put_event("driver", 2, 0, 1)
    for token in (4, 5, 6):
        ring.send(token, 60)
        ring.serve()
        assert ring.driver.take_used()
        assert not ring.device.interrupt_wanted(), "who wants none gets none"


@pytest.mark.parametrize(("back_end", "told"), [("qemu", False), ("strict", True)])
def test_qemu_takes_flags_that_mean_nothing_for_a_wish_by_descriptor(back_end: BackEnd, *, told: bool):
    ring = make_ring(4, back_end=back_end)
    ring.send(1, 60)
    ring.serve()
    ring.device.interrupt_wanted()
    ring.put_event("driver", 3, 1, 3)
    ring.send(2, 60)
    ring.serve()
    assert ring.device.interrupt_wanted() == told


def test_kicks_are_asked_for_at_the_next_descriptor():
    ring = make_ring()
    assert ring.device.disable_kicks()
    assert not ring.device.disable_kicks()
    assert ring.event("device")[2] == 1
    ring.send(1, 60)
    ring.serve()
    assert ring.device.enable_kicks()
    assert ring.event("device") == (1, 1, 2)
    assert not ring.device.move_kick_event()
    assert not ring.device.waiting()


def test_without_event_idx_kicks_are_switched_by_the_flags_alone():
    ring = make_ring(event_idx=False)
    assert not ring.device.enable_kicks()
    assert ring.device.disable_kicks()
    assert ring.device.enable_kicks()
    assert ring.event("device") == (0, 0, 0)


def test_callbacks_are_asked_for_at_the_next_descriptor_or_when_three_quarters_are_back():
    ring = make_ring(5)
    assert ring.driver.disable_callbacks() == "flag"
    assert ring.driver.disable_callbacks() == "nothing"
    assert ring.event("driver")[2] == 1
    assert not ring.driver.move_used_event()
    ring.driver.enable_callbacks()
    assert ring.event("driver") == (0, 1, 2)
    for token in range(1, 5):
        ring.send(token, 60)
    ring.driver.enable_callbacks_delayed()
    assert ring.event("driver") == (3, 1, 2)
    ring.serve(2)
    assert ring.driver.take_used()
    assert ring.driver.move_used_event()
    assert ring.event("driver") == (1, 1, 2)
    assert ring.driver.take_used()
    for token in (5, 6, 7):
        ring.send(token, 60)
    ring.driver.enable_callbacks_delayed()
    assert ring.event("driver") == (0, 0, 2), "past the end, in the next lap"


def test_after_an_interrupt_disabling_a_packed_queues_callbacks_writes_nothing():
    ring = make_ring()
    ring.driver.note_interrupt()
    ring.driver.note_interrupt()
    assert ring.driver.disable_callbacks() == "nothing"
    assert ring.event("driver")[2] == 0
    ring.driver.enable_callbacks()
    assert ring.event("driver") == (0, 1, 2)
    assert ring.driver.disable_callbacks() == "flag"


def test_without_event_idx_the_driver_asks_by_flags_alone():
    ring = make_ring(event_idx=False)
    ring.driver.note_interrupt()
    assert not ring.driver.cells.event_triggered
    assert ring.driver.disable_callbacks() == "flag"
    ring.driver.enable_callbacks()
    assert ring.event("driver") == (0, 0, 0)


# What is wrong


def test_a_packed_chain_may_not_come_back_to_itself():
    ring = make_ring()
    for slot in range(4):
        ring.put(slot, BUFFERS, 8, AVAIL | NEXT)
    assert take(ring.device) == "descriptor loop"
    assert ring.device.room(1000) == "descriptor loop"
    for slot in range(4):
        ring.put(slot, BUFFERS, 8, AVAIL | NEXT | WRITE)
    assert ring.device.room(32) == "enough"


def test_a_table_behind_a_full_ring_of_descriptors_is_a_loop():
    ring = make_ring(1, back_end="vhost")
    ring.put(0, BUFFERS, 8, AVAIL | NEXT)
    assert ring.device.look() == "new"
    assert ring.device.begin() == "head"
    assert ring.device.read_desc() == "next"
    ring.put(0, TABLE, 16, AVAIL | INDIRECT)
    assert ring.device.read_desc() == "descriptor loop"


@pytest.mark.parametrize(
    ("back_end", "answer"), [("qemu", "buffer"), ("vhost", "buffer"), ("strict", "chain not available")]
)
def test_who_looks_at_the_head_only_takes_what_was_not_offered(back_end: BackEnd, answer: str):
    ring = make_ring(back_end=back_end)
    ring.put(0, BUFFERS, 8, AVAIL | NEXT)
    ring.put(1, BUFFERS, 8, 0)
    assert take(ring.device) == answer
    assert (ring.overlooked() or answer) == "chain not available"


@pytest.mark.parametrize(("back_end", "answer"), [("qemu", "too many in flight"), ("vhost", "buffer")])
def test_more_in_flight_than_the_queue_has_is_noticed_by_qemu(back_end: BackEnd, answer: str):
    ring = make_ring(1, back_end=back_end)
    ring.put(0, BUFFERS, 8, AVAIL)
    assert take(ring.device) == "buffer"
    ring.put(0, BUFFERS, 8, USED)
    assert take(ring.device) == answer


@pytest.mark.parametrize(
    ("address", "length", "flags", "answers"),
    [
        (TABLE, 24, 0, {"qemu": "indirect length", "strict": "indirect length"}),
        (TABLE, 0, 0, {"qemu": "indirect length"}),
        (0x3FF8, 16, 0, {"qemu": "table outside memory", "vhost": "table outside memory"}),
        (TABLE, 16, NEXT, {"qemu": "buffer", "vhost": "buffer", "strict": "indirect and next"}),
        (TABLE, 80, 0, {"qemu": "buffer", "vhost": "buffer", "strict": "longer than the queue"}),
    ],
)
def test_a_table_is_looked_at_before_it_is_read(address: int, length: int, flags: int, answers: dict[BackEnd, str]):
    for back_end, answer in answers.items():
        ring = make_ring(back_end=back_end)
        for i in range(5):
            ring.entry(i, BUFFERS, 8, 0)
        ring.put(0, address, length, AVAIL | INDIRECT | flags)
        assert take(ring.device) == answer
        if answer.startswith(("indirect length", "table")):
            assert ring.device.room(1) == answer


@pytest.mark.parametrize(("back_end", "answer"), [("qemu", "buffer"), ("vhost", "indirect inside indirect")])
def test_a_table_inside_a_table_is_a_piece_for_qemu(back_end: BackEnd, answer: str):
    ring = make_ring(back_end=back_end)
    ring.entry(0, BUFFERS, 8, INDIRECT)
    ring.put(0, TABLE, 16, AVAIL | INDIRECT)
    assert take(ring.device) == answer


def test_a_table_at_the_end_of_a_chain_is_a_piece_for_qemu_and_a_table_for_others():
    pieces = {}
    for back_end in ("qemu", "vhost", "strict"):
        ring = make_ring(back_end=back_end)
        ring.entry(0, BUFFERS, 8, 0)
        ring.put(0, BUFFERS + 64, 8, AVAIL | NEXT)
        ring.put(1, TABLE, 16, AVAIL | INDIRECT, 5)
        assert take(ring.device) == "buffer"
        assert ring.device.cells.head == 2 << 16 | 5
        pieces[back_end] = ring.device.pieces()
    assert pieces["vhost"] == pieces["strict"] == [(BUFFERS + 64, 8), (BUFFERS, 8)]
    assert pieces["qemu"] == [(BUFFERS + 64, 8), (TABLE, 16)]


def test_a_packed_table_may_not_have_more_pieces_than_can_be_noted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("virtviz.ring.pieces.IOV_MAX", 3)
    ring = make_ring()
    for i in range(4):
        ring.entry(i, BUFFERS, 8, 0)
    ring.put(0, TABLE, 64, AVAIL | INDIRECT)
    assert take(ring.device) == "too many pieces"
    ring.entry(3, 0x3FF8, 16, 0)
    assert take(ring.device) == "too many pieces", "the part of it that lies in memory is the fourth"
    ring.entry(2, 0x3FF8, 16, 0)
    assert take(ring.device) == "too many pieces", "the part of it that QEMU lends is the fourth"


def test_room_counts_what_waits_in_chains_and_tables_without_taking_it():
    ring = make_ring()
    ring.send(1, 12, 60, writable=1)
    ring.entry(0, BUFFERS, 100, WRITE)
    ring.entry(1, BUFFERS, 8, 0)
    ring.put(2, TABLE, 32, AVAIL | INDIRECT)
    assert ring.device.room(160) == "enough"
    assert ring.device.room(161) == "short"
    ring.put(3, BUFFERS, 1, AVAIL | WRITE)
    assert ring.device.room(161) == "enough"
    assert ring.device.room(162) == "short", "all round the ring"
    assert ring.device.cells.next_avail == 0


def test_virtio_2_8_10_a_kick_is_wanted_behind_what_waits_already():
    ring = make_ring()
    ring.send(1, 60, writable=1)
    ring.send(2, 60, writable=1)
    ring.driver.kick_needed()
    assert ring.device.room(1000) == "short"
    ring.device.enable_kicks()
    assert ring.event("device") == (2, 1, 2)
    ring.send(3, 60, writable=1)
    assert ring.driver.kick_needed()
    assert take(ring.device) == "buffer"
    ring.device.put_back([ring.device.cells.head])
    ring.device.enable_kicks()
    assert ring.event("device") == (1, 1, 2)


# Pieces outside memory


def test_qemu_lends_one_page_for_what_lies_outside_memory():
    ring = make_ring()
    end = ring.memory.size
    ring.memory.write(end - 8, b"the last")
    ring.put(0, end - 8, 20, AVAIL)
    assert take(ring.device) == "buffer"
    assert ring.device.pieces() == [(end - 8, 8), (end, 12)]
    assert read_buffer(ring.device) == b"the last" + bytes(12)
    assert ring.overlooked() == "address outside memory"
    ring.put(1, end - 8, 20, AVAIL | WRITE)
    assert take(ring.device) == "buffer"
    assert write_buffer(ring.device, b"0123456789", 4) == 10
    assert ring.memory.read(end - 8, 8) == b"the 0123"
    ring.send(1, 60)
    assert ring.device.begin() == "head"
    assert not ring.device.pieces()


def test_a_buffer_is_written_from_an_offset_on_over_as_many_pieces_as_it_takes():
    ring = make_ring()
    ring.send(7, 4, 4, 4, writable=3)
    assert take(ring.device) == "buffer"
    assert write_buffer(ring.device, b"abcdefghi", 5) == 7
    assert [bytes(ring.memory.read(BUFFERS + 0x100 * i, 4)) for i in range(3)] == [b"\0" * 4, b"\0abc", b"defg"]


@pytest.mark.parametrize(("address", "length"), [(1 << 63, 4097), (0xFFFFFFFFFFFFFFF8, 5000)])
def test_but_not_more_than_a_page(address: int, length: int):
    ring = make_ring()
    ring.put(0, address, length, AVAIL)
    assert take(ring.device) == "address outside memory"


def test_and_not_twice_for_a_buffer():
    ring = make_ring()
    ring.put(0, 1 << 63, 8, AVAIL | NEXT)
    ring.put(1, 1 << 62, 8, AVAIL)
    assert take(ring.device) == "address outside memory"
