"""Cells, memory, the journal, undo, snapshots and digests."""

from __future__ import annotations

import struct
from typing import ClassVar

import pytest
from toy import RECORD

from virtviz.engine import memory
from virtviz.engine.cells import Cells, cells
from virtviz.engine.journal import CELL, KIND, LOAD, ROW, SLICE, STORE, Journal, cell_word, row_word, thread_and_arc
from virtviz.engine.journal import RECORD as READ_RECORD
from virtviz.engine.state import PAGE_BYTES, State


@cells
class Part(Cells):
    """A part with plain fields and a list."""

    shared: ClassVar[str] = "of the class"
    first: int
    second: int = 7
    row: list[int]


@cells
class Bigger(Part):
    """A part with one field more."""

    third: int = 3


def words(state: State) -> list[tuple[int, int, int]]:
    """Give the journal's tail as kind, place, value."""
    assert state.journal is not None
    tail = state.journal.tail
    return [(tail[i] & KIND, tail[i] >> 3, tail[i + 1]) for i in range(0, len(tail), 2)]


def test_cells_have_names_and_initial_values():
    state = State(recording=False)
    part = state.add(Part, "part", row=[4, 5])
    bigger = state.add(Bigger, "bigger", second=1, row=[9])
    assert list(state.names) == [
        "part.first",
        "part.second",
        "part.row[0]",
        "part.row[1]",
        "bigger.first",
        "bigger.second",
        "bigger.third",
        "bigger.row[0]",
    ]
    assert [state.value(i) for i in range(8)] == [0, 7, 4, 5, 0, 1, 3, 9]
    assert state.names == list(state.names)
    assert state.names != "part.first"
    assert (state.names[-1], state.names[2:4]) == ("bigger.row[0]", ["part.row[0]", "part.row[1]"])
    assert [state.names.index(name) for name in state.names] == list(range(8))
    for name in ("part.third", "part.row[2]", "part.row", "part.first[0]", "part.row[x]"):
        with pytest.raises(ValueError, match="no cell is called"):
            state.names.index(name)
    assert (part.shared, bigger.third) == ("of the class", 3)
    assert not hasattr(part, "__dict__")
    with pytest.raises(AttributeError):
        part.fourth = 1


@pytest.mark.parametrize("recording", [False, True])
def test_stores_change_cells_and_lists(*, recording: bool):
    state = State(recording=recording)
    part = state.add(Part, "part", row=[4, 5])
    part.second, part.row[1] = 8, 6
    assert [state.value(i) for i in range(4)] == [0, 8, 4, 6]
    state.restore(1, 7)
    state.restore(3, 5)
    assert (part.second, list(part.row)) == (7, [4, 5])


def test_a_recording_state_journals_what_each_store_overwrites():
    state = State(recording=True)
    part = state.add(Part, "part", row=[4, 5])
    part.second = 8
    part.row[1] = 6
    assert words(state) == [(CELL, 1, 7), (CELL, 3, 5)]
    with pytest.raises(KeyError):
        part.fourth = 1


def test_a_store_to_a_field_of_the_list_kind_itself_is_an_error():
    part = State(recording=True).add(Part, "part", row=[1])
    with pytest.raises(KeyError):
        part.row = [2]


def test_regions_are_rounded_up_to_pages_and_lie_behind_each_other():
    state = State(recording=False)
    one, two = state.region("one", 10), state.region("two", PAGE_BYTES + 2)
    assert (one.size, two.size, two.base) == (PAGE_BYTES, 2 * PAGE_BYTES, PAGE_BYTES)
    assert state.region_at(PAGE_BYTES - 1) is one
    assert state.region_at(PAGE_BYTES) is two
    assert one.holds(0, PAGE_BYTES)
    assert one.holds(PAGE_BYTES, 0)
    assert not one.holds(1, PAGE_BYTES)
    assert not one.holds(-1, 2)


@pytest.mark.parametrize("recording", [False, True])
def test_words_records_and_bytes_are_little_endian(*, recording: bool):
    region = State(recording=recording).region("ram", 64)
    region.u16[3] = 0x1234
    assert region.bytes[6:8] == b"\x34\x12"
    assert region.u16[3] == region.plain_u16[3] == 0x1234
    region.writer(RECORD)(16, 1, 2, 3)
    assert region.reader(RECORD)(16) == (1, 2, 3)
    assert region.read(16, 8) == b"\1\0\2\0\3\0\0\0"
    region.write(20, b"abc")
    assert region.read(19, 5) == b"\0abc\0"


