"""The driver's side: what it writes, in which order, and what it keeps to itself."""

from __future__ import annotations

import struct

import pytest
from rings import BUFFERS, Ring, make_ring

NEXT, WRITE, INDIRECT = 1, 2, 4
NO_INTERRUPT, NO_NOTIFY = 1, 1


def test_virtio_2_7_13_nothing_is_visible_before_the_index_is():
    ring = make_ring()
    head = ring.driver.write_chain([(BUFFERS, 60)], 0, 7)
    assert ring.desc(head) == (BUFFERS, 60, 0, 1)
    assert ring.fetch() == "empty"
    ring.driver.write_avail_ring()
    assert ring.word(ring.layout.avail_ring(0)) == head
    assert ring.fetch() == "empty"
    ring.driver.publish_avail_idx()
    assert ring.word(ring.layout.avail_idx) == 1
    assert ring.fetch() == "last"


def test_a_chain_is_linked_by_next_readable_pieces_first():
    ring = make_ring(8)
    head = ring.send(7, 12, 60, 100, writable=2)
    assert [ring.desc(i) for i in range(3)] == [
        (BUFFERS, 12, NEXT, 1),
        (BUFFERS + 0x100, 60, NEXT | WRITE, 2),
        (BUFFERS + 0x200, 100, WRITE, 3),
    ]
    mine = ring.driver.cells
    assert (head, mine.free_head, mine.num_free, mine.chain[head], mine.tokens[head]) == (0, 3, 5, 3, 7)


