"""Whatever a run does: going forward, back, anywhere and to other branches restores every cell and every byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulated import STEPS_MAX, Habits, habits, traffics, worlds

from virtviz.engine.recording import RecordingMachine
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Traffic, make_traffic
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from virtviz.engine.timeline import Checkpoint, Future


class Travel(RuleBasedStateMachine):
    """Walks about in a run; what it has seen at each position of the present branch is what it must see again."""

    machine: RecordingMachine

    @initialize(world=worlds(), traffic=traffics())
    def build(self, world: World, traffic: Traffic) -> None:
        machine = simulate(world, traffic).machine
        assert isinstance(machine, RecordingMachine)
        self.machine = machine
        self.seen: list[Checkpoint] = [machine.checkpoint()]
        self.left: tuple[Future, list[Checkpoint]] | None = None

    @rule(steps=st.integers(1, 60), schedule=habits())
    def go_forward(self, steps: int, schedule: Habits) -> None:
        scheduler = schedule.scheduler()
        for _ in range(steps):
            if not self.machine.step(scheduler):
                assert self.machine.position == self.machine.length
                break
            if self.machine.position == len(self.seen):
                self.seen.append(self.machine.checkpoint(self.seen[-1]))
            self.is_as_seen()

    @rule(steps=st.integers(1, 60))
    def go_back(self, steps: int) -> None:
        for _ in range(steps):
            position = self.machine.position
            assert self.machine.back() == (position > 0)
            self.is_as_seen()

    @rule(part=st.floats(0, 1))
    def jump(self, part: float) -> None:
        self.machine.seek(round(part * self.machine.length))

    @rule()
    def leave_the_branch(self) -> None:
        """Only the last branch left is kept: it begins at a position whose past is the present one's."""
        position = self.machine.position
        self.left = (self.machine.cut(), self.seen[position + 1 :])
        del self.seen[position + 1 :]

    @precondition(lambda self: self.left is not None)
    @rule()
    def return_to_the_branch(self) -> None:
        assert self.left is not None
        future, seen = self.left
        self.left = None
        if self.machine.length < future.start:
            return
        replaced = self.machine.put_back(future)
        self.left = (replaced, self.seen[future.start + 1 :])
        self.seen[future.start + 1 :] = seen
        assert self.machine.length == len(self.seen) - 1

    @invariant()
    def is_as_seen(self) -> None:
        there = self.seen[self.machine.position]
        assert self.machine.checkpoint(there) == there


TestTravel = Travel.TestCase
TestTravel.settings = settings(max_examples=12, stateful_step_count=15)


@given(worlds(), traffics(), habits(), st.floats(0, 1))
def test_a_jump_equals_a_fresh_run_to_there(world: World, traffic: Traffic, schedule: Habits, part: float):
    jump_equals_a_fresh_run(world, traffic, schedule, part)


def jump_equals_a_fresh_run(world: World, traffic: Traffic, schedule: Habits, part: float) -> None:
    """Run a world, jump to a part of its way, and compare with a run that ends there."""
    machine = simulate(world, traffic).machine
    assert isinstance(machine, RecordingMachine)
    machine.run(STEPS_MAX, schedule.scheduler())
    position = round(part * machine.length)
    machine.seek(position)
    fresh = simulate(world, traffic).machine
    fresh.run(position, schedule.scheduler())
    assert fresh.position == position
    assert fresh.digest() == machine.digest()


def test_a_jump_in_a_long_run_equals_a_fresh_run_to_there():
    world = make_world({"flows": "known", "queue.start": 65000})
    traffic = make_traffic([Item("echo"), Item("reply", outgoing=False, answers=0)], rounds=700)
    machine = simulate(world, traffic).machine
    assert isinstance(machine, RecordingMachine)
    machine.run()
    assert machine.length > 65536
    end = machine.digest()
    for position in (40_000, 39_999, 16_384, 16_383, 1, 50_000, machine.length):
        machine.seek(position)
        fresh = simulate(world, traffic).machine
        fresh.run(position)
        assert fresh.digest() == machine.digest(), position
    assert machine.digest() == end


@given(worlds(), traffics(), habits())
def test_a_machine_that_only_counts_takes_the_same_arcs(world: World, traffic: Traffic, schedule: Habits):
    counting_takes_the_same_arcs(world, traffic, schedule)


def counting_takes_the_same_arcs(world: World, traffic: Traffic, schedule: Habits) -> None:
    """Run a world in both kinds of machine, and compare how often each arc was taken."""
    recording = simulate(world, traffic)
    counting = simulate(world, traffic, recording=False)
    steps = recording.machine.run(STEPS_MAX, schedule.scheduler())
    assert counting.machine.run(STEPS_MAX, schedule.scheduler()) == steps
    assert counting.machine.hits == recording.machine.hits
    assert counting.dropped() == recording.dropped()


@given(worlds(), traffics(), st.integers(0, 500))
def test_it_does_so_in_the_readable_order_too_and_stops_at_the_same_step(world: World, traffic: Traffic, limit: int):
    recording, counting = (simulate(world, traffic, recording=recording) for recording in (True, False))
    assert counting.machine.run(limit) == recording.machine.run(limit)
    assert counting.machine.hits == recording.machine.hits
    assert counting.machine.run() == recording.machine.run()
    assert counting.machine.hits == recording.machine.hits


def test_blocks_count_what_a_recording_machine_counts():
    world = make_world({"flows": "unknown", "queue.size": 16, "tx_stop_threshold": 2, "queue.start": 65530})
    events = [Item(fragments=1 + i % 3, peer=1 + i % 3, length=100 * i) for i in range(6)]
    traffic = make_traffic([*events, Item(outgoing=False), Item(outgoing=False, answers=0)], rounds=400)
    recording, counting = (simulate(world, traffic, recording=recording) for recording in (True, False))
    assert recording.machine.run() == counting.machine.run() > 2 * 65536
    assert counting.machine.hits == recording.machine.hits
    assert counting.dropped() == recording.dropped()


@pytest.mark.parametrize("seed", [21, 26, 37, 41, 46])
def test_two_interrupts_that_are_due_at_once_are_taken_alike_when_repeated(seed):
    """Whether a thread was alone or took turns with others: after one interrupt it looks for the other."""
    settings = {"path": "virtio-qemu", "flows": "known", "vcpu": "halted", "cpu": "amd", "apicv": "off"}
    world = make_world(settings, {"halt_poll_ns": 200000})
    machine = simulate(world, make_traffic([Item(kind="udp"), Item(), Item(outgoing=False, answers=1)])).machine
    assert isinstance(machine, RecordingMachine)
    machine.run(STEPS_MAX, Habits(seed=seed, longest=1).scheduler())
    end = machine.digest()
    machine.seek(0)
    machine.seek(machine.length)
    assert machine.digest() == end
