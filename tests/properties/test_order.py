"""Frames of a flow arrive in the order in which they were sent, but one that goes up by upcall may be overtaken."""

from __future__ import annotations

from hypothesis import given
from simulated import STEPS_MAX, Habits, fates, habits, traffics, worlds

from virtviz.engine.schedule import Chosen
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Traffic, make_traffic
from virtviz.paths.wiring import simulate


@given(worlds(far_port="nic"), traffics(), habits())
def test_order_holds_for_each_flow_except_across_an_upcall(world: World, traffic: Traffic, schedule: Habits):
    order_holds(world, traffic, schedule)


def order_holds(world: World, traffic: Traffic, schedule: Habits) -> None:
    """Run a world, and compare for each flow the order of arrival with that of setting out."""
    simulation = simulate(world, traffic)
    simulation.machine.run(STEPS_MAX, schedule.scheduler())
    found = fates(simulation)
    for flow, arrived in found.order.items():
        began = [frame for frame in found.began.get(flow, []) if found.arrived[frame]]
        for went_up in (False, True):
            expected = [frame for frame in began if (frame in found.up) == went_up]
            assert [frame for frame in arrived if (frame in found.up) == went_up] == expected
    if world["flows"] == "known":
        assert not found.up


def test_a_frame_that_goes_up_by_upcall_is_overtaken_by_the_next_of_its_flow():
    """The handler installs the flow first and executes the packet afterwards: in between, the next finds the flow."""
    simulation = simulate(make_world({"flows": "unknown"}), make_traffic([Item("first"), Item("second")]))
    machine = simulation.machine
    handler = next(i for i, thread in enumerate(machine.threads) if thread.name == "handler1")
    vcpu = next(i for i, thread in enumerate(machine.threads) if thread.name == "vm1.vcpu0")
    installed = machine.state.names.index("ovs.flows.count")

    def second_waits_for_the_flow(_: object) -> int:
        """Let the first go up and its flow be installed; then let everybody but the handler run."""
        movable = machine.movable()
        others = [index for index in movable if index != handler]
        if machine.state.value(installed):
            return (others or movable or [-1])[0]
        first_sent = machine.state.value(machine.state.names.index("vm1.program.done"))
        without_vcpu = [index for index in movable if index != vcpu]
        return (without_vcpu if first_sent and without_vcpu else movable or [-1])[0]

    machine.run(scheduler=Chosen(second_waits_for_the_flow))
    found = fates(simulation)
    assert found.up == {1}
    assert list(found.order.values()) == [[2, 1]]
    assert not simulation.dropped()