@pytest.mark.parametrize("flags", [0, WRITE])
def test_a_single_buffer_is_written_as_a_chain_of_one(flags: int):
    one, two = make_ring(), make_ring()
    one.driver.write_single(BUFFERS, 60, flags, 7)
    two.driver.write_chain([(BUFFERS, 60)], flags // WRITE, 7)
    assert one.state.digest() == two.state.digest()
    # The note about the chain's length is corrected where a longer one was before.
    ring = make_ring()
    ring.send(1, 8, 8)
    ring.fetch()
    ring.give_back(0)
    ring.driver.take_used()
    for _ in range(2):
        ring.driver.write_single(BUFFERS, 60, flags, 7)
        assert ring.driver.cells.chain[0] == 1
        ring.driver.write_avail_ring()
        ring.driver.publish_avail_idx()
        ring.fetch()
        ring.give_back(0)
        ring.driver.take_used()


def test_virtio_2_7_5_3_an_indirect_table_takes_one_descriptor():
    ring = make_ring(indirect=True)
    driver, table = ring.driver, BUFFERS + 0x800
    assert driver.uses_indirect(2)
    assert not driver.uses_indirect(1)
    driver.write_indirect(table, [(BUFFERS, 12), (BUFFERS + 64, 50), (BUFFERS + 128, 99)], 1)
    entries = [struct.unpack_from("<QIHH", ring.memory.bytes, table + 16 * i) for i in range(3)]
    assert entries == [(BUFFERS, 12, NEXT, 1), (BUFFERS + 64, 50, NEXT, 2), (BUFFERS + 128, 99, WRITE, 3)]
    head = driver.write_indirect_desc(table, 3, 9)
    assert ring.desc(head) == (table, 48, INDIRECT, 1)
    assert (driver.cells.num_free, driver.cells.chain[head]) == (3, 1)
    for _ in range(3):
        assert driver.fits(1)
        driver.write_indirect_desc(table, 3, 9)
    assert not driver.fits(1)
    assert not driver.uses_indirect(2), "no descriptor is left to refer to a table"
    assert not make_ring().driver.uses_indirect(2)


def test_returned_buffers_are_free_again_and_named_by_their_token():
    ring = make_ring(8)
    heads = [ring.send(10 + i, *[20] * (1 + i % 3)) for i in range(4)]
    for _ in heads:
        ring.fetch()
    assert ring.driver.cells.num_free == 8 - 1 - 2 - 3 - 1
    assert not ring.driver.more_used()
    for head in reversed(heads):
        ring.give_back(head, written=head)
    for head, token in zip(reversed(heads), (13, 12, 11, 10), strict=True):
        assert ring.driver.more_used()
        assert ring.driver.peek_token() == token
        assert ring.driver.take_used()
        mine = ring.driver.cells
        assert (mine.token, mine.head, mine.written) == (token, head, head)
    assert (ring.driver.cells.num_free, ring.driver.more_used()) == (8, False)


@pytest.mark.parametrize("head", [1, 4, 70_000])
def test_a_used_element_that_is_no_outstanding_head_breaks_the_queue(head: int):
    ring = make_ring()
    ring.send(7, 60)
    struct.pack_into("<II", ring.memory.bytes, ring.layout.used_ring(0), head, 0)
    ring.put_word(ring.layout.used_idx, 1)
    assert ring.driver.peek_token() == 0
    assert not ring.driver.take_used()
    assert ring.driver.cells.broken == 1
    assert ring.driver.cells.num_free == 3


def kicked(ring: Ring, buffers: int) -> bool:
    for _ in range(buffers):
        ring.send(7, 60)
    return ring.driver.kick_needed()


def test_virtio_2_7_10_with_event_idx_the_driver_kicks_for_the_entry_that_was_asked_for():
    ring = make_ring(8, start=65534)
    assert not kicked(ring, 0), "nothing was published"
    ring.put_word(ring.layout.avail_event, 65534)
    assert kicked(ring, 1)
    assert not kicked(ring, 1)
    ring.put_word(ring.layout.avail_event, 1)
    assert not kicked(ring, 1)
    assert kicked(ring, 2)
    assert ring.driver.cells.num_added == 0


def test_virtio_2_7_10_without_it_the_flag_decides():
    ring = make_ring(event_idx=False)
    assert kicked(ring, 1)
    ring.put_word(ring.layout.used_flags, NO_NOTIFY)
    assert not kicked(ring, 1)


def test_disabling_callbacks_points_used_event_at_0_and_writes_once():
    ring = make_ring(start=500)
    assert ring.driver.disable_callbacks() == "event"
    assert ring.word(ring.layout.used_event) == 0
    assert ring.driver.disable_callbacks() == "nothing"
    ring.driver.enable_callbacks()
    assert ring.word(ring.layout.used_event) == 500


def test_after_an_interrupt_disabling_writes_nothing_until_callbacks_are_enabled_again():
    ring = make_ring(start=500)
    ring.driver.note_interrupt()
    ring.driver.note_interrupt()
    assert ring.driver.cells.event_triggered == 1
    assert ring.driver.disable_callbacks() == "nothing"
    ring.driver.enable_callbacks()
    assert ring.driver.cells.event_triggered == 0
    assert ring.driver.disable_callbacks() == "event"


def test_without_event_idx_a_flag_is_set_and_cleared():
    ring = make_ring(event_idx=False)
    ring.driver.note_interrupt()
    assert ring.driver.cells.event_triggered == 0
    assert ring.driver.disable_callbacks() == "flag"
    assert ring.word(ring.layout.avail_flags) == NO_INTERRUPT
    ring.driver.enable_callbacks()
    assert ring.word(ring.layout.avail_flags) == 0
    ring.driver.disable_callbacks()
    ring.driver.enable_callbacks_delayed()
    assert ring.word(ring.layout.avail_flags) == 0


@pytest.mark.parametrize(("outstanding", "delay"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (8, 6)])
def test_a_late_interrupt_is_asked_for_after_three_quarters_of_what_is_outstanding(outstanding: int, delay: int):
    ring = make_ring(8, start=65530)
    for _ in range(outstanding):
        ring.send(7, 60)
    ring.driver.enable_callbacks_delayed()
    assert ring.word(ring.layout.used_event) == 65530 + delay & 0xFFFF
    for back in range(outstanding):
        assert ring.driver.too_many_used() == (back > delay)
        ring.fetch()
        ring.give_back(ring.device.cells.head)


def test_used_event_moves_along_only_while_callbacks_are_on():
    ring = make_ring(start=65535)
    assert ring.driver.move_used_event()
    assert ring.word(ring.layout.used_event) == 65535
    ring.driver.disable_callbacks()
    assert not ring.driver.move_used_event()
    assert ring.word(ring.layout.used_event) == 0