def test_loads_and_stores_of_memory_are_journaled():
    state = State(recording=True)
    state.region("other", 2)
    region = state.region("ram", 64)
    at = PAGE_BYTES
    region.u16[3] = 5
    assert region.u16[3] == 5
    region.writer(RECORD)(16, 1, 2, 3)
    region.reader(RECORD)(16)
    region.write(20, bytearray(b"abc"))
    assert words(state) == [
        (STORE, (at + 6) // 2, 0),
        (LOAD, (at + 6) // 2, 5),
        (SLICE, at + 16, 8),
        (READ_RECORD, at + 16, 8),
        (SLICE, at + 20, 3),
    ]
    assert state.journal is not None
    assert state.journal.blobs == bytes(8) + b"\3\0\0"


def test_undo_puts_everything_back_last_first():
    state = State(recording=True)
    part, region = state.add(Part, "part", row=[4, 5]), state.region("ram", 64)
    before = state.digest()
    part.first = 1
    part.first = 2
    region.u16[1] = 3
    region.u16[1] = region.u16[1] + 1
    region.write(2, b"abcd")
    region.write(4, b"xy")
    part.row[0] = 9
    region.reader(RECORD)(0)
    assert state.digest() != before
    journal = state.journal
    assert journal is not None
    assert state.undo(journal.tail, journal.blobs, len(journal.blobs)) == 0
    assert state.digest() == before


def test_snapshots_share_what_did_not_change_and_restore_everything():
    state = State(recording=True)
    part, other = state.add(Part, "part", row=[4, 5]), state.add(Part, "other", row=[1])
    region = state.region("ram", 2 * PAGE_BYTES)
    first = state.snapshot()
    digest = state.digest()
    part.second = 1
    part.row[0] = 8
    region.u16[0] = 1
    second = state.snapshot(first)
    assert [one is two for one, two in zip(first, second, strict=True)] == [False, False, True, True, False, True]
    assert state.digest() != digest
    state.load_snapshot(first)
    assert state.digest() == digest
    assert (other.second, part.row[0], region.u16[0]) == (7, 4, 0)
    state.load_snapshot(second)
    assert (part.second, part.row[0], region.u16[0]) == (1, 8, 1)


def test_a_digest_tells_states_apart_and_is_the_same_for_the_same_state():
    states = [State(recording=recording) for recording in (True, False)]
    for state in states:
        state.add(Part, "part", row=[4, 5])
        state.region("ram", 64)
    one, two = states
    assert one.digest() == two.digest()
    two.restore(1, 8)
    assert one.digest() != two.digest()
    one.restore(1, 8)
    one.regions[0].bytes[5] = 1
    assert one.digest() != two.digest()
    assert len(one.digest()) == 32


def test_fields_of_memory_have_owners_and_names():
    region = State(recording=False).region("ram", 64)
    region.name_stretch(32, 8, "late", lambda offset, size: f"late[{offset}:{size}]")
    region.name_stretch(0, 8, "early", lambda offset, size: f"early[{offset}]")
    assert region.field_at(3, 1) == ("early", "early[3]")
    assert region.field_at(39, 1) == ("late", "late[7:1]")
    assert region.field_at(8, 2) == ("", "")
    assert region.field_at(40, 2) == ("", "")
    assert State(recording=False).region("bare", 2).field_at(0, 2) == ("", "")


def test_words_are_little_endian_on_a_big_endian_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.sys, "byteorder", "big")
    region = memory.Region("ram", 16)
    region.u16[2] = 0x1234
    assert region.bytes[4:6] == b"\x34\x12"
    assert region.u16[2] == 0x1234


def test_journal_words_hold_thread_and_arc():
    assert cell_word(5) == 5 << 3 | CELL
    assert row_word(3, 40_000) & KIND == ROW
    assert thread_and_arc(row_word(3, 40_000)) == (3, 40_000)
    journal = Journal()
    journal.tail += [1, 2]
    journal.pack()
    journal.blobs += b"x"
    assert (list(journal.packed), journal.tail) == ([1, 2], [])
    journal.clear()
    assert (len(journal.packed), len(journal.blobs)) == (0, 0)


def test_records_read_from_any_address():
    region = State(recording=False).region("ram", 64)
    region.bytes[5:9] = struct.pack("<I", 77)
    assert region.reader(struct.Struct("<I"))(5) == (77,)
