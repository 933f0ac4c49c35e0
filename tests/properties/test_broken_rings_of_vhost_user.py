"""Malformed rings under DPDK's vhost library: whatever a guest writes, the thread polls on, and undoing is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from simulated import Habits, habits
from test_broken_rings import broken_traffics, checking_worlds

from virtviz.engine.recording import RecordingMachine
from virtviz.paths.knobs import World, make_world
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from virtviz.paths.traffic import Traffic

STEPS_MAX = 20_000
"""An index that has jumped is believed, and offers tens of thousands of old buffers."""


@given(checking_worlds(), broken_traffics(), habits())
def test_no_malformed_ring_ends_a_run_of_vhost_user(world: World, traffic: Traffic, schedule: Habits):
    polled = {"path": "vhost-user", "switch": "ovs-dpdk", "far_port": "nic", "queue.start": 1}
    machine = simulate(make_world(world.plain(), polled), traffic).machine
    assert isinstance(machine, RecordingMachine)
    begin = machine.digest()
    taken = machine.run(STEPS_MAX, schedule.scheduler())
    end = machine.digest()
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(taken)
    assert machine.digest() == end
