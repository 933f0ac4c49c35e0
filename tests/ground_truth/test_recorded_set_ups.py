"""The order of a set-up under the recorded versions is the recorded one: every line of it, with its numbers."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest
from setup_lines import DATA, LEFT_OUT, Watcher, recorded

sys.path.insert(0, str(Path(__file__).parents[1] / "paths"))
from driving import Driven, Item

from virtviz.engine.schedule import Chosen, RunUntilBlocked

CASES = {"setup-vhost": {"path": "vhost-net"}, "setup-virtio": {"path": "virtio-qemu"}}
BEGIN = {"profile": "recorded", "begin": "power-on"}


@cache
def lines(case):
    return Watcher(Driven([Item()], BEGIN, CASES[case])).run()


def of(found, thread):
    return [line.what for line in found if line.thread == thread]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("thread", ["qemu", "vcpu"])
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
