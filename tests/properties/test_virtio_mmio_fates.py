"""Over virtio-mmio no order of moves loses an interrupt or a kick, and every frame has a fate, as on PCI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import Habits, habits, traffics, worlds
from test_every_frame import follow
from test_every_interleaving import (
    EVENT_IDX,
    FLAGS,
    QEMU,
    search,
    small,
    with_frames_in_the_tap,
)

if TYPE_CHECKING:
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic

MMIO: dict[str, object] = {"transport": "mmio"}
FIXED = MMIO | {"guest": "kernel", "pv_eoi": "on", "fast_mmio": "on", "switch": "ovs"}
OF_QEMU = FIXED | {"path": "virtio-qemu", "busy_poll_us": 0, "sndbuf": "unlimited"}
WORLDS = st.one_of(
    worlds(**FIXED, **{"queue.format": "split"}, path="vhost-net", ioeventfd="on", tunnel="none"),
    worlds(**OF_QEMU, **{"queue.format": "split"}),
    worlds(**OF_QEMU, **{"queue.format": "packed", "features": "event_idx,indirect"}),
)


@given(WORLDS, traffics(), habits())
def test_every_frame_is_received_once_or_is_in_a_named_drop_counter(world: World, traffic: Traffic, schedule: Habits):
    simulation = follow(world, traffic, schedule)
    cells = dict(zip(simulation.machine.state.names, map(simulation.machine.state.value, range(10**6)), strict=False))
    (vm,) = simulation.vms
    at_rest = {
        name: cells[f"{vm.name}.{name}"] for name in ("device.isr", "ioapic.line.level", "ioapic.pin.in_service")
    }
    assert set(at_rest.values()) == {0}


@pytest.mark.parametrize(("ring", "features"), [("split", EVENT_IDX), ("split", FLAGS), ("packed", EVENT_IDX)], ids=str)
def test_no_interleaving_loses_an_interrupt_of_qemu(ring: str, features: list[str]):
    found = search(with_frames_in_the_tap(features, **MMIO, **QEMU, **{"queue.format": ring}))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 1_000


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
def test_none_of_the_first_interleavings_loses_an_interrupt_of_vhost(features: list[str]):
    found = search(with_frames_in_the_tap(features, **MMIO), 30_000)
    assert found.bad == ""


@pytest.mark.campaign
@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
def test_campaign_no_interleaving_loses_an_interrupt_of_vhost(features: list[str]):
    found = search(with_frames_in_the_tap(features, **MMIO))
    assert (found.bad, found.complete) == ("", True)


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize("path", [{}, QEMU, QEMU | {"ioeventfd": "off"}], ids=str)
def test_no_interleaving_loses_a_kick(path: dict[str, object], features: list[str]):
    found = search(small(2, outgoing=True, features=features, **MMIO, **path))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 1_000
