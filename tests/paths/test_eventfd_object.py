"""An eventfd by itself: what one counter does for those who write, read and wait."""

from __future__ import annotations

import pytest
from driving import KNOWN, OUT, Driven


def run(kind):
    return Driven([OUT], KNOWN, {"eventfd_programs": kind}).run()


def reads(world):
    return [outcome for name, outcome in world.ops() if name == "take"]


def test_one_read_takes_all_that_was_written():
    world = run("counter")
    assert reads(world) == ["sleep", "all", "sleep", "all"]
    values = [
        write.new for step in world.steps() if step.op == "take" for write in step.writes if "value" in write.field
    ]
    assert values[0] == 3
    assert world.cell("programs.eventfd.counter") == 0


def test_a_semaphore_gives_one_at_a_time():
    world = run("semaphore")
    assert reads(world) == ["sleep", "one", "one", "one", "sleep", "one"]
    assert world.cell("programs.eventfd.taken") == 4


@pytest.mark.parametrize("kind", ["counter", "semaphore"])
def test_a_write_wakes_all_who_wait_and_poll_takes_nothing(kind):
    world = run(kind)
    ops = world.ops()
    first = ops.index(("add", "signalled"))
    assert ops[first + 1 : first + 3] == [("wake_reader", "woke"), ("wake_poller", "woke")]
    # Who was woken by poll() may find that the reader was faster.
    assert {outcome for name, outcome in ops if name == "look" and outcome in ("readable", "too late", "sleep")}
    assert world.simulation.dropped() == {}


def test_the_programs_begin_when_everything_has_come_to_rest():
    steps = run("counter").steps()
    assert min(step.n for step in steps if step.row.startswith("EFD")) > max(
        step.n for step in steps if step.milestone == "completed"
    )


@pytest.mark.parametrize("kind", ["counter", "semaphore"])
def test_every_step_is_cited_and_can_be_taken_back(kind):
    world = Driven([OUT], KNOWN, {"eventfd_programs": kind})
    before = world.machine.digest()
    world.run()
    for step in world.steps():
        assert step.function
        assert step.text[-1] in ".?"
        assert "{" not in step.text
    world.machine.seek(0)
    assert world.machine.digest() == before
