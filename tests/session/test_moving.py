"""Going about in a session: where moves end, what questions stop, and that looking changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_lesson import answer_all, open_small, open_with

from virtviz.errors import LearnerError
from virtviz.lesson.model import When
from virtviz.session.session import NOTIFICATIONS, SAID_FOR_STEPS, Session

MOVES = (
    "next",
    "back",
    "home",
    "end",
    "next_crossing",
    "previous_crossing",
    "next_milestone",
    "previous_milestone",
    "next_notification",
    "previous_notification",
)


@pytest.fixture
def session():
    return open_with("[]")


def positions_of(session, move):
    """Make a move again and again; give where it ended each time."""
    found = []
    while getattr(session, move)():
        found.append(session.position)
    return found


def test_next_visits_every_position_and_then_says_no(session):
    assert positions_of(session, "next") == list(range(1, session.length + 1))
    assert not session.next()
    assert session.position == session.length


def test_back_visits_every_position_and_then_says_no(session):
    session.end()
    assert positions_of(session, "back") == list(range(session.length - 1, -1, -1))
    assert not session.back()


def test_positions_beyond_the_ends_mean_the_ends(session):
    assert session.go_to(10**9) == session.length
    assert session.go_to(-5) == 0


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("crossing", lambda step: bool(step.crossings)),
        ("milestone", lambda step: bool(step.milestone)),
        ("notification", lambda step: any(effect.kind in NOTIFICATIONS for effect in step.effects)),
    ],
)
def test_moves_by_kind_visit_exactly_the_steps_of_that_kind(session, kind, wanted):
    steps = [n for n in range(1, session.length + 1) if wanted(session.step(n))]
    assert positions_of(session, f"next_{kind}") == steps
    session.end()
    there = [n for n in steps if n < session.length]
    assert positions_of(session, f"previous_{kind}") == there[::-1]
    assert session.position == there[0]


def test_run_until_goes_to_the_first_step_that_matches_and_counts_from_here(session):
    assert session.run_until(When(milestone="in-ring"))
    assert session.step(session.position).op == "publish_avail_idx"
    reads = [n for n in range(1, session.length + 1) if session.step(n).op == "read_used_idx"]
    session.go_to(reads[0])
    assert session.run_until(When(op="read_used_idx", nth=2))
    assert session.position == reads[2]


def test_run_until_a_counter_has_a_value(session):
    assert session.run_until(When(counter={"host_copies": ">= 2"}))
    assert session.counters()["host_copies"] == 2
    assert session.counters(session.position - 1)["host_copies"] == 1


def test_run_until_stays_where_nothing_matches(session):
    session.go_to(10)
    assert not session.run_until(When(op="no_such_op"))
    assert session.position == 10


def test_run_until_stops_at_a_question():
    session = open_small()
    assert not session.run_until(When(milestone="received"))
    assert session.question is not None
    assert session.question.id == "next-of-driver"


def test_the_end_is_the_first_question_until_it_is_answered():
    session = open_small()
    asked = []
    session.end()
    while session.question is not None:
        asked.append(session.question.id)
        position = session.position
        assert not session.next()
        assert not session.next_crossing()
        session.end()
        assert session.go_to(session.length) == session.position == position
        session.answer(0)
        session.end()
    assert asked == ["next-of-driver", "who", "field", "used", "exits", "order", "copies"]
    assert session.position == session.length
    assert session.questions == len(session.verdicts) == 7


def test_a_question_is_no_obstacle_on_the_way_back():
    session = open_small()
    session.end()
    there = session.position
    assert session.back()
    assert session.position == there - 1
    session.home()
    assert session.go_to(there) == there
    assert session.question is not None


def test_an_answer_stays_when_stepping_back_and_is_final():
    session = open_small()
    session.end()
    there = session.position
    verdict = session.answer(1)
    session.home()
    session.go_to(there)
    assert session.question is None
    assert session.verdicts == (verdict,)
    with pytest.raises(LearnerError, match="nothing is asked"):
        session.answer(0)
    assert session.verdicts == (verdict,)


def test_an_answer_that_is_no_option_changes_nothing():
    session = open_small()
    session.end()
    for choice in (-1, 4):
        with pytest.raises(LearnerError, match=r"there are 1 to 4"):
            session.answer(choice)
    assert session.question is not None
    assert not session.verdicts


def test_not_sure_yet_opens_the_way_and_is_neither_right_nor_wrong():
    session = open_small()
    session.end()
    verdict = session.answer(None)
    assert verdict.said is None
    assert verdict.is_right is None
    assert session.next()
    assert (session.score.right, session.score.wrong, session.score.unsure) == (0, 0, 1)


def test_the_score_counts_right_wrong_and_open_questions():
    session = open_small()
    session.end()
    right = session._pose(session.moments(session.position)[0]).right
    assert session.answer(right).is_right
    session.end()
    right = session._pose(session.moments(session.position)[0]).right
    assert session.answer((right + 1) % 3).is_right is False
    assert str(session.score) == "1 of 7 right, 1 wrong, 5 not answered"


def test_what_was_said_stays_for_some_steps_until_something_newer_is_said():
    session = open_small()
    assert session.said == "A program wants to send."
    session.go_to(SAID_FOR_STEPS)
    assert session.said == "A program wants to send."
    session.next()
    assert session.said == ""
    session.end()
    assert session.said == "From here on the device may take the buffer."


def test_what_several_entries_say_at_one_position_is_said_together():
    session = open_with("[{id: a, when: start, say: One.}, {id: b, when: start, say: Two.}]")
    assert session.said == "One.\n\nTwo."


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.sampled_from(MOVES), st.integers(0, 400), st.sampled_from([None, "0", "1", "2"])), max_size=40
    )
)
def test_no_walk_passes_an_open_question_or_changes_the_run(walk):
    session = walk_session()
    gates = [moment.position for moment in session.run.moments if moment.predict is not None]
    for move in walk:
        before = session.position
        if isinstance(move, int):
            session.go_to(move)
        elif move in MOVES:
            getattr(session, move)()
        elif session.question is not None:
            session.answer(None if move is None else int(move))
        answered = len(session.verdicts)
        assert 0 <= session.position <= session.length
        assert answered == len(gates) or session.position <= gates[answered]
        assert session.step(session.position).n == session.position if session.position else True
        assert session.position == before or move not in (None, "0", "1", "2")
    session.run.machine.seek(session.length)
    assert session.run.machine.digest() == _end_digest()
    assert bytes(session.run.machine.timeline.arcs) == _arcs()


_reference: list[Session] = []


def walk_session():
    """Open another session on the same run: sessions share nothing but a run that does not change."""
    if not _reference:
        _reference.append(open_small())
        answer_all(_reference[0])
        _arcs(), _end_digest()
    return Session(_reference[0].run)


def _remembered(name, make):
    if name not in _facts:
        _facts[name] = make(_reference[0].run.machine)
    return _facts[name]


_facts: dict[str, object] = {}


def _arcs():
    return _remembered("arcs", lambda machine: bytes(machine.timeline.arcs))


def _end_digest():
    def digest(machine):
        machine.seek(machine.length)
        return machine.digest()

    return _remembered("digest", digest)


def test_cells_and_memory_are_those_of_the_position_asked_for(session):
    queue = next(queue for queue in session.header.queues if queue.direction == "out")
    published = next(n for n in range(1, session.length + 1) if session.step(n).op == "publish_avail_idx")
    avail_idx = queue.avail + 2
    assert session.memory(published, queue.region, avail_idx, 2) == b"\x01\x00"
    assert session.memory(published - 1, queue.region, avail_idx, 2) == b"\x00\x00"
    assert session.cell(0, f"{queue.driver}.last_used_idx") == 0
    assert session.cell(session.length, f"{queue.driver}.last_used_idx") == 1
    assert session.position == 0
