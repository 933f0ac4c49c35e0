"""Questions: every kind's right answer is what the machine did."""

import itertools
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_lesson import open_small, open_with

from virtviz.paths.describe import QueueInfo
from virtviz.session.options import OPTIONS_MAX, THEN, numbers, orders, ring_fields
from virtviz.session.questions import NOBODY


def asked(session, entry):
    """Go to a question by answering all before it; give the question and its verdict."""
    while True:
        session.end()
        question = session.question
        assert question is not None, f"{entry} is never asked"
        verdict = session.answer(None)
        if question.id == entry:
            return question, verdict


def the_one(predict, when="{milestone: notified}"):
    session = open_with(f"[{{id: q, when: {when}, predict: {predict}}}]")
    question, verdict = asked(session, "q")
    return session, question, verdict


def test_next_thread_is_the_next_one_that_is_not_the_running_one():
    session = open_small()
    question, verdict = asked(session, "who")
    now = session.step(question.position).thread
    assert session.step(question.position + 1).thread == now
    following = itertools.dropwhile(
        lambda name: name == now, (session.step(n).thread for n in range(question.position, 999))
    )
    assert verdict.answer == next(following) == "vhost-4002"
    assert question.text == "Who runs now? (other than vm1.vcpu0)"
    assert now not in question.options
    assert verdict.why == "The signal woke a worker. vhost-4002 took step 30: take the next work."


def test_next_thread_before_the_first_step_asks_for_any_thread():
    session = open_with("[{id: q, when: start, predict: {ask: next-thread, text: Who begins}}]")
    question, verdict = asked(session, "q")
    assert question.text == "Who begins"
    assert verdict.answer == session.step(1).thread


def test_next_thread_lists_threads_in_the_order_of_the_world():
    session = open_small()
    question, _ = asked(session, "who")
    names = [thread.name for thread in session.header.threads]
    assert list(question.options) == sorted(question.options, key=names.index)


def test_next_op_is_what_the_running_thread_does_next():
    session = open_small()
    question, verdict = asked(session, "next-of-driver")
    assert verdict.answer == session.step(question.position + 1).title
    assert session.step(question.position).thread in question.text


def test_next_op_looks_past_other_threads():
    session, question, verdict = the_one("{ask: next-op, text: And then}", "{op: look, outcome: wait}")
    thread = session.step(question.position).thread
    n = next(n for n in range(question.position + 1, 999) if session.step(n).thread == thread)
    assert n > question.position + 1
    assert verdict.answer == session.step(n).title


def test_cell_is_the_ring_field_that_is_written_next_in_the_queue_at_hand():
    session = open_small()
    question, verdict = asked(session, "field")
    queue = session.step(question.position).queue
    writes = [w.field for n in range(question.position + 1, 120) for w in session.step(n).writes if w.owner == queue]
    assert verdict.answer == writes[0] == "avail_event"
    assert queue in question.text


def test_cell_takes_the_next_ring_that_is_written_where_the_step_has_no_queue():
    session, question, verdict = the_one("{ask: cell, text: Which}", "{milestone: at-switch}")
    assert session.step(question.position).queue == ""
    assert verdict.answer == "used.ring[0]"


def test_cell_before_the_first_step_is_the_first_ring_field_of_all():
    session = open_small("say: A program wants to send.", "predict: {ask: cell, text: Which}")
    question, verdict = asked(session, "hello")
    assert verdict.answer == "used_event"
    assert question.text == "Which (in vm1.transmitq1)"


def test_value_is_read_from_memory_at_the_moment_asked_about():
    session = open_small()
    question, verdict = asked(session, "used")
    n = next(n for n in range(question.position, 999) if session.step(n).milestone == "used")
    queue = next(queue for queue in session.header.queues if queue.direction == "out")
    assert verdict.answer == str(int.from_bytes(session.memory(n, queue.region, queue.used + 2, 2), "little")) == "2"


def test_value_without_a_moment_is_that_of_now():
    *_, verdict = the_one("{ask: value, text: What, field: avail.idx}")
    assert verdict.answer == "1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("transmitq1.avail.idx", "1"),
        ("vm1.receiveq1.avail.idx", "256"),
        ("'avail.ring[0]'", "0"),
        ("'desc[0].len'", "110"),
        ("'used.ring[0].len'", "0"),
        ("vm1.transmitq1.last_used_idx", "0"),
        ("transmitq1.last_used_idx", "0"),
    ],
)
def test_value_finds_fields_of_rings_and_cells_by_name(field, value):
    *_, verdict = the_one(f"{{ask: value, text: What, field: {field}}}")
    assert verdict.answer == value


@pytest.mark.parametrize(
    "field",
    [
        "nonsense",
        "last_used_idx",
        "nowhere.avail.idx",
        "'avail.ring[999]'",
        "'desc[0].colour'",
        "'avail.ring[0].id'",
        "'desc[0]'",
    ],
)
def test_value_of_a_field_that_is_none_is_a_finding(field):
    session, *_ = the_one(f"{{ask: value, text: What, field: {field}}}")
    assert "there is no field" in str(session.problems[0])


def test_count_is_a_counter_at_the_moment_asked_about():
    session = open_small()
    question, verdict = asked(session, "exits")
    n = next(n for n in range(question.position, 999) if session.step(n).milestone == "received")
    assert verdict.answer == str(session.counters(n)["light_exits"]) == "2"


def test_count_until_the_end_is_what_the_whole_run_costs():
    session, _, verdict = the_one("{ask: count, text: How many, counter: wakeups, until: end}")
    assert not session.problems
    assert verdict.answer == str(session.counters(session.length)["wakeups"])


