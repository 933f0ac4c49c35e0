"""Split and packed rings carry the same frames through the whole machine, whatever is sent and whoever stalls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import STEPS_MAX, Fates, Habits, habits, note_step, traffics, traffics_of_two, worlds

from virtviz.engine.recording import RecordingMachine
from virtviz.engine.trace import Trace
from virtviz.paths.capture import frame_bytes
from virtviz.paths.knobs import World, make_world
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from virtviz.paths.traffic import Traffic

NOTHING_IS_DROPPED = {"txqueuelen": 1000, "nic_ring": 512, "far_port": "nic", "rx_buffer": 1536}

POLLED = {"path": "vhost-user", "queue.size": 64}
"""Nobody waits for a guest without receive buffers there, so that it has enough of them."""


def carried(world: World, traffic: Traffic, schedule: Habits) -> tuple[object, ...]:
    """Give what came of every frame: how often it arrived, in which order by flow, and its bytes at the end.

    Where frames go up by upcall, those after them may overtake, and which ones do is a matter of time: there the order
    says nothing of the rings (`test_order` has what still holds).
    """
    simulation = simulate(world, traffic)
    machine = simulation.machine
    assert isinstance(machine, RecordingMachine)
    begin = machine.digest()
    taken = machine.run(STEPS_MAX, schedule.scheduler())
    assert taken < STEPS_MAX, "the run never comes to rest"
    found, trace = Fates(), Trace(machine)
    ends: dict[int, bytes] = {}
    for n in range(1, taken + 1):
        step = trace.step(n)
        note_step(found, traffic, step)
        if step.milestone in ("fetched", "polled"):
            ends[step.packet] = frame_bytes(simulation, step)
    assert not found.drops, simulation.dropped()
    machine.seek(0)
    assert machine.digest() == begin
    in_order = list if world["flows"] == "known" else sorted
    return found.arrived, {flow: in_order(arrived) for flow, arrived in found.order.items()}, ends


def is_the_same(world: World, traffic: Traffic, schedule: Habits, start: int, more: int) -> None:
    """Compare a world of split rings with one of packed rings of a size and a beginning of their own."""
    size = world.number("queue.size") + more
    packed = make_world(world.plain(), {"queue.format": "packed", "queue.size": size, "queue.start": start})
    assert carried(packed, traffic, schedule) == carried(world, traffic, schedule)


def split_worlds(**more: object) -> st.SearchStrategy[World]:
    """Draw a world of split rings, under QEMU; with indirect tables every packet fits where one descriptor is free."""
    optional = st.frozensets(st.sampled_from(("event_idx", "mergeable")))
    fixed = {**NOTHING_IS_DROPPED, "path": "virtio-qemu", "queue.format": "split", "store_buffer": "off", **more}
    return optional.flatmap(lambda features: worlds(**fixed, guest="kernel", features=sorted({*features, "indirect"})))


@settings(max_examples=12)
@given(split_worlds(), traffics(6), habits(), st.integers(0, 65535), st.integers(0, 9))
def test_split_and_packed_carry_the_same_frames(
    world: World, traffic: Traffic, schedule: Habits, start: int, more: int
):
    is_the_same(world, traffic, schedule, start, more)


@settings(max_examples=12)
@given(split_worlds(**POLLED), traffics(6), habits(), st.integers(0, 65535), st.integers(0, 9))
def test_split_and_packed_carry_the_same_frames_where_they_are_polled(
    world: World, traffic: Traffic, schedule: Habits, start: int, more: int
):
    is_the_same(world, traffic, schedule, start, more)


@settings(max_examples=8)
@given(split_worlds(vms=2), traffics_of_two(6), habits(), st.integers(0, 65535), st.integers(0, 9))
def test_split_and_packed_carry_the_same_frames_between_two_machines(
    world: World, traffic: Traffic, schedule: Habits, start: int, more: int
):
    is_the_same(world, traffic, schedule, start, more)
