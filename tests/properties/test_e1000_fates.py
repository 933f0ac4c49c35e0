"""What holds for every frame, ring and counter holds where the network card is an emulated e1000 too."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Habits, fates, habits, traffics, traffics_of_two
from test_every_frame import count_of, follow

from virtviz.engine.counters import count
from virtviz.engine.schedule import BySimulatedTime
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Traffic, make_traffic
from virtviz.paths.wiring import E1000Vm, Simulation, simulate


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
