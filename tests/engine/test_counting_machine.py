"""Counting only: blocks do what walking does, and both do what a recording machine does."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import make_toy

from virtviz.engine import blocks, counting
from virtviz.engine.counting import CountingMachine
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.schedule import BySimulatedTime, Chosen


def test_counting_takes_the_arcs_that_recording_takes():
    one, two = make_toy(2000), make_toy(2000, recording=False)
    assert one.machine.run() == two.machine.run()
    assert one.machine.hits == two.machine.hits
    assert (two.cells.taken, two.cells.number) == (one.cells.taken, one.cells.number)
    assert one.memory.bytes == two.memory.bytes


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_stopping_anywhere_makes_no_difference(limits: list[int], rounds: int):
    one, two = make_toy(rounds, naps=3), make_toy(rounds, naps=3, recording=False)
    for limit in limits:
        assert one.machine.run(limit) == two.machine.run(limit)
        assert one.machine.hits == two.machine.hits
        assert [thread.pc for thread in one.machine.threads] == [thread.pc for thread in two.machine.threads]
        assert [thread.stack for thread in one.machine.threads] == [thread.stack for thread in two.machine.threads]


@pytest.mark.parametrize(
    "sizes",
    [
        {"MAX_STEPS": 1},
        {"MAX_STEPS": 2, "MAX_OPS": 3},
        {"MAX_STEPS": 5, "ROUND_STEPS": 2},
        {"MAX_OPS": 4, "OFTEN": 8},
        {"OFTEN": 16, "RARE": 0.6},
        {"OFTEN": 16, "SELDOM": 1},
    ],
    ids=str,
)
def test_blocks_of_any_size_do_the_same(monkeypatch: pytest.MonkeyPatch, sizes: dict[str, float]):
    for name, value in sizes.items():
        monkeypatch.setattr(blocks, name, value)
    one, two = make_toy(300), make_toy(300, recording=False)
    assert one.machine.run() == two.machine.run()
    assert one.machine.hits == two.machine.hits
    assert one.memory.bytes == two.memory.bytes


def test_an_interrupt_that_waits_while_the_guest_is_left_ends_a_block():
    one, two = make_toy(4000), make_toy(4000, recording=False)
    for toy in (one, two):
        toy.machine.run(20_000)
        toy.cells.echo = 9
    assert one.machine.run() == two.machine.run()
    assert one.cells.taken == two.cells.taken > 100
    assert one.machine.hits == two.machine.hits


def test_a_scout_may_stop_right_at_its_limit(monkeypatch: pytest.MonkeyPatch):
    for module in (blocks, counting):
        monkeypatch.setattr(module, "MAX_STEPS", 1)
    monkeypatch.setattr(counting, "CHECKPOINT_STEPS", 64)
    toy = make_toy(100, recording=False)
    assert isinstance(toy.machine, CountingMachine)
    start = toy.machine.checkpoint()
    found = toy.machine.scout(start, 128, array("H"), array("B"), ())
    assert [checkpoint.position for checkpoint in found] == [64, 128]
    assert toy.machine.position == 128


def test_other_schedulers_count_the_same():
    def alternating():
        turn = [0]

        def ask(machine):
            turn[0] += 1
            movable = machine.movable()
            return movable[turn[0] % len(movable)] if movable else -1

        return Chosen(ask)

    one, two = make_toy(200), make_toy(200, recording=False)
    assert one.machine.run(scheduler=alternating()) == two.machine.run(scheduler=alternating())
    assert one.machine.hits == two.machine.hits
    # Without a timeline clocks stand still, and the order by clocks becomes the threads' order.
    still = make_toy(20, recording=False)
    assert still.machine.run(scheduler=BySimulatedTime()) > 0
    assert isinstance(still.machine, CountingMachine)
    assert still.cells.left == 0


def test_a_scout_of_another_machines_past_notes_rows_and_clocks():
    ahead, itself = make_toy(700, recording=False, naps=2), make_toy(700, naps=2)
    arcs, threads = array("H"), array("B")
    assert isinstance(ahead.machine, CountingMachine)
    start = itself.machine.checkpoint()
    checkpoints = ahead.machine.scout(start, None, arcs, threads, ())
    itself.machine.run()
    assert [checkpoint.position for checkpoint in checkpoints] == [itself.machine.position]
    assert isinstance(itself.machine, RecordingMachine)
    assert (arcs, threads) == (itself.machine.timeline.arcs, itself.machine.timeline.threads)
    assert ahead.machine.hits == itself.machine.hits
    assert ahead.machine.digest() == itself.machine.digest()
    assert [thread.me.clock for thread in ahead.machine.threads] == [t.me.clock for t in itself.machine.threads]
