"""Arithmetic on indices that wrap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtviz.ring.index import U16, need_event, pending

u16 = st.one_of(st.integers(0, U16), st.sampled_from((0, 1, 2, 0x7FFF, 0x8000, 0xFFFE, U16)))


@given(old=u16, added=st.integers(0, 300), away=st.one_of(st.integers(-3, 303), st.integers(-40_000, 40_000)))
def test_need_event_agrees_with_counting_one_by_one(old: int, added: int, away: int):
    """The entry the other side asked about is among those just published: seen by publishing them one at a time."""
    event = old + away & U16
    published = [old + i & U16 for i in range(added)]
    assert need_event(event, old + added & U16, old) == (event in published)


@given(u16, st.integers(0, U16))
def test_pending_counts_what_was_added_across_the_wrap(older: int, added: int):
    assert pending(older + added & U16, older) == added


@pytest.mark.parametrize(
    ("old", "new", "event", "tells"),
    [
        (5, 6, 5, True),
        (5, 6, 4, False),
        (5, 6, 6, False),
        (5, 9, 7, True),
        (65535, 1, 65535, True),
        (65535, 1, 0, True),
        (65535, 1, 1, False),
        (65535, 1, 65534, False),
    ],
)
def test_virtio_2_7_10_worked_examples(old: int, new: int, event: int, *, tells: bool):
    assert need_event(event, new, old) is tells


def test_an_event_that_stays_at_0_notifies_once_in_65536_entries():
    told = [new for new in range(1, 3 * 65536) if need_event(0, new & U16, new - 1 & U16)]
    assert told == [1, 65537, 131073]


def test_nothing_published_tells_nobody():
    assert not any(need_event(event, 7, 7) for event in range(0, 65536, 7))
