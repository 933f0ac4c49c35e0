"""The device's side: what it takes, what it refuses and by which word, and what it writes."""

from __future__ import annotations

import struct

import pytest
from rings import BUFFERS, Ring, make_ring

from virtviz.ring import split_device

NEXT, WRITE, INDIRECT = 1, 2, 4
TABLE = BUFFERS + 0x800


def entry(ring: Ring, index: int, address: int, length: int, flags: int, following: int = 0) -> None:
    struct.pack_into("<QIHH", ring.memory.bytes, TABLE + 16 * index, address, length, flags, following)


def test_a_buffer_is_taken_with_all_its_pieces():
    ring = make_ring(8)
    ring.send(7, 12, 60, 100, 8, writable=2)
    assert ring.fetch() == "last"
    assert ring.device.pieces() == [(BUFFERS + 0x100 * i, length) for i, length in enumerate((12, 60, 100, 8))]
    assert (ring.device.cells.readable, ring.device.cells.writable, ring.device.total()) == (2, 2, 180)
    assert ring.device.cells.last_avail_idx == 1
    assert ring.fetch() == "empty"


def test_bytes_of_all_pieces_are_gathered_in_order():
    ring = make_ring()
    ring.memory.write(BUFFERS, b"abcd")
    ring.memory.write(BUFFERS + 0x100, b"efg")
    ring.send(7, 4, 3)
    assert ring.fetch() == "last"
    assert ring.device.peek_address() == BUFFERS
    assert ring.device.gather() == b"abcdefg"


def test_one_piece_after_another_is_noted_without_rewriting_what_is_the_same():
    ring = make_ring(recording=True)
    for length in (60, 60, 61):
        ring.send(7, length)
    journal = ring.state.journal
    assert journal is not None
    stores = []
    for _ in range(3):
        assert ring.device.read_avail_idx() in ("new", "empty")
        ring.device.read_head()
        journal.tail.clear()
        assert ring.device.read_desc() == "last"
        stores.append(sum(word & 7 == 0 for word in journal.tail[::2]))
        assert ring.device.pieces() == [(BUFFERS, 60 if len(stores) < 3 else 61)]
    assert stores[1] == 1, "only how far it has come"
    assert stores[2] == 2
    ring.put_desc(3, BUFFERS + 8, 61, 0, 0)
    ring.offer(3)
    assert ring.fetch() == "last"
    assert ring.device.pieces() == [(BUFFERS + 8, 61)]


def test_several_entries_can_be_published_by_one_store():
    ring = make_ring()
    for token in (7, 8, 9):
        ring.send(token, 60)
    assert ring.device.read_avail_idx() == "new"
    assert ring.device.cells.avail_idx == 3
    assert ring.device.read_avail_idx() == "empty"


@pytest.mark.parametrize("start", [0, 65534])
def test_an_index_further_ahead_than_the_queue_is_long_is_refused(start: int):
    ring = make_ring(start=start)
    ring.put_word(ring.layout.avail_idx, start + 4 & 0xFFFF)
    assert ring.device.read_avail_idx() == "new"
    ring.put_word(ring.layout.avail_idx, start + 5 & 0xFFFF)
    assert ring.device.read_avail_idx() == "avail.idx jumped"
    ring.put_word(ring.layout.avail_idx, start - 1 & 0xFFFF)
    assert ring.device.read_avail_idx() == "avail.idx jumped", "an index that moves back looks like a jump"


def test_a_head_must_be_a_descriptor():
    ring = make_ring()
    ring.offer(4)
    assert ring.fetch() == "head out of range"


def test_a_next_must_be_a_descriptor():
    ring = make_ring()
    ring.put_desc(0, BUFFERS, 8, NEXT, 4)
    ring.offer(0)
    assert ring.fetch() == "next out of range"


def test_a_chain_may_not_be_longer_than_the_queue():
    ring = make_ring()
    for index in range(4):
        ring.put_desc(index, BUFFERS, 8, NEXT, (index + 1) % 4)
    ring.offer(0)
    assert ring.fetch() == "descriptor loop"
    ring = make_ring()
    ring.put_desc(2, BUFFERS, 8, NEXT, 2)
    ring.offer(2)
    assert ring.fetch() == "descriptor loop"


def test_readable_pieces_come_first():
    ring = make_ring()
    ring.put_desc(0, BUFFERS, 8, NEXT | WRITE, 1)
    ring.put_desc(1, BUFFERS, 8, 0, 0)
    ring.offer(0)
    assert ring.fetch() == "readable after writable"


