"""Where the fields of a split ring lie (virtio 1.4, 2.7)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rings import make_ring

from virtviz.engine.state import State
from virtviz.ring.split import SplitLayout


def test_a_queue_of_256_takes_4096_and_518_and_2054_bytes():
    layout = SplitLayout.at(0x1000, 256)
    assert layout.avail - layout.desc == 4096
    assert layout.used_event + 2 - layout.avail == 518
    assert layout.avail_event + 2 - layout.used == 2054
    assert layout.end == layout.avail_event + 2
    # The used ring begins at a multiple of 4, two bytes behind the available ring here.
    assert layout.used - (layout.avail + 518) == 2


@given(st.integers(0, 15), st.integers(0, 4096).map(lambda n: 16 * n))
def test_virtio_2_7_parts_are_aligned_and_do_not_overlap(power: int, address: int):
    layout = SplitLayout.at(address, 1 << power)
    size = layout.size
    assert (layout.desc % 16, layout.avail % 2, layout.used % 4) == (0, 0, 0)
    assert layout.desc + 16 * size == layout.avail
    assert layout.avail_flags == layout.avail
    assert layout.avail_idx == layout.avail + 2
    assert layout.avail_ring(0) == layout.avail + 4
    assert layout.avail_ring(size) == layout.used_event <= layout.used - 2
    assert (layout.used_flags, layout.used_idx) == (layout.used, layout.used + 2)
    assert layout.used_ring(0) == layout.used + 4
    assert layout.used_ring(size) == layout.avail_event == layout.end - 2


@pytest.mark.parametrize("size", [0, -4, 3, 6, 255, 65536])
def test_virtio_2_7_the_size_is_a_power_of_two_up_to_32768(size: int):
    with pytest.raises(ValueError, match=f"power of two from 1 to 32768 descriptors, not {size}"):
        SplitLayout(size, 0, 0, 0)


@pytest.mark.parametrize(("desc", "avail", "used"), [(8, 64, 128), (0, 65, 128), (0, 64, 130)])
def test_virtio_2_7_parts_must_be_aligned(desc: int, avail: int, used: int):
    with pytest.raises(ValueError, match="multiples of 16, 2 and 4"):
        SplitLayout(4, desc, avail, used)


def test_fields_are_called_as_the_standard_calls_them():
    layout = SplitLayout.at(0x100, 4)
    memory = State(recording=False).region("ram", 0x1000)
    layout.name_fields(memory, "q")
    names = {
        (layout.desc + 16, 16): "desc[1]",
        (layout.desc + 16, 8): "desc[1].addr",
        (layout.desc + 24, 4): "desc[1].len",
        (layout.desc + 28, 2): "desc[1].flags",
        (layout.desc + 30, 2): "desc[1].next",
        (layout.desc + 17, 1): "desc[1].?",
        (layout.avail_flags, 2): "avail.flags",
        (layout.avail_idx, 2): "avail.idx",
        (layout.avail_ring(3), 2): "avail.ring[3]",
        (layout.used_event, 2): "used_event",
        (layout.used_flags, 2): "used.flags",
        (layout.used_idx, 2): "used.idx",
        (layout.used_ring(2), 8): "used.ring[2]",
        (layout.used_ring(2), 4): "used.ring[2].id",
        (layout.used_ring(2) + 4, 4): "used.ring[2].len",
        (layout.avail_event, 2): "avail_event",
    }
    assert {key: memory.field_at(*key) for key in names} == {key: ("q", name) for key, name in names.items()}
    assert memory.field_at(layout.end, 2) == ("", "")


def test_a_new_ring_has_all_descriptors_free_and_nothing_in_memory():
    ring = make_ring(8)
    assert (ring.driver.cells.num_free, list(ring.driver.cells.next)) == (8, [1, 2, 3, 4, 5, 6, 7, 0])
    assert not any(ring.memory.bytes)


@pytest.mark.parametrize(
    "field",
    [
        *("desc[0].addr", "desc[7].len", "desc[3].flags", "desc[1].next", "avail.flags", "avail.idx", "avail.ring[7]"),
        *("used_event", "used.flags", "used.idx", "used.ring[0].id", "used.ring[7].len", "avail_event"),
    ],
)
def test_a_field_is_found_by_the_name_it_has_in_traces(field: str):
    memory = State(recording=False).region("ram", 0x2000)
    layout = SplitLayout.at(0x1000, 8)
    layout.name_fields(memory, "queue")
    assert memory.field_at(*layout.field_place(field)) == ("queue", field)


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("avail", "no such field; it has desc"),
        ("desc[0]", "no such field"),
        ("avail.ring[1].id", "no such field"),
        ("desc[8].len", "slot 8 is behind the end of a queue of 8 descriptors"),
        ("used.ring[-1].id", "no such field"),
    ],
)
def test_a_field_that_a_queue_has_not_is_refused(field: str, problem: str):
    with pytest.raises(ValueError, match=re.escape(problem)):
        SplitLayout.at(0, 8).field_place(field)
