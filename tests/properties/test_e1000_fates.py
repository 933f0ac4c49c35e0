"""What holds for every frame, ring and counter holds where the network card is an emulated e1000 too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import Habits, habits, traffics, traffics_of_two
from test_every_frame import follow

from virtviz.engine.counters import count
from virtviz.engine.schedule import BySimulatedTime, Chosen
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Traffic, make_traffic
from virtviz.paths.wiring import E1000Vm, simulate

if TYPE_CHECKING:
    from virtviz.paths.wiring import Simulation


@st.composite
def worlds(draw: st.DrawFn, **fixed: object) -> World:
    """Draw settings that go together with an e1000; some are given."""
    chosen: dict[str, object] = {
        "path": "e1000",
        "queue.size": draw(st.sampled_from((64, 128, 256))),
        "bql_limit_min": draw(st.sampled_from((65536, 0, 300))),
        "socket_sndbuf": draw(st.sampled_from((212992, 4096))),
        "cpu": draw(st.sampled_from(("intel", "amd"))),
        "machine": draw(st.sampled_from(("direct", "pc", "q35"))),
        "vcpu": draw(st.sampled_from(("running", "halted"))),
        "guest_if": draw(st.sampled_from(("on", "on", "off"))),
        "txqueuelen": draw(st.sampled_from((1000, 1, 4))),
        "switch": draw(st.sampled_from(("ovs", "ovs", "bridge"))),
        "flows": draw(st.sampled_from(("known", "unknown"))),
        "handlers": draw(st.integers(1, 3)),
        "far_port": draw(st.sampled_from(("nic", "nic", "veth"))),
        "nic_ring": draw(st.sampled_from((512, 8))),
        "store_buffer": draw(st.sampled_from(("off", "off", "on"))),
    }
    if fixed.get("vms") == 2 and chosen["switch"] == "bridge":
        chosen["flows"] = "known"
    chosen["apicv"] = draw(st.sampled_from(("on", "off"))) if chosen["cpu"] == "intel" else "off"
    return make_world(chosen | fixed)


def settled(simulation: Simulation) -> None:
    """See that rings, line and timer are at rest, and that no memory is lost."""
    for vm in simulation.vms:
        assert isinstance(vm, E1000Vm)
        device, tx, rx = vm.device.cells, vm.tx.cells, vm.rx.cells
        assert device.tdh == device.tdt == tx.next_to_use == tx.next_to_clean
        assert device.rdh == rx.next_to_clean
        assert (rx.next_to_use - 1) % vm.rx.size == device.rdt
        assert not any(tx.tokens)
        assert (device.irq_level, device.timer, device.frame, device.size, device.icr & device.ims) == (0, 0, 0, 0, 0)


@given(worlds(), traffics(), habits())
def test_every_frame_is_received_once_or_is_in_a_named_drop_counter(world: World, traffic: Traffic, schedule: Habits):
    settled(follow(world, traffic, schedule))


@given(worlds(vms=2), traffics_of_two(), habits())
def test_so_it_is_between_two_machines(world: World, traffic: Traffic, schedule: Habits):
    settled(follow(world, traffic, schedule))


MIXED = [Item(length=1400, kind="udp"), Item(), Item(outgoing=False, answers=1), Item(length=1400, outgoing=False)]


@pytest.mark.parametrize("settings", [{}, {"profile": "recorded", "vcpu": "halted"}, {"vms": 2}], ids=str)
def test_counting_alone_counts_what_recording_counts_and_undo_goes_back_exactly(settings: dict[str, object]):
    traffic = make_traffic(MIXED, 12)
    world = make_world({"path": "e1000"} | settings)
    recorded, counted = simulate(world, traffic), simulate(world, traffic, recording=False)
    machine = recorded.machine
    start = machine.digest()
    machine.run()
    counted.machine.run()
    assert count(machine.program.arcs, machine.hits) == count(counted.machine.program.arcs, counted.machine.hits)
    assert machine.position == counted.machine.position
    end, length = machine.digest(), machine.position
    machine.seek(0)
    assert machine.digest() == start
    machine.seek(length // 3)
    machine.seek(length)
    assert machine.digest() == end


@pytest.mark.parametrize(("room", "lost"), [(1000, 0), (30, 7)])
def test_frames_without_a_descriptor_wait_in_the_tap_and_are_dropped_there_when_it_is_full(room: int, lost: int):
    world = make_world({"path": "e1000", "flows": "known", "queue.size": 64, "txqueuelen": room})
    simulation = simulate(world, make_traffic([Item(kind="udp", length=18, outgoing=False)] * 100))
    machine, vm = simulation.machine, simulation.vms[0]
    assert isinstance(vm, E1000Vm)
    numbers = {thread.name: i for i, thread in enumerate(machine.threads)}
    wire = [i for name, i in numbers.items() if name.startswith(("eth0", "softirq"))]
    others = [i for name, i in numbers.items() if name != "vm1.vcpu0" and i not in wire]
    # The guest does not run; QEMU takes what comes at once.
    order = Chosen(lambda m: next((i for i in (*others, *wire) if i in m.movable()), -1))
    machine.run(scheduler=order, held={numbers["vm1.vcpu0"]})
    # 63 descriptors of 64 are filled, and the tail points at the last of them: 62 are the device's. One frame more
    # has been read, for which QEMU found none, and waits in QEMU; the rest waits in the TAP.
    assert vm.device.cells.rdh == vm.device.cells.rdt == 62
    dropped = {"tap0.tx_dropped": lost} if lost else {}
    assert simulation.dropped() == dropped
    machine.run()
    assert simulation.dropped() == dropped
    settled(simulation)


@pytest.mark.parametrize("outgoing", [True, False])
def test_a_burst_in_simulated_time_loses_nothing(outgoing: bool):  # noqa: FBT001 - the parameter of the test
    world = make_world({"path": "e1000", "flows": "known"})
    simulation = simulate(world, make_traffic([Item(kind="udp", length=18, outgoing=outgoing)] * 64))
    while simulation.machine.run(scheduler=BySimulatedTime()):
        pass
    simulation.machine.run()
    assert simulation.dropped() == {}
    settled(simulation)
