"""Two virtual machines on one host: what a packet from one to the other costs, and who does what."""

from __future__ import annotations

import pytest
from driving import KNOWN, Driven, Item, Pause

from virtviz.engine.counters import COUNTERS
from virtviz.engine.trace import Trace
from virtviz.paths.capture import frame_bytes, frames_at, read_capture, write_capture
from virtviz.paths.traffic import Poke, vm_endpoint
from virtviz.spec.frames import summary

TWO = {"vms": 2}
ACROSS = Item("ask", to_vm=1, kind="udp", length=18)
ANSWER = Item("answer", vm=1, to_vm=0, answers=0, kind="udp", length=18)
ONE_PACKET = dict.fromkeys(COUNTERS, 0) | {
    "light_exits": 1,
    "guest_host": 2,
    "wakeups": 2,
    "guest_syscalls": 2,
    "user_kernel.guest": 4,
    "host_copies": 2,
    "guest_copies": 3,
    "interrupts": 2,
    "eventfd_signals": 3,
}
"""One kick, two workers woken, two copies on the host; three eventfds, two of which interrupt a guest."""
SENDER, RECEIVER = "vhost-4002", "vhost-4012"


def ran(items, *settings):
    return Driven(items, TWO, KNOWN, *settings).run()


def place_in_order(steps, **wanted):
    """Give the number of the first step that has these values."""
    return next(step.n for step in steps if all(getattr(step, name) == value for name, value in wanted.items()))


@pytest.mark.parametrize("switch", ["ovs", "bridge"])
def test_what_a_packet_between_two_machines_costs(switch):
    assert ran([ACROSS], {"switch": switch}).counters() == ONE_PACKET


def test_an_answer_costs_the_same_again():
    assert ran([ACROSS, ANSWER]).counters() == {name: 2 * count for name, count in ONE_PACKET.items()}


def test_no_network_card_has_any_part_in_it():
    rows = {step.row.split(".")[0] for step in ran([ACROSS]).steps()}
    assert rows == {"G-TX", "KICK", "V-TX", "O-FWD", "N-IN", "V-RX", "IRQ", "G-TXC", "G-RX"}
    assert {step.row for step in ran([ACROSS]).steps() if step.row.startswith("N-IN")} == {
        "N-IN.8",
        "N-IN.9",
        "N-IN.10",
    }


def test_the_senders_worker_puts_the_frame_into_the_receivers_tap():
    steps = ran([ACROSS]).steps()
    (xmit,) = [step for step in steps if step.op == "net_xmit"]
    assert (xmit.thread, xmit.place) == (SENDER, "tap1")


def test_the_receivers_worker_is_woken_before_the_sender_gets_its_buffer_back():
    steps = ran([ACROSS]).steps()
    woken = place_in_order(steps, thread=SENDER, row="N-IN.10", op="wake_worker")
    assert woken < place_in_order(steps, thread=SENDER, row="V-TX.12")
    assert {step.thread for step in steps if step.row.startswith("V-RX")} == {RECEIVER}


def test_each_guest_is_interrupted_for_its_own_queue():
    taken = [(step.thread, step.queue) for step in ran([ACROSS]).steps() if step.op == "vring_interrupt"]
    assert sorted(taken) == [("vm1.vcpu0", "vm1.transmitq1"), ("vm2.vcpu0", "vm2.receiveq1")]


def test_the_first_packet_of_each_direction_goes_up_by_upcall():
    world = Driven([ACROSS, ANSWER], TWO).run()
    assert world.counters()["upcalls"] == 2
    assert {vm.name: vm.program.cells.received for vm in world.simulation.vms} == {"vm1": 1, "vm2": 1}


@pytest.mark.parametrize("far_port", ["nic", "veth", "dummy"])
@pytest.mark.parametrize("vcpu", ["running", "halted"])
def test_both_machines_reach_each_other_and_the_wire(far_port, vcpu):
    events = [ACROSS, ANSWER, Pause(), Item(kind="udp"), Item(vm=1, kind="udp"), Item(vm=1, to_vm=0)]
    world = ran(events, {"far_port": far_port, "vcpu": vcpu})
    steps = world.steps()
    assert sorted(step.packet for step in steps if step.milestone == "on-wire") == [3, 4]
    assert [step.packet for step in steps if step.milestone == "received"] == [1, 2, 5]
    assert world.simulation.dropped() == {}


