"""Memory that belongs to somebody else, and that begins elsewhere."""

from __future__ import annotations

import struct

import pytest

from virtviz.engine.state import PAGE_BYTES, State
from virtviz.engine.window import Window

PAIR = struct.Struct("<HI")


@pytest.mark.parametrize("recording", [False, True])
def test_a_window_reads_and_writes_the_bytes_it_was_given(*, recording: bool):
    theirs = bytearray(64)
    window = Window(State(recording=recording).adopt("theirs", theirs), 0x100000)
    window.u16[0x100004 // 2] = 0xBEEF
    window.write(0x100010, b"abc")
    window.writer(PAIR)(0x100020, 7, 9)
    assert theirs[4:6] == b"\xef\xbe"
    assert theirs[16:19] == b"abc"
    theirs[0x20] = 8
    assert window.reader(PAIR)(0x100020) == (8, 9)
    assert window.u16[0x100004 // 2] == 0xBEEF
    assert window.read(0x100010, 3) == b"abc"


@pytest.mark.parametrize(
    ("address", "length", "inside"), [(0x1000, 64, True), (0xFFF, 2, False), (0x1000, 65, False), (0x1040, 1, False)]
)
def test_what_lies_before_or_behind_is_outside(address: int, length: int, *, inside: bool):
    window = Window(State(recording=False).adopt("theirs", bytearray(64)), 0x1000)
    assert window.holds(address, length) == inside
    assert (window.start, window.size) == (0x1000, 0x1040)


def test_adopted_memory_is_undone_and_kept_in_snapshots_like_any_other():
    state = State(recording=True)
    ours, theirs = state.region("ours", PAGE_BYTES), bytearray(PAGE_BYTES + 10)
    region = state.adopt("theirs", theirs)
    more = state.region("more", PAGE_BYTES)
    before = state.snapshot()
    region.write(PAGE_BYTES, b"0123456789")
    region.u16[1] = 5
    ours.u16[2] = 6
    more.u16[3] = 7
    after, digest = state.snapshot(before), state.digest()
    journal = state.journal
    assert journal is not None
    state.undo(journal.tail, journal.blobs, len(journal.blobs))
    assert theirs == bytes(PAGE_BYTES + 10)
    assert (ours.plain_u16[2], more.plain_u16[3]) == (0, 0)
    state.load_snapshot(after)
    assert theirs[PAGE_BYTES:] == b"0123456789"
    assert state.digest() == digest


def test_memory_is_made_of_words():
    with pytest.raises(ValueError, match="16-bit words"):
        State(recording=False).adopt("odd", bytearray(3))
