"""Where the parts of a packed ring lie, whose turn a descriptor's flags say it is, and how the fields are called."""

from __future__ import annotations

import pytest

from virtviz.engine.state import State
from virtviz.ring.packed import PackedLayout, is_available, is_used


@pytest.mark.parametrize("size", [1, 5, 256, 32768])
def test_virtio_2_8_any_size_up_to_32768_is_allowed(size: int):
    layout = PackedLayout.at(0x1000, size)
    assert (layout.ring, layout.driver_event, layout.device_event) == (0x1000, 0x1000 + 16 * size, 0x1004 + 16 * size)
    assert layout.end == 0x1008 + 16 * size
    assert layout.desc(1) == 0x1010


@pytest.mark.parametrize("size", [0, 32769])
def test_virtio_2_8_no_other_size_is(size: int):
    with pytest.raises(ValueError, match="1 to 32768"):
        PackedLayout.at(0, size)


@pytest.mark.parametrize("areas", [(8, 0x100, 0x104), (0, 0x102, 0x104), (0, 0x100, 0x106)])
def test_virtio_2_8_parts_must_be_aligned(areas: tuple[int, int, int]):
    with pytest.raises(ValueError, match="multiples"):
        PackedLayout(4, *areas)


@pytest.mark.parametrize(
    ("flags", "available", "used"),
    [(0x0080, 1, None), (0x8000, 0, None), (0x8080, None, 1), (0x0000, None, 0), (0x0083, 1, None), (0x8082, None, 1)],
)
def test_virtio_2_8_1_two_bits_and_the_wrap_counter_tell_whose_turn_it_is(
    flags: int, available: int | None, used: int | None
):
    assert [wrap for wrap in (0, 1) if is_available(flags, wrap)] == ([] if available is None else [available])
    assert [wrap for wrap in (0, 1) if is_used(flags, wrap)] == ([] if used is None else [used])


@pytest.mark.parametrize(
    ("offset", "size", "name"),
    [
        (0, 16, "desc[0]"),
        (0x10, 14, "desc[1]"),
        (0x10, 8, "desc[1].addr"),
        (0x18, 4, "desc[1].len"),
        (0x1C, 2, "desc[1].id"),
        (0x1E, 2, "desc[1].flags"),
        (0x1F, 1, "desc[1].?"),
        (0x40, 2, "driver_event.desc"),
        (0x42, 2, "driver_event.flags"),
        (0x40, 4, "driver_event"),
        (0x44, 2, "device_event.desc"),
        (0x46, 2, "device_event.flags"),
        (0x44, 4, "device_event"),
    ],
)
def test_fields_of_a_packed_ring_are_called_as_the_standard_calls_them(offset: int, size: int, name: str):
    memory = State(recording=False).region("ram", 0x2000)
    PackedLayout.at(0x1000, 4).name_fields(memory, "q")
    assert memory.field_at(0x1000 + offset, size) == ("q", name)
