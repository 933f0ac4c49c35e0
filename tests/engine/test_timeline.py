"""The timeline: back, anywhere, other branches, checkpoints, and the scout that goes ahead on long runs."""

from __future__ import annotations

import pytest
from toy import Toy, make_toy

from virtviz.engine import counting, recording, timeline
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.schedule import BySimulatedTime, Chosen
from virtviz.errors import ModelError

APP, WORKER = 0, 1


def recorded(toy: Toy) -> RecordingMachine:
    assert isinstance(toy.machine, RecordingMachine)
    return toy.machine


def digests(machine: RecordingMachine) -> list[str]:
    """Give the fingerprint of every position, by seeking to each in turn."""
    found = []
    for position in range(machine.length + 1):
        machine.seek(position)
        found.append(machine.digest())
    return found


@pytest.fixture
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Checkpoints, windows and scouts after a few steps, so that short runs meet all of them."""
    steps = 64
    for module in (recording, counting, timeline):
        monkeypatch.setattr(module, "CHECKPOINT_STEPS", steps)
    monkeypatch.setattr(recording, "WINDOW_STEPS", 2 * steps)
    monkeypatch.setattr(recording, "SCOUT_AFTER", 2 * steps)
    return steps


def test_back_restores_every_step_and_stops_at_the_beginning():
    machine = recorded(make_toy(3))
    seen = [machine.digest()]
    while machine.step():
        seen.append(machine.digest())
    assert machine.length == len(seen) - 1
    for position in range(machine.length - 1, -1, -1):
        assert machine.back()
        assert (machine.position, machine.digest()) == (position, seen[position])
    assert not machine.back()
    assert all(hits == 0 for hits in machine.hits)


def test_steps_taken_again_are_the_recorded_ones_whatever_the_scheduler():
    machine = recorded(make_toy(3))
    machine.run(scheduler=BySimulatedTime())
    seen = digests(machine)
    rows = list(machine.timeline.threads)
    machine.seek(4)
    assert machine.step()
    assert machine.run(6) == 6
    assert machine.digest() == seen[11]
    assert machine.run() == machine.length - 11
    assert list(machine.timeline.threads) == rows


def test_only_recorded_positions_can_be_visited():
    machine = recorded(make_toy(1))
    machine.run()
    for position in (-1, machine.length + 1):
        with pytest.raises(ModelError, match=f"position {position} is not in 0..{machine.length}"):
            machine.seek(position)


def test_another_step_in_the_past_needs_a_cut_first():
    machine = recorded(make_toy(3))
    machine.run()
    machine.seek(5)
    with pytest.raises(ModelError, match="cut the timeline"):
        machine.move(WORKER)
    future = machine.cut()
    assert (machine.length, future.start) == (5, 5)
    assert machine.move(WORKER)
    assert machine.timeline.threads[5] == WORKER


def test_a_branch_that_was_left_can_be_put_back_and_exchanged():
    machine = recorded(make_toy(3))
    machine.run()
    first = digests(machine)
    machine.seek(7)
    machine.seek(6)
    left = machine.cut()
    machine.run(scheduler=BySimulatedTime())
    second = digests(machine)
    assert second[:7] == first[:7]
    assert second != first
    replaced = machine.put_back(left)
    assert machine.position == 6
    assert digests(machine) == first
    machine.put_back(replaced)
    assert digests(machine) == second


def test_cutting_at_the_end_takes_nothing_away():
    machine = recorded(make_toy(2))
    machine.run()
    length = machine.length
    assert len(machine.cut().arcs) == 0
    assert machine.length == length


def test_begin_here_makes_the_present_the_first_position():
    toy = make_toy(3)
    machine = recorded(toy)
    machine.run(20)
    toy.cells.left += 0
    machine.begin_here()
    assert (machine.position, machine.length, sum(machine.hits)) == (0, 0, 0)
    assert {thread.me.clock for thread in machine.threads} == {0}
    here = machine.digest()
    machine.run()
    machine.seek(0)
    assert machine.digest() == here
    assert not machine.back()


def test_a_waiting_thread_goes_on_waiting_from_a_new_beginning():
    machine = recorded(make_toy(1))
    machine.run()
    machine.begin_here()
    app, worker = (thread.me for thread in machine.threads)
    assert (app.parked, worker.parked) == (1, 0), "the worker sleeps, it does not wait for a condition"


def test_repeating_must_take_the_same_way_and_overwrite_the_same():
    toy = make_toy(3)
    machine = recorded(toy)
    machine.run()
    for _ in range(machine.length - 20):
        machine.back()
    number = toy.state.names.index("toy.number")
    toy.state.restore(number, toy.cells.number + 2)
    with pytest.raises(ModelError, match=r"repeating steps \d+ to \d+ changed other cells"):
        machine.run()
    machine.seek(0)
    toy.state.restore(toy.state.names.index("toy.left"), 0)
    with pytest.raises(ModelError, match=r"repeating steps \d+ to \d+ took another way"):
        machine.seek(10)


def test_seeking_uses_whatever_is_nearest(short_stretches: int):
    machine = recorded(make_toy(60))
    machine.make_scout = None
    machine.run()
    assert machine.length > 8 * short_stretches
    assert [c.position for c in machine.timeline.checkpoints][:3] == [0, short_stretches, 2 * short_stretches]
    assert machine.timeline.window_start > 0
    fresh = recorded(make_toy(60))
    for position in (3, 200, 199, 131, 128, 127, machine.length, 0, 64, 65, machine.length - 1):
        machine.seek(position)
        again = recorded(make_toy(60))
        again.run(position)
        assert machine.digest() == again.digest(), position
    fresh.run()
    machine.seek(machine.length)
    assert machine.digest() == fresh.digest()


def test_back_goes_on_before_the_window_begins(short_stretches: int):
    machine = recorded(make_toy(60))
    machine.make_scout = None
    machine.run()
    start = machine.timeline.window_start
    machine.seek(start + 2)
    for position in range(start + 1, start - 2 * short_stretches, -1):
        assert machine.back()
        assert machine.position == position
    fresh = recorded(make_toy(60))
    fresh.run(machine.position)
    assert fresh.digest() == machine.digest()


def test_a_position_without_a_checkpoint_before_it_is_an_error(short_stretches: int):
    machine = recorded(make_toy(60))
    machine.make_scout = None
    machine.run()
    machine.timeline.checkpoints.clear()
    with pytest.raises(ModelError, match="no checkpoint before position 1"):
        machine.seek(1)
    machine.seek(machine.timeline.window_start)
    with pytest.raises(ModelError, match="no checkpoint before position"):
        machine.back()


@pytest.mark.parametrize("limit", [None, 1000, 1001, 1063])
def test_a_scout_records_what_the_machine_itself_would_have(short_stretches: int, limit: int | None):
    alone, scouted = recorded(make_toy(100)), recorded(make_toy(100))
    alone.make_scout = None
    assert scouted.run(limit) == alone.run(limit)
    assert list(scouted.timeline.arcs) == list(alone.timeline.arcs)
    assert list(scouted.timeline.threads) == list(alone.timeline.threads)
    assert scouted.digest() == alone.digest()
    assert scouted.hits == alone.hits
    for position in (short_stretches * 3 + 1, 5, scouted.length):
        scouted.seek(position)
        alone.seek(position)
        assert scouted.digest() == alone.digest()
    assert scouted.run() == alone.run()
    assert scouted.digest() == alone.digest()


def test_a_scout_finds_nothing_to_do_behind_the_end(short_stretches: int):
    machine = recorded(make_toy(100))
    length = machine.run()
    end = machine.digest()
    machine.seek(0)
    assert machine.run() == length > 8 * short_stretches
    assert (machine.length, machine.digest()) == (length, end)


def test_a_chosen_order_is_never_scouted(short_stretches: int):
    machine = recorded(make_toy(60))
    machine.make_scout = lambda: pytest.fail("a scout was made")
    machine.run(scheduler=Chosen(lambda machine: (machine.movable() or [-1])[0]))
    assert machine.length > 4 * short_stretches


def test_checkpoints_are_taken_over_by_another_machine_of_the_same_settings():
    one, two = recorded(make_toy(3)), recorded(make_toy(3))
    one.run(17)
    taken = one.checkpoint()
    two.load(taken)
    assert two.digest() == one.digest()
    assert (two.position, two.hits) == (17, one.hits)
    assert two.checkpoint(taken) == taken


def test_cutting_keeps_the_checkpoints_before(short_stretches: int):
    machine = recorded(make_toy(60))
    machine.make_scout = None
    machine.run()
    end = machine.length
    before = machine.digest()
    machine.seek(100)
    future = machine.cut()
    assert [c.position for c in machine.timeline.checkpoints] == [0, 64]
    assert future.checkpoints[0].position == 128
    machine.run(10)
    machine.put_back(future)
    machine.seek(end)
    assert machine.digest() == before
