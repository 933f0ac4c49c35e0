"""What holds of every run of one virtual machine holds of every run of two."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from simulated import STEPS_MAX, Habits, fates, habits, traffics_of_two, worlds
from test_every_frame import follow
from test_order import order_holds
from test_ring_accounts import account, queues

sys.path.insert(0, str(Path(__file__).parents[1] / "paths"))
from driving import Driven

from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Pause, Traffic, make_traffic
from virtviz.paths.wiring import simulate


@given(worlds(vms=2), traffics_of_two(), habits())
def test_every_frame_between_two_machines_has_one_fate(world: World, traffic: Traffic, schedule: Habits):
    follow(world, traffic, schedule)


@given(worlds(vms=2, far_port="nic"), traffics_of_two(), habits())
def test_order_holds_between_two_machines(world: World, traffic: Traffic, schedule: Habits):
    order_holds(world, traffic, schedule)


@given(worlds(vms=2, store_buffer="off"), traffics_of_two(longest=5), habits())
@settings(max_examples=30)
def test_the_rings_of_both_machines_are_in_order_at_every_step(world: World, traffic: Traffic, schedule: Habits):
    simulation = simulate(world, traffic)
    rings = [(vm, driver, device) for vm in simulation.vms for driver, device in queues(vm)]
    scheduler = schedule.scheduler()
    for _ in range(STEPS_MAX):
        for vm, driver, device in rings:
            account(vm, driver, device)
        if not simulation.machine.run(1, scheduler):
            break
    assert {account(vm, driver, device) for vm, driver, device in rings} == {(0, 0)}


@given(worlds(vms=2), traffics_of_two(longest=5), habits())
@settings(max_examples=30)
def test_two_machines_go_back_to_where_they_were(world: World, traffic: Traffic, schedule: Habits):
    they_go_back_to_where_they_were(world, traffic, schedule, steps=200, stretch=17)


def they_go_back_to_where_they_were(
    world: World, traffic: Traffic, schedule: Habits, *, steps: int, stretch: int
) -> None:
    """Run so many steps, remember where everything was after each stretch of them, and go back there."""
    machine = simulate(world, traffic).machine
    digests = {0: machine.digest()}
    scheduler = schedule.scheduler()
    # A digest reads all memory, so not after every step.
    while machine.length < steps and machine.run(stretch, scheduler):
        digests[machine.length] = machine.digest()
    for position in reversed(digests):
        machine.seek(position)
        assert machine.digest() == digests[position]


@given(worlds(vms=2), traffics_of_two(longest=5))
@settings(max_examples=30)
def test_two_machines_counted_do_what_two_recorded_do(world: World, traffic: Traffic):
    counted_do_what_recorded_do(world, traffic)


def counted_do_what_recorded_do(world: World, traffic: Traffic) -> None:
    """Run a world in both kinds of machine, in the readable order, and compare what was done and dropped."""
    recorded, counted = (simulate(world, traffic, recording=recording) for recording in (True, False))
    for simulation in (recorded, counted):
        simulation.machine.run(STEPS_MAX)
    assert [*recorded.machine.hits] == [*counted.machine.hits]
    assert recorded.dropped() == counted.dropped()


def lost_on_the_way(vcpu: str) -> tuple[Traffic, World]:
    """Make a world in which no buffer of either machine can hold a long frame, and the first question is long."""
    events = [
        Item("long", to_vm=1, kind="udp", length=1400),
        Item("unasked", vm=1, to_vm=0, answers=0, kind="udp", length=1),
        Item("short", to_vm=1, kind="udp", length=1),
        Item("answer", vm=1, to_vm=0, answers=2, kind="udp", length=1),
        Pause(),
        Item("after", vm=1, to_vm=0, kind="udp", length=1),
    ]
    return make_traffic(events), make_world({"vms": 2, "vcpu": vcpu, "features": [], "rx_buffer": 128})


def test_what_a_program_never_got_it_does_not_answer():
    for vcpu in ("running", "halted"):
        traffic, world = lost_on_the_way(vcpu)
        simulation = follow(world, traffic, Habits(seed=0))
        assert simulation.dropped() == {"vhost-4012.discarded": 1}
        found = fates(simulation)
        assert dict(found.arrived) == {3: 1, 4: 1, 5: 1}


def test_a_pause_is_over_for_both_when_it_is_over_for_one():
    events = [Item(to_vm=1, kind="udp"), Pause(), Item(vm=1, to_vm=0, kind="udp"), Pause(), Item(to_vm=1, kind="udp")]
    simulation = follow(make_world({"vms": 2}), make_traffic(events, rounds=2), Habits(seed=1))
    assert [vm.program.cells.received for vm in simulation.vms] == [2, 4]


def test_a_program_waits_for_a_packet_whose_place_another_has_taken():
    """Of two packets that it waits for the second comes first; it must not give up before the first was sent."""
    events = [
        Item("lost", to_vm=1, length=1400),
        Item("late", vm=1, to_vm=0),
        Item("early", outgoing=False),
        Item("last", to_vm=1),
    ]
    world = make_world({"vms": 2, "flows": "known", "features": [], "rx_buffer": 256})
    for seed in range(5):
        simulation = follow(world, make_traffic(events), Habits(seed=seed, longest=1))
        assert set(fates(simulation).arrived) == {2, 3, 4}


@pytest.mark.parametrize("settings", [{}, {"vcpu": "halted"}, {"guest": "dpdk"}, {"path": "virtio-qemu"}], ids=str)
def test_what_comes_after_a_program_has_given_up_is_read_at_the_end(settings):
    world = Driven([Item(outgoing=False, kind="udp"), Item(kind="udp")], {"flows": "known"}, settings)
    world.run(without=["eth0"])
    assert world.vm.program.cells.received == 0
    world.run()
    assert world.vm.program.cells.received == 1
    assert dict(fates(world.simulation).arrived) == {1: 1, 2: 1}
