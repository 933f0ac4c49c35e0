"""Several queue pairs behind a vhost-user port: every transmit queue is polled, one receive queue is filled."""

from __future__ import annotations

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause, burst

TWO_PAIRS = KNOWN | {"path": "vhost-user", "queues": 2}
SECOND = Item(kind="udp", length=18, vcpu=1)
"""A packet that the second vCPU sends."""


def queues_of(world, milestone):
    return [step.queue for step in world.steps() if step.milestone == milestone]


def test_each_vcpu_has_its_own_transmit_queue_and_one_thread_polls_them_all():
    world = Driven([OUT, SECOND, OUT], TWO_PAIRS).run()
    assert sorted(queues_of(world, "fetched")) == ["vm1.transmitq1", "vm1.transmitq1", "vm1.transmitq2"]
    assert {step.thread for step in world.steps() if step.milestone == "fetched"} == {"pmd0"}
    polled = [outcome for op, outcome in world.ops() if op == "next_queue"]
    assert {"vhost-user0.q1", "vhost-user0.q2"} <= set(polled)
    assert not world.simulation.dropped()


def test_the_call_for_what_was_sent_comes_to_the_vcpu_that_sent_it():
    world = Driven([SECOND], TWO_PAIRS).run()
    assert {step.thread for step in world.steps() if step.row == "IRQ.5"} == {"vm1.vcpu1"}
    assert world.counters()["interrupts"] == 1


@pytest.mark.parametrize("queues", [2, 3, 4])
def test_whatever_comes_in_the_polling_thread_puts_into_its_own_queue(queues):
    """OVS gives each thread the queue of its number (static_tx_qid), and 0 to the one that does not poll."""
    items = [OUT, Item(outgoing=False, kind="udp", length=18, answers=0), IN, Pause(), IN]
    world = Driven(items, TWO_PAIRS, {"queues": queues}).run()
    assert set(queues_of(world, "in-guest-buffer")) == {"vm1.receiveq2"}
    assert world.vm.program.cells.received == 3


def test_a_kernel_switch_would_have_answered_into_the_queue_that_asked():
    items = [OUT, Item(outgoing=False, kind="udp", length=18, answers=0)]
    world = Driven(items, KNOWN, {"path": "vhost-net", "queues": 2}).run()
    assert set(queues_of(world, "in-guest-buffer")) == {"vm1.receiveq1"}


def test_the_polling_threads_cpu_has_one_store_buffer_for_all_pairs():
    world = Driven([OUT, SECOND, IN], TWO_PAIRS, {"store_buffer": "on"}).run()
    assert not world.simulation.dropped()
    assert sum(op.routine.name == "pmd0.stores.drain" for op in world.machine.program.ops) == 1


@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("vms", [1, 2])
def test_everything_arrives_and_the_way_back_is_exact(ring, vms):
    items = [*burst(5), SECOND, *[IN] * 4, SECOND]
    if vms == 2:
        items += [Item(kind="udp", length=18, to_vm=1), Item(kind="udp", length=18, vm=1, to_vm=0, vcpu=1)]
    world = Driven(items, TWO_PAIRS, {"queue.format": ring, "vms": vms}, rounds=2)
    machine = world.machine
    begin = machine.digest()
    taken = machine.run()
    end = machine.digest()
    assert not world.simulation.dropped()
    sent, received = (len(queues_of(world, milestone)) for milestone in ("on-wire", "received"))
    assert (sent, received) == (14, 8 + 4 * (vms - 1))
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(taken)
    assert machine.digest() == end


def test_counting_counts_what_recording_shows():
    items = [OUT, SECOND, IN, *burst(40), SECOND]
    counted = Driven(items, TWO_PAIRS, recording=False).run().counters()
    assert counted == Driven(items, TWO_PAIRS).run().counters()


@pytest.mark.parametrize("queues", [2, 3])
def test_from_power_on_a_pair_is_polled_and_filled_once_the_guest_has_said_that_it_uses_it(queues):
    items = [OUT, SECOND, IN, Pause(), IN]
    world = Driven(items, TWO_PAIRS, {"queues": queues, "begin": "power-on"}).run()
    assert not world.simulation.dropped()
    assert set(queues_of(world, "in-guest-buffer")) == {"vm1.receiveq2"}
    assert world.vm.program.cells.received == 2
    enabled = [world.cell(f"vhost-user0.device.enabled[{ring}]") for ring in range(2 * queues)]
    assert enabled == [1] * 2 * queues


def test_while_its_own_queue_is_off_the_thread_uses_the_first_that_is_on():
    world = Driven([IN], TWO_PAIRS)
    choose = next(op.routine for op in world.machine.program.ops if op.routine.name == "vhost-user0.choose")
    choose.is_on = lambda pair: pair == 0
    assert set(queues_of(world.run(), "in-guest-buffer")) == {"vm1.receiveq1"}
