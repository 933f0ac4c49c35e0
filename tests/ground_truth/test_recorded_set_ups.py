"""The order of a set-up under the recorded versions is the recorded one: every line of it, with its numbers."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest
from setup_lines import DATA, LEFT_OUT, USED_BEFORE, Watcher, recorded

sys.path.insert(0, str(Path(__file__).parents[1] / "paths"))
from driving import Driven, Item

from virtviz.engine.schedule import Chosen, RunUntilBlocked

CASES = {
    "setup-vhost": {"path": "vhost-net"},
    "setup-virtio": {"path": "virtio-qemu"},
    "setup-vhost-mq": {"path": "vhost-net", "queues": 2},
}
BEGIN = {"profile": "recorded", "begin": "power-on"}


def watcher(case, items, scheduler=None):
    world = Driven(items, BEGIN, CASES[case])
    state = world.machine.state
    for cell, value in USED_BEFORE.get(case, {}).items():
        state.restore(state.names.index(cell), value)
    return Watcher(world).run(scheduler)


@cache
def lines(case):
    return watcher(case, [Item()])


def of(found, thread):
    return [line.what for line in found if line.thread == thread]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("thread", ["qemu", "vcpu", "vcpu1"])
def test_a_thread_does_what_it_was_recorded_to_do_in_that_order(case, thread):
    assert of(lines(case), thread) == of(recorded(case), thread)


def worker_first(machine):
    """Let vhost's worker move whenever it can, as it does on a CPU of its own."""
    ready = machine.movable()
    worker = next(i for i, thread in enumerate(machine.threads) if thread.name.startswith("vhost"))
    return worker if worker in ready else RunUntilBlocked().pick(machine, ())


def test_with_a_cpu_for_the_worker_all_threads_together_are_as_recorded():
    found = Watcher(Driven([Item(outgoing=False)], BEGIN)).run(Chosen(worker_first))
    wanted = recorded("setup-vhost")
    # From the last one on the guest's traffic begins.
    assert found[: len(wanted)] == wanted


def test_a_kick_before_a_ring_has_a_back_end_finds_nothing_to_do():
    world = Driven([Item()], BEGIN)
    world.run(scheduler=Chosen(worker_first))
    looks = [outcome for name, outcome in world.ops() if name == "look" and outcome in ("none", "there")]
    assert looks[:3] == ["none", "none", "there"]


def workers_as_recorded(machine):
    """Let the first pair's worker move whenever it can, and the second's once vhost is started.

    Both were ready as soon as they had been kicked; on two CPUs with a vCPU on each, who runs when is chance.
    """
    names, state = [thread.name for thread in machine.threads], machine.state
    first, second = names.index("vhost-4002.q1"), names.index("vhost-4002.q2")
    ready = machine.movable()
    if first in ready:
        return first
    if not state.value(state.names.index("qemu-4002.process.started")):
        return RunUntilBlocked().pick(machine, {second})
    return second if second in ready else RunUntilBlocked().pick(machine, ())


def test_with_two_pairs_all_threads_together_are_as_recorded():
    found = watcher("setup-vhost-mq", [Item(outgoing=False)], Chosen(workers_as_recorded))
    wanted = recorded("setup-vhost-mq")
    assert found[: len(wanted)] == wanted


@pytest.mark.parametrize("pattern", LEFT_OUT)
def test_what_is_left_out_was_recorded(pattern):
    assert any(re.search(pattern, (DATA / f"{case}.txt").read_text()) for case in CASES)


def test_newer_versions_tie_kicks_before_interrupts():
    newer = Watcher(Driven([Item()], BEGIN, {"qemu_version": "10.0"})).run()
    older = lines("setup-vhost")

    def first(found, what):
        return next(n for n, line in enumerate(found) if what in line.what)

    assert first(newer, "KVM_IOEVENTFD") < first(newer, "KVM_IRQFD")
    assert first(older, "KVM_IRQFD") < first(older, "KVM_IOEVENTFD")
    told = [line.what for line in newer if "VHOST_SET_VRING_ADDR" in line.what]
    assert told == [line.what for line in older if "VHOST_SET_VRING_ADDR" in line.what]
