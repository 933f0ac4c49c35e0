"""A step that ends at a checkpoint can be looked at like any other, however one gets there."""

import pytest

from virtviz.engine.trace import Trace
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate


def simulation(monkeypatch, steps_between):
    monkeypatch.setattr("virtviz.engine.recording.CHECKPOINT_STEPS", steps_between)
    monkeypatch.setattr("virtviz.engine.recording.WINDOW_STEPS", 2 * steps_between)
    made = simulate(
        make_world({"flows": "known"}), make_traffic([Item("echo"), Item("reply", outgoing=False, answers=0)])
    )
    made.machine.run()
    return made


def all_steps(machine, order):
    trace = Trace(machine)
    return {n: trace.step(n) for n in order}


@pytest.mark.parametrize("steps_between", [1, 2, 16])
def test_regression_steps_that_end_at_a_checkpoint_are_whole(monkeypatch, steps_between):
    whole = simulation(monkeypatch, 1 << 20).machine
    wanted = all_steps(whole, range(1, whole.length + 1))
    machine = simulation(monkeypatch, steps_between).machine
    assert len(machine.timeline.checkpoints) > 1
    there = list(range(1, machine.length + 1))
    for order in (there, there[::-1], there[::7] + there[::5], [n for n in there for _ in range(2)]):
        machine.seek(0)
        assert all_steps(machine, order) == {n: wanted[n] for n in order}
