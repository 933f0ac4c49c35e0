"""A long run that is only counted: ten times the packets are ten times the steps, in the same memory, on every path."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from virtviz.export.headless import COUNTED_STRETCH, counted_totals, world_and_traffic
from virtviz.lesson.loader import load
from virtviz.lesson.shelf import find
from virtviz.paths.knobs import KNOBS, make_world
from virtviz.paths.traffic import Item, Pause, make_traffic
from virtviz.paths.wiring import simulate

UDP = {"kind": "udp", "length": 18}
ROUND = [*[Item(**UDP)] * 8, Item(), Item(outgoing=False, answers=8), Pause()]
BULK = [Item(**UDP)]
WORLDS = [{"path": path} for path in KNOBS["path"].choices] + [
    {"path": "virtio-qemu", "ioeventfd": "off"},
    {"switch": "bridge"},
    {"napi_tx": "off"},
    {"profile": "recorded"},
    {"vcpu": "halted"},
]
ONCE = 700_000
"""Steps after which whatever is made once, such as blocks, has been made."""
MORE = 200_000
BYTES_MORE = 100_000
"""What so many more steps may leave: a block made late, nothing that grows with a step or a packet."""


def machine_for(items, settings, rounds):
    world = make_world({"flows": "known"}, settings)
    return simulate(world, make_traffic(items, rounds), recording=False).machine


@pytest.mark.parametrize("settings", WORLDS, ids=str)
def test_ten_times_the_packets_are_ten_times_the_steps(settings):
    steps, more_steps = (machine_for(ROUND, settings, rounds).run() for rounds in (20, 200))
    assert 9.5 * steps <= more_steps <= 10.5 * steps


@pytest.mark.parametrize("settings", WORLDS, ids=str)
def test_a_long_run_is_counted_in_flat_memory(settings):
    machine = machine_for(BULK, settings, 100_000)
    assert machine.run(ONCE) == ONCE
    gc.collect()
    tracemalloc.start()
    try:
        assert machine.run(MORE) == MORE
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < BYTES_MORE


def test_how_far_it_is_is_told_in_packets_that_have_begun():
    lesson = load(find("3-vhost"))
    world, traffic = world_and_traffic(lesson, [], 10_000)
    told = []
    totals = counted_totals(lesson, world, traffic, lambda steps, packets: told.append((steps, packets)))
    assert told[0] == (0, 0)
    assert told == sorted(told)
    assert told[-1] == (totals.steps, totals.packets)
    assert len(told) >= totals.steps // COUNTED_STRETCH
