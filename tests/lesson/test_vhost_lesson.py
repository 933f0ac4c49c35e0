"""The lesson 3-vhost: every moment comes, every claim holds, and nobody has to press a key three hundred times."""

from __future__ import annotations

from collections import Counter

import pytest

from virtviz.lesson.loader import load
from virtviz.lesson.shelf import find
from virtviz.session.session import Session

LESSON = load(find("3-vhost"))


def fresh(**settings: object) -> Session:
    """Open the lesson."""
    return Session.open(LESSON, settings=[settings] if settings else ())


@pytest.fixture(scope="module")
def session():
    return fresh()


def moment(session: Session, name: str):
    """Give a moment, and the step it stands at."""
    (found,) = [moment for moment in session.run.moments if moment.id == name]
    return found, session.step(found.position) if found.position else None


def transmit_queue(session: Session):
    """Give the queue that the guest sends on."""
    (found,) = [queue for queue in session.header.queues if queue.name == "vm1.transmitq1"]
    return found


def total(session: Session, name: str) -> dict[str, int]:
    """Give the counters at a moment."""
    return session.run.counters(moment(session, name)[0].position)


def test_every_moment_comes_and_nothing_is_left_to_find(session):
    assert [m.id for m in session.run.moments] == [entry.id for entry in LESSON.script]
    assert session.run.findings == []
    assert session.problems == ()


def test_it_asks_questions_of_all_kinds():
    kinds = Counter(entry.predict.ask for entry in LESSON.script if hasattr(entry.predict, "ask"))
    assert kinds == {"next-thread": 1, "next-op": 1, "cell": 1, "value": 1, "order": 1, "choice": 1, "count": 4}


def test_every_question_has_one_right_answer_among_several():
    session = fresh()
    rights = {}
    while session.next() or session.question is not None:
        if session.question is not None:
            question = session.question
            verdict = session.answer(None)
            assert len(question.options) == len(set(question.options)) >= 3, question.id
            rights[question.id] = question.options[verdict.right]
    assert rights == {
        "make-visible": "avail.idx",
        "exit": "0",
        "guest-waits": "vhost-4002",
        "copies": "1",
        "ask-again": "1",
        "race": "full barrier",
        "order": "flow lookup, then buffer used, then frame on wire",
        "used": "1",
        "how-many-exits": "2",
        "why-no-kick": "avail_event is still 1, and avail.idx had passed it before.",
    }


def test_who_goes_by_milestones_sees_what_is_said():
    session, seen, presses = fresh(), set(), 0
    while True:
        if session.question is None:
            seen.add(session.said)
        else:
            # A question covers what was said before, but not what is said with it.
            seen |= {moment.say for moment in session.moments(session.position)}
            session.answer(0)
        presses += 1
        if not session.next_milestone() and session.question is None:
            break
    session.end()
    seen.add(session.said)
    missed = {
        entry.id
        for entry in LESSON.script
        if isinstance(entry.say, str) and not any(entry.say in said for said in seen)
    }
    # Both are for those who go step by step; `used` and `why-no-kick` come back to them.
    assert missed == {"completion-wanted", "nothing-written"}
    assert presses <= 60


def test_the_first_two_parts_can_be_stepped_one_by_one(session):
    assert moment(session, "three")[0].position <= 160
    assert session.length <= 320


# What it puts right, each where it can be seen. The numbers are those of the list of common mistakes.


def test_1_the_kick_is_an_exit_but_a_light_one(session):
    _, step = moment(session, "exit")
    assert [(c.kind, c.side) for c in step.crossings] == [("vm-exit", "guest")]
    assert total(session, "guest-waits")["heavy_exits"] == 0
    assert total(session, "guest-waits")["light_exits"] == 1


def test_3_the_worker_first_runs_where_its_nature_is_told(session):
    found, step = moment(session, "worker")
    assert (step.thread, step.milestone) == ("vhost-4002", "backend-awake")
    assert all(session.run.thread(n) != "vhost-4002" for n in range(1, found.position))


def test_6_the_callback_runs_in_the_thread_that_signals(session):
    _, step = moment(session, "woken")
    assert (step.thread, step.place, step.domain) == ("vm1.vcpu0", "vhost_net", "host-kernel")
    assert [(e.kind, e.target) for e in step.effects] == [("wakeup", "vhost-4002")]