@pytest.mark.parametrize(("address", "length"), [(0x3FFF, 2), (0x4000, 1), (2**64 - 1, 1), (0, 0x4001)])
@pytest.mark.parametrize("warm", [False, True])
def test_an_address_must_lie_in_memory(address: int, length: int, *, warm: bool):
    ring = make_ring()
    if warm:
        ring.put_desc(1, BUFFERS, 8, 0, 0)
        ring.offer(1)
        assert ring.fetch() == "last"
    ring.put_desc(0, address, length, 0, 0)
    ring.offer(0)
    assert ring.memory.size == 0x4000
    assert ring.fetch() == "address outside memory"


def test_a_buffer_may_end_where_memory_does():
    ring = make_ring()
    ring.put_desc(0, 0x3FFF, 1, 0, 0)
    ring.offer(0, times=2)
    assert [ring.fetch(), ring.fetch()] == ["last", "last"]


def test_a_piece_without_length_is_no_piece():
    ring = make_ring()
    ring.put_desc(0, BUFFERS, 0, 0, 0)
    ring.put_desc(1, BUFFERS, 8, NEXT, 2)
    ring.put_desc(2, BUFFERS, 0, NEXT, 3)
    ring.put_desc(3, BUFFERS + 8, 9, 0, 0)
    ring.offer(0)
    assert ring.fetch() == "last"
    assert (ring.device.pieces(), ring.device.total()) == ([], 0)
    ring.offer(1)
    assert ring.fetch() == "last"
    assert ring.device.pieces() == [(BUFFERS, 8), (BUFFERS + 8, 9)]
    ring.offer(0)
    assert ring.fetch() == "last"
    assert ring.device.pieces() == []


def test_a_buffer_may_not_have_too_many_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(split_device, "IOV_MAX", 2)
    ring = make_ring()
    for index in range(3):
        ring.put_desc(index, BUFFERS, 8, NEXT if index < 2 else 0, index + 1)
    ring.offer(0)
    assert ring.fetch() == "too many pieces"


def test_an_indirect_table_is_read_in_sequence_whatever_its_next_fields_say():
    ring = make_ring()
    ring.put_desc(0, TABLE, 48, INDIRECT, 0)
    for index, length in enumerate((8, 9, 10)):
        entry(ring, index, BUFFERS + 16 * index, length, NEXT * (index < 2), 77)
    ring.offer(0)
    assert ring.fetch() == "last"
    assert [length for _, length in ring.device.pieces()] == [8, 9, 10]
    assert ring.device.cells.table == 0


def test_virtio_2_7_5_3_a_chain_may_end_in_a_table_and_a_table_in_a_chain():
    ring = make_ring()
    ring.put_desc(0, BUFFERS, 5, NEXT, 1)
    ring.put_desc(1, TABLE, 16, INDIRECT | NEXT, 2)
    ring.put_desc(2, BUFFERS + 64, 7, WRITE, 0)
    entry(ring, 0, BUFFERS + 32, 6, WRITE)
    ring.offer(0)
    assert ring.fetch() == "last"
    assert [length for _, length in ring.device.pieces()] == [5, 6, 7]
    assert (ring.device.cells.readable, ring.device.cells.writable) == (1, 2)
    # A table that comes first forgets the pieces of the buffer before.
    ring.put_desc(3, TABLE, 16, INDIRECT | WRITE, 0)
    ring.offer(3)
    assert ring.fetch() == "last"
    assert ring.device.pieces() == [(BUFFERS + 32, 6)]


@pytest.mark.parametrize(
    ("length", "word"), [(17, "indirect length"), (8, "indirect length"), (16 * 65537, "indirect length")]
)
def test_a_table_has_whole_entries_and_not_too_many(length: int, word: str):
    ring = make_ring()
    ring.put_desc(0, TABLE, length, INDIRECT, 0)
    ring.offer(0)
    assert ring.fetch() == word


def test_a_table_must_lie_in_memory():
    ring = make_ring()
    ring.put_desc(0, 0x3FF8, 16, INDIRECT, 0)
    ring.offer(0)
    assert ring.fetch() == "address outside memory"


def test_a_table_may_not_refer_to_a_table_run_out_or_be_wrong_inside():
    ring = make_ring()
    ring.put_desc(0, TABLE, 16, INDIRECT, 0)
    entry(ring, 0, TABLE, 16, INDIRECT)
    ring.offer(0)
    assert ring.fetch() == "indirect inside indirect"
    ring = make_ring()
    ring.put_desc(0, TABLE, 16, INDIRECT, 0)
    entry(ring, 0, BUFFERS, 8, NEXT)
    ring.offer(0)
    assert ring.fetch() == "descriptor loop"
    ring = make_ring()
    ring.put_desc(0, TABLE, 0, INDIRECT, 0)
    ring.offer(0)
    assert ring.fetch() == "descriptor loop", "an empty table"
    ring = make_ring()
    ring.put_desc(0, TABLE, 16, INDIRECT, 0)
    entry(ring, 0, 0x5000, 8, 0)
    ring.offer(0)
    assert ring.fetch() == "address outside memory"


