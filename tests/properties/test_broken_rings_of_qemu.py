"""Malformed rings under QEMU's own back-end: whatever a guest writes, the run goes on, and can be gone back through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from simulated import Habits, habits
from test_broken_rings import broken_traffics, checking_worlds

from virtviz.engine.recording import RecordingMachine
from virtviz.paths.knobs import World, make_world
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from virtviz.paths.traffic import Traffic

STEPS_MAX = 20_000
"""A ring whose index has jumped offers its buffers tens of thousands of times, and QEMU does not notice."""


@given(checking_worlds(), broken_traffics(), habits(), st.sampled_from(("on", "off")))
def test_no_malformed_ring_ends_a_run_of_qemu(world: World, traffic: Traffic, schedule: Habits, ioeventfd: str):
    qemu = {"path": "virtio-qemu", "ioeventfd": ioeventfd, "device_checks": "vhost"}
    machine = simulate(make_world(world.plain(), qemu), traffic).machine
    assert isinstance(machine, RecordingMachine)
    begin = machine.digest()
    taken = machine.run(STEPS_MAX, schedule.scheduler())
    end = machine.digest()
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(taken)
    assert machine.digest() == end
