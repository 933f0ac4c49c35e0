"""A bridge between two virtual machines that knows nobody yet: everybody gets a copy, and drops what is not his."""

from __future__ import annotations

import pytest
from driving import Driven, Item, Pause

from virtviz.engine.trace import Trace
from virtviz.paths.capture import frames_at

FLOODING = {"switch": "bridge", "vms": 2}
ASK, ANSWER = Item("ask", to_vm=1, kind="udp"), Item("answer", vm=1, to_vm=0, answers=0, kind="udp")
ECHO, REPLY = Item("echo"), Item("reply", outgoing=False, answers=0)
WHO_DROPS = {"vhost-net": "vm2.otherhost", "virtio-qemu": "qemu-4012.filtered"}
"""vhost-net has no filter of its own: the guest's IP has to look. QEMU knows the guest's address and drops before."""


def ran(items, *settings, **more):
    return Driven(items, FLOODING, *settings, **more).run()


def outputs(world, packet):
    return [step.outcome for step in world.steps() if step.op == "push_xmit" and step.packet == packet]


def test_the_first_frame_goes_to_every_port_but_its_own_and_the_answer_to_one():
    world = ran([ASK, ANSWER])
    assert outputs(world, 1) == ["copy to tap1", "eth0"]
    assert outputs(world, 2) == ["tap0"]
    assert [vm.program.cells.received for vm in world.simulation.vms] == [1, 1]
    assert world.simulation.dropped() == {}


@pytest.mark.parametrize("path", WHO_DROPS)
@pytest.mark.parametrize("far_port", ["nic", "veth"])
def test_the_other_machine_gets_a_copy_of_what_is_for_the_far_host_and_drops_it(path, far_port):
    world = ran([ECHO, REPLY], {"path": path, "far_port": far_port})
    assert outputs(world, 1) == ["copy to tap1", "eth0" if far_port == "nic" else "veth0"]
    assert world.simulation.dropped() == {WHO_DROPS[path]: 1}
    assert [vm.program.cells.received for vm in world.simulation.vms] == [1, 0]


def test_a_copy_costs_the_other_machine_an_interrupt_and_its_worker_a_wake_up():
    flooded, known = ran([ECHO]).counters(), ran([ECHO], {"flows": "known"}).counters()
    grown = {name: flooded[name] - known[name] for name in flooded if flooded[name] != known[name]}
    assert grown == {
        "host_copies": 1,
        "guest_copies": 1,
        "wakeups": 1,
        "interrupts": 1,
        "eventfd_signals": 1,
        "drops": 1,
    }


def test_a_copy_is_a_clone_with_the_same_bytes():
    world = ran([ECHO])
    frame = world.simulation.traffic.frame(1)
    for place in ("tap1", "vm2.virtio_net", "wire"):
        assert [seen for _, seen in frames_at(world.simulation, Trace(world.machine), place)] == [frame], place


def test_once_everybody_has_been_heard_nothing_is_flooded():
    world = ran([ASK, ANSWER, Pause(), ECHO, Item("reply", outgoing=False, answers=2), Pause(), ECHO, ASK])
    floods = {step.packet for step in world.steps() if step.op == "flood"}
    assert floods == {1, 3}


def test_counting_gives_what_recording_gives_and_every_step_can_be_taken_back():
    items = [ASK, ANSWER, Pause(), ECHO, Item("reply", outgoing=False, answers=2)]
    recorded = ran(items, rounds=3)
    counted = ran(items, rounds=3, recording=False)
    assert counted.counters() == recorded.counters()
    assert counted.simulation.dropped() == recorded.simulation.dropped()
    end, length = recorded.machine.digest(), recorded.machine.length
    recorded.machine.seek(0)
    fresh = Driven(items, FLOODING, rounds=3)
    assert recorded.machine.digest() == fresh.machine.digest()
    recorded.machine.seek(length)
    assert recorded.machine.digest() == end