def test_a_new_head_forgets_what_a_malformed_buffer_left_behind():
    ring = make_ring()
    ring.put_desc(0, BUFFERS, 8, NEXT, 1)
    ring.put_desc(1, TABLE, 16, INDIRECT, 0)
    entry(ring, 0, BUFFERS, 8, NEXT)
    ring.offer(0)
    assert ring.fetch() == "descriptor loop"
    ring.put_word(ring.layout.avail_ring(0), 2)
    ring.put_desc(2, BUFFERS, 9, 0, 0)
    assert ring.fetch() == "last"
    assert ring.device.pieces() == [(BUFFERS, 9)]


def test_heads_can_be_taken_as_not_taken():
    ring = make_ring(start=65535)
    ring.send(7, 60)
    ring.send(8, 61)
    ring.fetch()
    ring.fetch()
    ring.device.give_back(2)
    assert ring.device.cells.last_avail_idx == 65535
    assert ring.fetch() == "last"
    assert ring.device.pieces() == [(BUFFERS, 60)]


def test_virtio_2_7_8_used_elements_are_written_before_they_are_published_and_wrap():
    ring = make_ring(start=65534)
    for token in (1, 2, 3):
        ring.send(token, 8)
        ring.fetch()
    ring.device.write_used([0, 1, 2], [10, 11, 12])
    slots = [struct.unpack_from("<II", ring.memory.bytes, ring.layout.used_ring(slot)) for slot in range(4)]
    assert slots == [(2, 12), (0, 0), (0, 10), (1, 11)]
    assert not ring.driver.more_used()
    ring.device.publish_used_idx()
    assert ring.word(ring.layout.used_idx) == 1
    for token in (1, 2, 3):
        assert ring.driver.take_used()
        assert ring.driver.cells.token == token


def interrupts(ring: Ring, buffers: int) -> bool:
    for _ in range(buffers):
        ring.send(7, 8)
        ring.fetch()
        ring.give_back(ring.device.cells.head)
        ring.driver.take_used()
    return ring.device.interrupt_wanted()


def test_virtio_2_7_7_2_must_notify_when_used_event_is_crossed():
    ring = make_ring(start=65533)
    ring.put_word(ring.layout.used_event, 9)
    assert interrupts(ring, 1), "the first time it is not known what was signalled"
    ring.put_word(ring.layout.used_event, 65535)
    assert not interrupts(ring, 1)
    assert interrupts(ring, 1)
    ring.put_word(ring.layout.used_event, 1)
    assert not interrupts(ring, 1)
    assert interrupts(ring, 3)


def test_virtio_2_7_7_2_without_event_idx_the_flag_decides():
    ring = make_ring(event_idx=False)
    assert interrupts(ring, 1)
    ring.put_word(ring.layout.avail_flags, 1)
    assert not interrupts(ring, 1)


def test_after_65536_entries_without_a_signal_what_was_signalled_means_nothing():
    ring = make_ring(4)
    assert interrupts(ring, 1)
    for _ in range(65535 // 3):
        ring.device.write_used([0, 0, 0], [0, 0, 0])
    assert ring.device.cells.signalled_used_valid == 1
    ring.device.write_used([0], [0])
    assert ring.device.cells.signalled_used_valid == 0


def test_with_event_idx_kicks_are_stopped_by_writing_nothing():
    ring = make_ring(start=9)
    assert not ring.device.enable_kicks(), "they are on from the beginning"
    assert not ring.device.disable_kicks()
    ring.send(7, 8)
    ring.device.read_avail_idx()
    assert ring.word(ring.layout.avail_event) == 9
    assert ring.device.enable_kicks()
    assert ring.word(ring.layout.avail_event) == 10
    assert ring.word(ring.layout.used_flags) == 0


def test_without_it_they_are_stopped_by_a_flag():
    ring = make_ring(event_idx=False)
    assert ring.device.disable_kicks()
    assert not ring.device.disable_kicks()
    assert ring.word(ring.layout.used_flags) == 1
    assert ring.device.enable_kicks()
    assert ring.word(ring.layout.used_flags) == 0
    assert ring.word(ring.layout.avail_event) == 0
