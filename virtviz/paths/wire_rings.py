"""Making the two sides of a world's queues, and their routines, for the layout that driver and device agreed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from virtviz.engine.ops import Routine
from virtviz.paths.features import EVENT_IDX, INDIRECT
from virtviz.ring.packed import PackedLayout
from virtviz.ring.split_driver import SplitDriver

if TYPE_CHECKING:
    from virtviz.engine.memory import Port
    from virtviz.paths.knobs import World
    from virtviz.paths.parts import Parts
    from virtviz.ring.rings import DriverRing, Layout, QemuRing

R = TypeVar("R", bound=Routine)


def routine_kind(world: World, kind: type[R]) -> type[R]:
    """Give the class of a routine that works on a queue, for the layout of this world's queues.

    Args:
        world: checked settings.
        kind: the class for split queues.
    """
    if world["queue.format"] != "packed":
        return kind
    from virtviz.paths import qemu_packed, vhost_user_packed, virtio_packed  # noqa: PLC0415 - where rings are packed only

    over_packed = {**virtio_packed.OVER_PACKED, **qemu_packed.OVER_PACKED, **vhost_user_packed.OVER_PACKED}
    return over_packed.get(kind, kind)  # type: ignore[return-value]


def make_driver(parts: Parts, name: str, memory: Port, layout: Layout, *, indirect: bool) -> DriverRing:
    """Make the driver's side of a queue.

    Args:
        parts: the world in the making.
        name: the queue's name.
        memory: guest memory, as the driver's CPU reaches it.
        layout: where the queue lies.
        indirect: the queue may use indirect tables; Linux does not where it keeps a context for each buffer.
    """
    kind: type[Any] = SplitDriver
    if isinstance(layout, PackedLayout):
        from virtviz.ring.packed_driver import PackedDriver as kind  # noqa: N813, PLC0415 - where rings are packed only
    elif parts.world["guest"] == "dpdk":
        from virtviz.ring.dpdk_driver import PollingDriver as kind  # noqa: N813, PLC0415 - where a guest polls only
    event_idx, start = parts.world.has(EVENT_IDX), parts.world.number("queue.start")
    made: DriverRing = kind(parts.state, name, memory, layout, event_idx=event_idx, indirect=indirect, start=start)
    return made


def make_qemu_ring(parts: Parts, name: str, memory: Port, layout: Layout) -> QemuRing:
    """Make QEMU's side of a queue.

    Args:
        parts: the world in the making.
        name: such as `qemu-4002.transmitq1.ring`.
        memory: guest memory, as the CPU of QEMU's main loop reaches it.
        layout: where the queue lies.
    """
    from virtviz.ring.qemu_device import QemuDevice, QemuPackedDevice  # noqa: PLC0415 - where QEMU serves queues only

    world = parts.world
    kind = QemuPackedDevice if isinstance(layout, PackedLayout) else QemuDevice
    made: QemuRing = kind(
        parts.state,
        name,
        memory,
        layout,  # type: ignore[arg-type]
        back_end="qemu",
        event_idx=world.has(EVENT_IDX),
        indirect=world.has(INDIRECT),
        start=world.number("queue.start"),
    )
    return made
