"""A machine that keeps time and no past does step for step what a recording one does, and knows who was busy."""

from __future__ import annotations

import pytest

from virtviz.engine.counting import CountingMachine
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.schedule import BySimulatedTime
from virtviz.engine.timed import TimedMachine
from virtviz.engine.trace import Trace
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, Pause, make_traffic
from virtviz.paths.wiring import simulate

UDP = {"kind": "udp", "length": 18}
BURST = [Item(**UDP)] * 40
IN = [Item(outgoing=False, **UDP)] * 20
PING = [Item(), Item(outgoing=False, answers=0), Pause(), *BURST[:3]]
WORLDS = [
    {},
    {"flows": "known", "path": "virtio-qemu"},
    {"flows": "known", "path": "virtio-qemu", "ioeventfd": "off"},
    {"profile": "recorded", "vcpu": "halted"},
    {"store_buffer": "on", "flows": "known"},
]


def machine_for(items, settings, *, recording, schedule="time"):
    return simulate(make_world(settings, {"schedule": schedule}), make_traffic(items), recording=recording).machine


@pytest.mark.parametrize("items", [BURST, IN, PING], ids=["burst", "in", "ping"])
@pytest.mark.parametrize("settings", WORLDS, ids=str)
def test_it_does_what_a_recording_machine_does_in_the_same_time(items, settings):
    timed, recorded = (machine_for(items, settings, recording=recording) for recording in (False, True))
    assert isinstance(timed, TimedMachine)
    assert isinstance(recorded, RecordingMachine)
    assert timed.run() == recorded.run()
    assert timed.hits == recorded.hits
    assert [thread.me.clock for thread in timed.threads] == [thread.me.clock for thread in recorded.threads]


def test_how_a_run_is_cut_up_changes_nothing():
    whole, pieces = (machine_for(PING, {}, recording=False) for _ in range(2))
    whole.run()
    while pieces.run(7):
        pass
    assert (pieces.hits, pieces.busy, pieces.passed) == (whole.hits, whole.busy, whole.passed)


def test_busy_time_is_the_sum_of_a_threads_steps():
    timed, recorded = (machine_for(PING, {}, recording=recording) for recording in (False, True))
    timed.run()
    recorded.run()
    busy = [0] * len(recorded.threads)
    for n in range(recorded.length):
        recorded.seek(n + 1)
        index = recorded.timeline.threads[n]
        busy[index] += recorded.duration(recorded.arc_at(n), recorded.threads[index].me)
    assert timed.busy == busy


def test_milestones_are_noted_with_packet_and_time():
    timed, recorded = (machine_for(PING, {}, recording=recording) for recording in (False, True))
    timed.run()
    recorded.run()
    trace, clocks = Trace(recorded), {thread.name: thread.me for thread in recorded.threads}
    wanted = []
    for n in range(1, len(trace) + 1):
        step = trace.step(n)
        if step.milestone:
            wanted.append((step.milestone, step.packet, clocks[step.thread].clock))
    assert list(timed.milestones()) == wanted


def test_threads_run_in_parallel():
    timed = machine_for(BURST * 5, {"flows": "known"}, recording=False)
    timed.run()
    whole = max(thread.me.clock for thread in timed.threads)
    assert sum(timed.busy) > whole
    assert max(timed.busy) <= whole


def test_only_where_it_is_asked_for_does_time_decide():
    assert isinstance(machine_for(PING, {}, recording=False, schedule="readable"), CountingMachine)
    assert machine_for(PING, {}, recording=True, schedule="readable").scheduler is None
    assert isinstance(machine_for(PING, {}, recording=True).scheduler, BySimulatedTime)


def test_positions_can_be_visited_in_a_run_by_time():
    machine = machine_for(BURST, {"flows": "known"}, recording=True)
    machine.run()
    digests = {}
    for position in range(0, machine.length + 1, 37):
        machine.seek(position)
        digests[position] = machine.digest()
    for position in reversed(digests):
        machine.seek(position)
        assert machine.digest() == digests[position]


def test_a_long_run_by_time_is_recorded_as_it_is_counted():
    # Longer than what a scout is sent ahead for, which knows the readable order only.
    items = BURST * 10
    timed, recorded = (machine_for(items, {"flows": "known"}, recording=recording) for recording in (False, True))
    assert timed.run() == recorded.run() > 8192 * 2
    assert timed.hits == recorded.hits
