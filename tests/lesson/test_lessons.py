"""Every lesson on the shelf, run: all its moments come, all its questions can be answered, and its prices are right."""

from __future__ import annotations

from collections import Counter

import pytest

from virtviz.lesson.loader import load
from virtviz.lesson.shelf import find, shelf
from virtviz.session.session import Session


@pytest.fixture(scope="module", params=shelf(), ids=lambda lesson: lesson.id)
def session(request):
    return Session.open(load(request.param.path))


def test_every_moment_comes_and_every_question_has_its_answer(session):
    assert {moment.id for moment in session.run.moments} == {entry.id for entry in session.lesson.script}
    assert [*map(str, session.problems)] == []
    assert not session.truncated


def test_a_lesson_can_be_gone_through_in_the_time_it_states(session):
    # Half a minute for a question, and three steps or one milestone in ten seconds.
    milestones = sum(bool(session.step(n).milestone) for n in range(1, session.length + 1))
    assert session.questions / 2 + milestones / 6 <= session.lesson.minutes
    assert steps_to_look_at(session) <= 25 * session.lesson.minutes


def steps_to_look_at(session):
    """Count the steps to be looked at: from power-on, when hundreds of registers are reached alike, three of a kind."""
    if session.lesson.world.get("begin") != "power-on":
        return session.length
    kinds = Counter(session.step(n).op for n in range(1, session.length + 1))
    return sum(min(count, 3) for count in kinds.values())


def test_the_first_packet_costs_what_the_first_lesson_says():
    session = Session.open(load(find("1-first-packet")))
    (bill,) = [moment for moment in session.run.moments if moment.id == "bill"]
    assert bill.say.startswith(
        "What did it cost? One system call in the guest, one VM exit, one thread woken, one copy on the host, "
        "one interrupt."
    )
    spent = session.counters(session.length)
    names = ("guest_syscalls", "light_exits", "wakeups", "host_copies", "interrupts", "heavy_exits", "host_syscalls")
    assert [spent[name] for name in names] == [1, 1, 1, 1, 1, 0, 0]