def test_11_a_kick_is_an_exit_an_entry_and_a_wake_up_and_no_system_call(session):
    before, after = total(session, "visible"), total(session, "guest-waits")
    spent = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    # What the program does meanwhile, inside the guest: it returns from sendmsg() and calls recvmsg().
    assert (spent.pop("user_kernel.guest"), spent.pop("guest_syscalls")) == (2, 1)
    assert spent == {"guest_host": 2, "light_exits": 1, "wakeups": 1, "eventfd_signals": 1}


def test_16_the_payload_is_copied_once_on_the_host(session):
    assert total(session, "copies")["host_copies"] == 0
    assert total(session, "order")["host_copies"] == 1
    _, step = moment(session, "answer-copied")
    assert [(e.kind, e.bytes) for e in step.effects] == [("copy", 110)]


def test_18_a_lone_packet_raises_a_completion_interrupt(session):
    assert [(w.field, w.new) for w in moment(session, "completion-wanted")[1].writes if w.space == "mem"] == [
        ("used_event", 0)
    ]
    assert total(session, "on-the-wire")["interrupts"] == 1


def test_19_used_comes_before_the_wire(session):
    assert moment(session, "used")[0].position < moment(session, "on-the-wire")[0].position


def test_20_nothing_is_written_to_suppress_kicks(session):
    found, step = moment(session, "nothing-written")
    assert [write for write in step.writes if write.space == "mem"] == []
    queue = transmit_queue(session)
    flags = session.memory(found.position, queue.region, queue.used, 2)
    avail_event = session.memory(found.position, queue.region, queue.used + 4 + 8 * queue.size, 2)
    assert (flags, avail_event) == (b"\0\0", b"\0\0")


# The prices it states


def test_the_price_of_one_packet_out(session):
    spent = total(session, "on-the-wire")
    names = ("light_exits", "heavy_exits", "wakeups", "host_copies", "interrupts", "host_syscalls")
    assert [spent[name] for name in names] == [1, 0, 1, 1, 1, 0]


def test_the_price_of_the_way_in(session):
    out, both = total(session, "on-the-wire"), total(session, "price-in")
    assert {name: both[name] - out[name] for name in ("hw_interrupts", "wakeups", "host_copies", "interrupts")} == {
        "hw_interrupts": 1,
        "wakeups": 1,
        "host_copies": 1,
        "interrupts": 1,
    }
    assert (both["light_exits"], both["host_syscalls"], both["heavy_exits"]) == (1, 0, 0)


def test_the_price_of_three_packets(session):
    before, after = total(session, "price-in"), total(session, "bill")
    names = ("light_exits", "heavy_exits", "wakeups", "interrupts", "host_copies", "host_syscalls")
    assert [after[name] - before[name] for name in names] == [1, 0, 1, 1, 3, 0]


def test_the_worker_is_held_while_three_packets_queue_up(session):
    held, go = moment(session, "held")[0], moment(session, "go")[0]
    assert (held.held, go.released) == (("vhost-4002",), ("vhost-4002",))
    between = [session.step(n) for n in range(held.position + 1, go.position + 1)]
    assert {step.thread for step in between} == {"vm1.vcpu0"}
    assert [step.outcome for step in between if step.op == "check_kick"] == ["no kick", "no kick"]
    assert {step.held for step in between[:-1]} == {("vhost-4002",)}


def test_the_burst_is_used_by_one_store_that_passes_used_event(session):
    found, step = moment(session, "used-at-once")
    assert [(w.field, w.old, w.new) for w in step.writes if w.space == "mem"] == [("used.idx", 1, 4)]
    queue = transmit_queue(session)
    used_event = session.memory(found.position, queue.region, queue.avail + 4 + 2 * queue.size, 2)
    assert used_event == b"\2\0"


@pytest.mark.parametrize(
    "settings",
    [
        {"flows": "unknown"},
        {"features": "none"},
        {"apicv": "off"},
        {"vcpu": "halted"},
        {"far_port": "veth"},
        {"profile": "recorded"},
        {"queue.start": 65533},
        {"napi_tx": "off"},
    ],
    ids=str,
)
def test_it_runs_to_the_end_under_other_settings(settings):
    session = fresh(**settings)
    assert not session.truncated
    assert not any("is held to the end" in str(finding) for finding in session.run.findings)
    session.end()
    while session.question is not None:
        session.answer(None)
        session.end()
    assert session.position == session.length
    assert session.counters(session.length)["drops"] == 0
