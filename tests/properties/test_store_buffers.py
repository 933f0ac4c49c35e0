"""Store buffers change when others see a store, and in the readable order nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from simulated import STEPS_MAX, traffics, worlds

from virtviz.engine.recording import RecordingMachine
from virtviz.paths.knobs import make_world
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic


def way(world: World, traffic: Traffic) -> list[tuple[str, str, str]]:
    """Give thread, op and outcome of every step of a run in the readable order, but of those in which stores drain."""
    machine = simulate(world, traffic).machine
    assert isinstance(machine, RecordingMachine)
    machine.run(STEPS_MAX)
    names = [thread.name for thread in machine.threads]
    rows = zip(machine.timeline.threads, map(machine.arc_at, range(machine.length)), strict=True)
    taken = [(names[index], arc.op.path, arc.outcome) for index, arc in rows]
    drained = any(path.endswith(".stores.drain/drain") for _, path, _ in taken)
    # A frame that finds no room with a polled guest is stored nowhere; what is sent is, in any world.
    sends = any(item.outgoing for item in traffic.items)
    assert drained == world.on("store_buffer") if sends else drained <= world.on("store_buffer")
    return [step for step in taken if not step[0].endswith(".stores")]


@given(worlds(store_buffer="off"), traffics())
def test_in_the_readable_order_store_buffers_only_add_their_draining(world: World, traffic: Traffic):
    only_draining_is_added(world, traffic)


def only_draining_is_added(world: World, traffic: Traffic) -> None:
    """Compare the ways of a world with and without store buffers."""
    if traffic.packets:
        assert way(make_world(world.plain(), {"store_buffer": "on"}), traffic) == way(world, traffic)
