"""Carrying out a lesson's script while it runs."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_lesson import answer_all, open_small, open_with

from virtviz.engine.trace import Trace
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate
from virtviz.session import run as running


def where(session, entry):
    return next(moment.position for moment in session.run.moments if moment.id == entry)


def test_without_a_script_a_lesson_is_the_machine_running_by_itself():
    session = open_with("[]")
    plain = simulate(
        make_world({"flows": "known"}), make_traffic([Item("echo"), Item("answer", outgoing=False, answers=0)])
    )
    plain.machine.run()
    assert session.run.machine.timeline.arcs == plain.machine.timeline.arcs
    assert session.run.machine.timeline.threads == plain.machine.timeline.threads


def test_watching_a_script_does_not_change_the_run():
    watched = open_with("[{id: never, when: {op: kick, nth: 99}, say: x}]")
    assert watched.run.machine.timeline.arcs == open_with("[]").run.machine.timeline.arcs


def test_moments_are_those_that_fired_at_a_position():
    session = open_small()
    assert [moment.id for moment in session.moments(0)] == ["hello"]
    n = where(session, "next-of-driver")
    assert session.step(n).op == "publish_avail_idx"
    (moment,) = session.moments(n)
    assert moment.say.startswith("From here on")
    assert session.moments(n + 1) == ()
    assert [moment.id for moment in session.moments(session.length)] == ["bye"]


def test_a_held_thread_takes_no_step_and_every_step_says_who_is_held():
    session = open_small()
    first, last = where(session, "used"), where(session, "go")
    assert session.moments(first)[0].held == ("vhost-4002",)
    assert session.moments(last)[0].released == ("vhost-4002",)
    assert first < last
    for n in range(1, session.length + 1):
        step = session.step(n)
        assert step.held == (("vhost-4002",) if first <= n < last else ())
        assert step.thread != "vhost-4002" or not first < n <= last
    assert session.step(last + 1).thread == "vhost-4002"


def test_an_entry_at_the_end_that_releases_a_thread_lets_the_lesson_go_on():
    session = open_small()
    assert where(session, "go") < where(session, "bye") == session.length
    received = [n for n in range(1, session.length + 1) if session.step(n).milestone == "received"]
    assert len(received) == 2
    assert session.problems == ()


def test_a_step_can_release_too():
    session = open_with(
        "[{id: stop, when: {milestone: in-ring}, hold: vhost}, {id: go, when: {op: return_to_user}, release: vhost}]"
    )
    assert where(session, "stop") < where(session, "go") < session.length
    assert session.problems == ()


def test_several_end_entries_release_one_after_the_other():
    session = open_with(
        "[{id: stop, when: start, hold: vhost}, {id: stop2, when: start, hold: eth0},"
        " {id: go, when: end, release: vhost}, {id: go2, when: end, release: eth0}]"
    )
    assert where(session, "go") < where(session, "go2") < session.length
    assert session.problems == ()


def test_a_thread_may_be_named_without_its_machine():
    session = open_with("[{id: stop, when: {milestone: on-wire}, hold: vcpu0}, {id: go, when: end, release: vcpu0}]")
    assert session.moments(where(session, "stop"))[0].held == ("vm1.vcpu0",)
    assert session.problems == ()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("[{id: a, when: {op: kick, nth: 9}, say: x}]", "script.a.when: this never happens in the run"),
        (
            "[{id: a, when: start, hold: vhost}]",
            "script: vhost-4002 is held to the end: nothing that happens releases it",
        ),
        ("[{id: a, when: {op: kick}, release: vhost}]", "script.a.release: 'vhost' is not held at that moment"),
    ],
)
def test_a_script_that_does_not_work_out_says_so(script, problem):
    assert problem in map(str, open_with(script).problems)


def test_an_unknown_thread_is_a_finding_that_names_those_there_are():
    session = open_with("[{id: a, when: {op: kick}, hold: vmost}]")
    assert "vhost-4002" in str(session.problems[0])


def test_a_lesson_that_ends_with_a_held_thread_ends_where_nothing_else_can_move():
    session = open_with("[{id: a, when: {milestone: in-ring}, hold: vhost}]")
    session.end()
    assert session.position == session.length
    assert not session.truncated
    assert all(session.step(n).thread != "vhost-4002" for n in range(1, session.length + 1))


def test_a_lesson_in_which_nothing_can_move_has_no_steps_and_can_still_ask():
    session = open_with(
        "[{id: stop, when: start, hold: vm1}, {id: a, when: start, predict: {ask: next-op, text: Q}},"
        " {id: b, when: end, predict: {ask: cell, text: Q}}, {id: c, when: end, predict: {ask: next-thread, text: Q}}]"
    )
    assert session.length == 0
    answer_all(session)
    assert len(session.verdicts) == 3
    assert not session.next()
    assert session.counters()["guest_syscalls"] == 0


CONDITIONS = [
    "start",
    "end",
    *({"milestone": name} for name in ("in-ring", "notified", "fetched", "at-switch", "on-wire", "used", "polled")),
    *({"op": name} for name in ("kick", "take_vector", "wake_worker", "publish_used_idx", "wait")),
    *({"effect": "irq-inject", "nth": nth} for nth in (1, 2)),
    {"counter": {"wakeups": ">= 1"}},
]
ENTRY = st.fixed_dictionaries(
    {"when": st.sampled_from(CONDITIONS)},
    optional={name: st.sampled_from(["vhost", "vm1", "eth0", "softirq", "v"]) for name in ("hold", "release")},
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(ENTRY, max_size=6))
def test_no_script_lets_a_held_thread_move_or_gives_two_different_runs(entries):
    script = yaml.safe_dump([{"id": f"e{i}", "say": "x", **entry} for i, entry in enumerate(entries)])
    session, again = open_with(script), open_with(script)
    assert session.run.machine.timeline.threads == again.run.machine.timeline.threads
    assert session.run.machine.timeline.arcs == again.run.machine.timeline.arcs
    assert session.run.moments == again.run.moments
    fired = {moment.id for moment in session.run.moments}
    never = {str(finding).split(".")[1] for finding in session.problems if "never happens" in finding.what}
    assert fired | never == {f"e{i}" for i in range(len(entries))}
    for n in range(1, session.length + 1):
        assert session.run.thread(n) not in session.run.held_after(n - 1)


def test_a_run_that_is_too_long_is_ended_and_says_so(monkeypatch):
    monkeypatch.setattr(running, "STEPS_MAX", 100)
    for script in ("[]", "[{id: a, when: {op: kick, nth: 9}, say: x}]"):
        session = open_with(script)
        assert session.length == 100
        assert session.truncated
        assert any(finding.where == "scenario" for finding in session.problems)


def test_steps_built_while_the_script_was_watched_are_those_built_afterwards():
    session = open_small()
    fresh = Trace(session.run.machine, session.run.held_after)
    for n in range(1, session.length + 1):
        assert session.step(n) == fresh.step(n)


def test_the_same_lesson_gives_the_same_run():
    assert open_small().run.machine.timeline.arcs == open_small().run.machine.timeline.arcs