def test_what_comes_from_the_wire_is_delivered_to_whom_it_is_for():
    events = [Item(vm=1, outgoing=False), Item(outgoing=False), Item(vm=1), Item(vm=1, outgoing=False, answers=2)]
    steps = ran(events).steps()
    received = {step.packet: step.thread for step in steps if step.milestone == "received"}
    assert received == {1: "vm2.vcpu0", 2: "vm1.vcpu0", 4: "vm2.vcpu0"}


def test_frames_carry_the_addresses_of_both_machines():
    traffic = ran([ACROSS, ANSWER]).simulation.traffic
    assert traffic.frame(1)[:12] == vm_endpoint(1).mac + vm_endpoint(0).mac
    assert summary(traffic.frame(1)) == "UDP 10.0.0.2 > 10.0.0.3 port 9"
    assert summary(traffic.frame(2)) == "UDP 10.0.0.3 > 10.0.0.2 port 40000"


def test_every_step_of_a_packet_knows_its_bytes_in_either_machine():
    for settings in ({}, {"rx_buffer": 600}, {"profile": "recorded"}):
        events = [Item("a", to_vm=1, kind="udp", length=1472, fragments=3), Item("b", vm=1, to_vm=0, answers=0)]
        world = ran(events, settings)
        trace = Trace(world.machine)
        for n in range(1, len(trace) + 1):
            # The machine stands at the step that was asked for last.
            step = trace.step(n)
            want = world.simulation.traffic.frame(step.packet) if step.packet else b""
            assert frame_bytes(world.simulation, step) == want, (settings, n, step.op)


@pytest.mark.parametrize("place", ["tap0", "tap1", "ovs", "vm1.virtio_net", "vm2.virtio_net"])
def test_both_frames_are_seen_at_each_place(place):
    world = ran([ACROSS, ANSWER])
    seen = [frame for _, frame in frames_at(world.simulation, Trace(world.machine), place)]
    assert seen == [world.simulation.traffic.frame(n) for n in (1, 2)]


def test_what_passed_a_tap_can_be_sent_again_from_machine_to_machine(tmp_path):
    world = ran([ACROSS, ANSWER])
    write_capture(tmp_path / "tap1.pcap", frames_at(world.simulation, Trace(world.machine), "tap1"))
    items = read_capture(tmp_path / "tap1.pcap", vms=2)
    assert [(item.vm, item.to_vm) for item in items] == [(0, 1), (1, 0)]
    again = ran(items)
    assert [vm.program.cells.received for vm in again.simulation.vms] == [1, 1]
    assert again.counters() == world.counters()


def test_counting_gives_what_recording_gives():
    events = [ACROSS, ANSWER, Pause(), Item(vm=1)]
    counted = Driven(events, TWO, rounds=20, recording=False).run().counters()
    assert counted == Driven(events, TWO, rounds=20).run().counters()


def test_a_machine_without_a_part_in_the_scenario_does_nothing():
    world = ran([Item("out", kind="udp")])
    assert {step.op for step in world.steps() if step.thread.startswith("vm2")} <= {"next_act", "own_work"}


def test_a_ring_of_the_second_machine_is_changed_by_its_own_outside():
    poke = Poke("transmitq1", "avail.ring[0]", 999, vm=1)
    events = [Item(kind="udp", length=18, vm=1), poke, Item(kind="udp", length=18)]
    world = Driven(events, KNOWN | {"vms": 2, "path": "virtio-qemu"}).run()
    assert [step.thread for step in world.steps() if step.op == "change"] == ["vm2.outside"]
    assert (world.cell("qemu-4012.nic.broken"), world.cell("qemu-4002.nic.broken")) == (1, 0)
    assert (world.cell("vm1.device.status"), world.cell("vm2.device.status")) == (15, 79)