def test_count_adds_up_the_parts_of_a_counter():
    session, question, verdict = the_one("{ask: count, text: How many, counter: user_kernel}")
    counters = session.counters(question.position)
    assert verdict.answer == str(counters["user_kernel.guest"] + counters["user_kernel.host"])


def test_order_is_that_of_the_steps():
    session = open_small()
    _, verdict = asked(session, "order")
    texts = {
        "used": "the buffer is used",
        "on-wire": "the frame is on the wire",
        "completed": "the driver takes it back",
    }
    milestones = [session.step(n).milestone for n in range(session.position + 1, session.length + 1)]
    expected = dict.fromkeys(milestone for milestone in milestones if milestone in texts)
    assert verdict.answer == THEN.join(texts[milestone] for milestone in expected)


def test_choice_is_the_authors():
    question, verdict = asked(open_small(), "copies")
    assert question.options == ("never", "once", "twice")
    assert verdict.answer == "once"
    assert verdict.why == "vhost-net copies it out of the guest."


def test_every_question_has_three_to_five_options_all_different_and_one_right():
    session = open_small()
    for moment in session.run.moments:
        if moment.predict is not None:
            question, verdict = asked(session, moment.id)
            assert 3 <= len(question.options) <= 5
            assert len(set(question.options)) == len(question.options)
            assert 0 <= verdict.right < len(question.options)


def test_right_answers_do_not_always_stand_at_the_same_place():
    session = open_small()
    places = {asked(session, moment.id)[1].right for moment in session.run.moments if moment.predict is not None}
    assert len(places) > 2


def test_an_author_may_name_the_options_and_the_thread_by_its_beginning():
    session, question, verdict = the_one("{ask: next-thread, text: Who, options: [eth0, vhost, handler1]}")
    assert question.options == ("eth0", "vhost-4002", "handler1")
    assert verdict.right == 1
    assert session.problems == ()


def test_options_without_the_right_answer_get_it_and_are_a_finding():
    session, question, verdict = the_one("{ask: count, text: How many, counter: light_exits, options: ['5', '6']}")
    assert verdict.answer == "1"
    assert question.options == ("1", "5", "6")
    assert "not among the options" in str(session.problems[0])


@pytest.mark.parametrize(
    ("predict", "when", "problem"),
    [
        ("{ask: next-thread, text: Q}", "end", "nothing follows"),
        ("{ask: next-op, text: Q}", "end", "does nothing more"),
        ("{ask: cell, text: Q}", "end", "no field of a ring is written after this"),
        ("{ask: count, text: Q, counter: coffees}", "start", "there is no counter 'coffees'"),
        ("{ask: count, text: Q, counter: light_exits, until: {op: nothing_like_this}}", "start", "does not come true"),
        (
            "{ask: order, text: Q, of: {a: {milestone: sent}, b: {milestone: sent}, c: {milestone: used}}}",
            "start",
            "same step",
        ),
        (
            "{ask: order, text: Q, of: {a: {milestone: sent}, b: {milestone: used}}}",
            "{milestone: in-ring}",
            "'a' does not happen",
        ),
    ],
)
def test_a_question_that_does_not_work_out_is_a_finding_and_can_still_be_answered(predict, when, problem):
    session, _, verdict = the_one(predict, when)
    assert verdict.answer
    assert problem in str(session.problems[0])


def test_nobody_is_the_answer_where_nothing_follows():
    *_, verdict = the_one("{ask: next-thread, text: Q}", "end")
    assert verdict.answer == NOBODY


@pytest.mark.parametrize("seed", ["1", "77"])
def test_the_same_questions_are_asked_under_any_hash_seed(seed):
    program = (
        "from small_lesson import *\n"
        "s = open_small()\n"
        "print([(m.id, m.position, s._pose(m)) for m in s.run.moments if m.predict])\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    session = open_small()
    here = [(m.id, m.position, session._pose(m)) for m in session.run.moments if m.predict]
    assert told.stdout.strip() == repr(here)


# Options by themselves


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.text(max_size=5), st.sampled_from([0, 8, 256]))
def test_numbers_hold_the_right_one_the_present_one_and_stay_in_range(right, now, key, slots):
    made = numbers(right, now, key=key, slots=slots)
    assert right in made
    assert now in made
    assert made in (sorted(set(made)), sorted(set(made), reverse=True))
    assert 3 <= len(made) <= OPTIONS_MAX
    assert 0 <= min(made) <= max(made) <= 0xFFFF
    assert not slots or right % slots in made


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=5, unique=True), st.text(max_size=5))
def test_orders_are_different_orders_of_the_same_events(events, key):
    made = orders(events, key)
    assert THEN.join(events) in made
    assert len(set(made)) == len(made) <= OPTIONS_MAX
    assert len(made) >= (2 if len(events) == 2 else 4)


QUEUE = QueueInfo("q", "out", "ram", 8, 0, 128, 152, event_idx=True, driver="q", device="d")


@pytest.mark.parametrize(
    ("right", "written", "fields"),
    [
        ("avail.idx", [], ["desc[0]", "avail.idx", "avail.ring[0]", "used.idx"]),
        ("used.ring[3]", ["used.idx"], ["avail.idx", "avail.ring[3]", "used.idx", "used.ring[3]"]),
        ("avail_event", ["used.ring[1]"], ["avail.idx", "avail.ring[1]", "used.ring[1]", "avail_event"]),
    ],
)
def test_ring_fields_stand_as_in_memory(right, written, fields):
    assert ring_fields(right, written, QUEUE) == fields
