"""Whatever the settings, the traffic and the order of threads: every frame is received once or counted as dropped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from simulated import STEPS_MAX, Habits, expected, fates, habits, traffics, worlds

from virtviz.engine.counters import count
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Traffic, make_traffic
from virtviz.paths.wiring import Simulation, simulate


def follow(world: World, traffic: Traffic, schedule: Habits) -> Simulation:
    """Run a world to its rest, and see that nobody and nothing is missing."""
    simulation = simulate(world, traffic)
    taken = simulation.machine.run(STEPS_MAX, schedule.scheduler())
    assert taken < STEPS_MAX, "the run never comes to rest"
    found = fates(simulation)
    assert sum(simulation.dropped().values()) == found.drops == count_of(simulation, "drops")
    for packet in expected(traffic, found):
        times = found.arrived[packet] + found.lost[packet]
        assert times == 1, (packet, traffic.item_of(packet))
    return simulation


def count_of(simulation: Simulation, counter: str) -> int:
    """Give a counter of the whole run."""
    machine = simulation.machine
    return count(machine.program.arcs, machine.hits)[counter]


@given(worlds(), traffics(), habits())
def test_every_frame_is_received_once_or_is_in_a_named_drop_counter(world: World, traffic: Traffic, schedule: Habits):
    follow(world, traffic, schedule)


@given(worlds(napi_tx="off"), traffics(), habits())
def test_every_frame_has_its_fate_without_transmit_napi(world: World, traffic: Traffic, schedule: Habits):
    follow(world, traffic, schedule)


SMALL = {"queue.size": 4, "tx_stop_threshold": 2, "queue.start": 65534, "bql_limit_min": 0}


@pytest.mark.parametrize("features", [[], ["event_idx"], ["event_idx", "indirect", "mergeable"]])
@pytest.mark.parametrize("napi_tx", ["on", "off"])
@given(schedule=habits())
@settings(max_examples=8)
def test_no_fair_schedule_stalls_a_small_ring_across_the_wrap(features: list[str], napi_tx: str, schedule: Habits):
    events = []
    for i in range(0, 8, 2):
        events += [Item(peer=1 + i % 3), Item(outgoing=False, answers=2 * i), Item(outgoing=False), Item()]
    world = make_world(SMALL | {"features": features, "napi_tx": napi_tx})
    simulation = follow(world, make_traffic(events, rounds=2), schedule)
    assert not simulation.dropped()


@given(traffic=traffics(), schedule=habits())
def test_a_dummy_far_port_takes_every_frame_that_was_sent(traffic: Traffic, schedule: Habits):
    sent_only = make_traffic([item for item in traffic.items if item.outgoing], rounds=traffic.rounds)
    simulation = follow(make_world({"far_port": "dummy"}), sent_only, schedule)
    assert not simulation.dropped()


@pytest.mark.parametrize("vcpu", ["running", "halted"])
def test_a_wait_for_a_frame_that_was_lost_ends(vcpu: str):
    events = [Item(outgoing=False, length=1400), Item(outgoing=False, length=1400), Item("after")]
    simulation = follow(
        make_world({"vcpu": vcpu, "features": [], "rx_buffer": 64}), make_traffic(events), Habits(seed=0)
    )
    assert simulation.dropped() == {"vhost_net.discarded": 2}
    assert fates(simulation).arrived[3] == 1
    assert count_of(simulation, "vcpu_wakeups") == 2 * (vcpu == "halted")


def test_regression_nothing_arrives_before_the_first_step():
    simulation = simulate(make_world({"flows": "known"}), make_traffic([Item("in", outgoing=False)]))
    simulation.machine.run()
    found = fates(simulation)
    assert (list(found.began.values()), found.arrived) == ([[1]], {1: 1})


@pytest.mark.parametrize("apicv", ["on", "off"])
def test_regression_an_interrupt_between_the_last_look_and_hlt_is_not_slept_through(apicv: str):
    traffic = make_traffic([Item("echo"), Item("reply", outgoing=False, answers=0)])
    simulation = simulate(make_world({"vcpu": "halted", "apicv": apicv, "flows": "known"}), traffic)
    machine, (vm,) = simulation.machine, simulation.vms
    vcpu = vm.vcpu.me.index
    while machine.op_next(vcpu).name != "exit_hlt":
        assert machine.move(vcpu)
    machine.run(held={vcpu})
    machine.run()
    assert vm.program.cells.received == 1
