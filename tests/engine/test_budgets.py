"""What the budgets say about work that can be counted. Times are in `benchmarks/`, and never decide a test."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest

from virtviz.engine.timeline import CHECKPOINT_STEPS
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate

SENDING = [Item(kind="udp", length=18)]
BOTH_WAYS = [Item(kind="udp", length=18), Item("echo"), Item("reply", outgoing=False, answers=1)]
BYTES_A_STEP = 150


def machine_for(items, rounds, *, recording):
    return simulate(make_world({"flows": "known"}), make_traffic(items, rounds=rounds), recording=recording).machine


def traced(run):
    """Run something; answers how many steps it was, the bytes that stayed, and the most there ever were."""
    gc.collect()
    tracemalloc.start()
    try:
        steps = run()
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return steps, held, peak


def count_repeated(machine):
    """Count into the list's one element the steps that the machine takes."""
    counted = [0]
    record = machine._record

    def recorded(index, limit):
        taken = record(index, limit)
        counted[0] += len(taken)
        return taken

    machine._record = recorded
    return counted


@pytest.fixture(scope="module")
def long_run():
    machine = machine_for(SENDING, 3200, recording=True)
    assert machine.run(100_000) == 100_000
    return machine


def test_a_million_steps_take_at_most_150_bytes_a_step():
    machine = machine_for(SENDING, 28_000, recording=True)
    steps, held, peak = traced(machine.run)
    assert steps > 1_000_000
    assert held / steps <= BYTES_A_STEP
    assert peak / steps <= BYTES_A_STEP


def test_a_run_in_which_every_step_is_journaled_takes_at_most_150_bytes_a_step():
    machine = machine_for(SENDING, 3000, recording=True)
    machine.make_scout = None
    steps, held, _ = traced(machine.run)
    assert steps > 100_000
    assert held / steps <= BYTES_A_STEP


def test_counting_takes_the_same_memory_for_ten_times_the_packets():
    machine = machine_for(SENDING, 30_000, recording=False)
    machine.run(100_000)
    _, held, peak = traced(lambda: machine.run(900_000))
    assert machine.position == 1_000_000
    assert held < 65_536
    assert peak < 262_144, "compiling a block takes some memory for a moment"


def test_a_jump_to_any_of_100000_steps_runs_at_most_20000_again(long_run):
    repeated = count_repeated(long_run)
    edges = [n * CHECKPOINT_STEPS + more for n in range(1, 7) for more in (-1, 0, 1)]
    targets = [0, 1, 99_999, 100_000, *edges, *random.Random(7).sample(range(100_000), 30)]
    random.Random(8).shuffle(targets)
    most = 0
    for target in targets:
        repeated[0] = 0
        long_run.seek(target)
        assert long_run.position == target
        most = max(most, repeated[0])
    assert most <= 20_000


def test_stepping_back_over_everything_runs_each_step_again_at_most_once():
    machine = machine_for(SENDING, 1500, recording=True)
    length = machine.run(50_000)
    repeated = count_repeated(machine)
    while machine.back():
        pass
    assert repeated[0] <= length


@pytest.mark.parametrize("items", [SENDING, BOTH_WAYS], ids=["sending", "both ways"])
def test_counting_and_recording_take_every_arc_equally_often(items):
    counting, recording = (machine_for(items, 400, recording=mode) for mode in (False, True))
    assert counting.run() == recording.run()
    assert counting.hits == recording.hits


@pytest.mark.parametrize("items", [SENDING, BOTH_WAYS], ids=["sending", "both ways"])
def test_a_run_in_one_go_ends_as_one_taken_in_small_pieces(items):
    at_once, in_pieces = (machine_for(items, 300, recording=False) for _ in range(2))
    steps = at_once.run()
    pieces = random.Random(3)
    while in_pieces.run(pieces.randrange(1, 200)):
        pass
    assert in_pieces.position == steps
    assert in_pieces.hits == at_once.hits
    assert in_pieces.digest() == at_once.digest()


@pytest.mark.parametrize("items", [SENDING, BOTH_WAYS], ids=["sending", "both ways"])
def test_a_scout_notes_what_a_machine_without_one_records(items):
    with_scout, alone = (machine_for(items, 1300, recording=True) for _ in range(2))
    alone.make_scout = None
    assert with_scout.run() == alone.run()
    assert with_scout._scout is not None
    assert with_scout.timeline.arcs == alone.timeline.arcs
    assert with_scout.timeline.threads == alone.timeline.threads
    assert with_scout.digest() == alone.digest()
    with_scout.seek(40_000)
    alone.seek(40_000)
    assert with_scout.digest() == alone.digest()
