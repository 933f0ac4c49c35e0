"""Every interleaving of driver and device on a small ring: with all its parts the ring loses nobody's notification.

With the device's second look taken out, or either side's full barrier, the search finds an order of moves after which a
buffer lies in the ring for good, or a frame that came in is never seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from virtviz.engine.explore import Found, explore
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.schedule import Chosen
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import Simulation, simulate
from virtviz.ring.index import pending
from virtviz.ring.split import SplitLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL = {
    "queue.size": 4,
    "tx_stop_threshold": 2,
    "txqueuelen": 4,
    "nic_ring": 8,
    "handlers": 1,
    "flows": "known",
    "napi_tx": "off",
    "store_buffer": "on",
}
RECHECK = "vm1.transmitq1.handle/recheck_avail_idx=still empty"
DRIVER_BARRIER = "vm1.transmitq1.start_xmit/mb_before_kick_check"
DEVICE_BARRIER = "vm1.transmitq1.handle/mb_before_recheck"
DEVICE_BARRIER_IN = "vm1.receiveq1.return/mb_before_interrupt_check"
DRIVER_BARRIER_IN = "vm1.receiveq1.poll/mb_before_last_look"
QEMU_BARRIER = "vm1.transmitq1.send/mb_before_recheck"
EVENT_IDX, FLAGS = ["event_idx"], []
QEMU = {"path": "virtio-qemu"}
PACKED = {"queue.format": "packed"}


def small(frames: int, *, outgoing: bool, omit: Sequence[str] = (), **knobs: object) -> Simulation:
    """Make a small world in which so many frames go out, into a device that takes them, or come in."""
    world = make_world(SMALL | {"far_port": "dummy" if outgoing else "veth"} | knobs)
    return simulate(world, make_traffic([Item(kind="udp", length=8, outgoing=outgoing)] * frames), omit=omit)


def search(simulation: Simulation, limit: int = 1_000_000) -> Found:
    """Search every order of moves of a world."""
    machine = simulation.machine
    assert isinstance(machine, RecordingMachine)
    return explore(machine, wrong_at_rest=lambda: lost(simulation), limit=limit)


def lost(simulation: Simulation) -> str:
    """Say what waits for ever, where nothing can move any more."""
    (vm,) = simulation.vms
    if not isinstance(vm.tx_layout, SplitLayout):
        if vm.tx_device.look() == "new":
            return "a published buffer is never served"
    else:
        avail_idx = vm.memory.plain_u16[vm.tx_layout.avail_idx // 2]
        unserved = pending(avail_idx, vm.tx_device.cells.last_avail_idx)
        if unserved:
            return f"{unserved} published buffer(s) are never served"
    came_in = sum(not item.outgoing for item in simulation.traffic.items)
    unseen = came_in - vm.program.cells.received
    return f"{unseen} frame(s) are never seen by the guest" if unseen else ""


@pytest.mark.parametrize(
    ("features", "napi_tx", "frames"),
    [(EVENT_IDX, "off", 3), (FLAGS, "off", 3), (EVENT_IDX, "on", 2), (FLAGS, "on", 2)],
)
def test_no_interleaving_loses_a_kick(features: list[str], napi_tx: str, frames: int):
    found = search(small(frames, outgoing=True, features=features, napi_tx=napi_tx))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 10_000


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize("napi_tx", ["on", "off"])
@pytest.mark.parametrize("omit", [RECHECK, DRIVER_BARRIER, DEVICE_BARRIER])
def test_without_the_second_look_or_a_barrier_a_kick_is_lost(omit: str, napi_tx: str, features: list[str]):
    simulation = small(2, outgoing=True, features=features, napi_tx=napi_tx, omit=[omit])
    found = search(simulation)
    assert found.bad == "1 published buffer(s) are never served"
    # The order that was found can be followed, and leads there.
    machine = simulation.machine
    assert machine.position == 0
    assert machine.run(scheduler=Chosen(found.schedule)) == len(found.schedule)
    assert machine.movable() == []
    assert lost(simulation) == found.bad


@pytest.mark.parametrize("omit", [DRIVER_BARRIER, DEVICE_BARRIER])
def test_where_stores_are_visible_at_once_a_barrier_changes_nothing(omit: str):
    found = search(small(3, outgoing=True, store_buffer="off", omit=[omit]))
    assert (found.bad, found.complete) == ("", True)
    without = search(small(3, outgoing=True, store_buffer="off", omit=[RECHECK]))
    assert without.bad, "the second look is needed all the same"


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize("ioeventfd", ["on", "off"])
def test_no_interleaving_loses_a_kick_of_qemu(features: list[str], ioeventfd: str):
    found = search(small(2, outgoing=True, features=features, path="virtio-qemu", ioeventfd=ioeventfd))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 4_000


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize("ioeventfd", ["on", "off"])
@pytest.mark.parametrize("omit", [DRIVER_BARRIER, QEMU_BARRIER])
def test_without_a_barrier_a_kick_of_qemu_is_lost(omit: str, ioeventfd: str, features: list[str]):
    found = search(small(2, outgoing=True, features=features, path="virtio-qemu", ioeventfd=ioeventfd, omit=[omit]))
    assert found.bad == "1 published buffer(s) are never served"


def with_frames_in_the_tap(features: list[str], omit: Sequence[str] = (), **knobs: object) -> Simulation:
    """Make a small world in which two frames wait in the TAP's queue; the device returns them one by one."""
    simulation = small(2, outgoing=False, features=features, omit=omit, weight=1, **knobs)
    machine = simulation.machine
    peer = next(thread.me.index for thread in machine.threads if thread.name == "peer")
    machine.run(held={thread.me.index for thread in machine.threads} - {peer})
    return simulation


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
def test_no_interleaving_loses_an_interrupt(features: list[str]):
    found = search(with_frames_in_the_tap(features))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 1_000


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize("omit", [DEVICE_BARRIER_IN, DRIVER_BARRIER_IN])
def test_without_a_barrier_an_interrupt_is_lost(omit: str, features: list[str]):
    found = search(with_frames_in_the_tap(features, [omit]))
    assert found.bad == "1 frame(s) are never seen by the guest"


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
def test_no_interleaving_loses_an_interrupt_of_qemu(features: list[str]):
    found = search(with_frames_in_the_tap(features, **QEMU))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 10_000


@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
def test_over_packed_rings_qemu_can_lose_an_interrupt_for_want_of_a_barrier(features: list[str]):
    """QEMU's virtio_packed_should_notify has none where virtio_split_should_notify has one (hw/virtio/virtio.c).

    Entering an RCU read section would be one, but a frame is delivered within one already (virtio_net_do_receive).
    """
    found = search(with_frames_in_the_tap(features, **QEMU, **PACKED))
    assert found.bad == "1 frame(s) are never seen by the guest"
    at_once = search(with_frames_in_the_tap(features, **QEMU, **PACKED, store_buffer="off"))
    assert (at_once.bad, at_once.complete) == ("", True)


@pytest.mark.campaign
@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize(("outgoing", "napi_tx"), [(True, "on"), (False, "on"), (False, "off")])
def test_campaign_no_interleaving_loses_a_notification(features: list[str], napi_tx: str, *, outgoing: bool):
    frames = 3 if outgoing else 2
    found = search(small(frames, outgoing=outgoing, features=features, napi_tx=napi_tx), 10_000_000)
    assert (found.bad, found.complete) == ("", True)
