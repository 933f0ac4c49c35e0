"""A virtio-net device over the rings that lessons run on, in the form in which recorded vectors are put to a model.

    Device(memory, base, features, queues)

`memory` is a bytearray with the guest's memory from address `base` on, `features` a bit mask, `queues` a list of
mappings with `index`, `size` and the addresses `desc`, `driver` and `device`. The device answers as QEMU's
virtio-net-pci does over a back-end that does not know virtio-net headers.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from virtviz.engine.state import State
from virtviz.engine.window import Window
from virtviz.paths.virtio_device.device import NetDevice
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.packed import PackedLayout
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.rings import lay_out
from virtviz.ring.split_device import SplitDevice
from virtviz.spec.virtio import VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_PCI_ISR_QUEUE, Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.memory import Port
    from virtviz.ring.rings import DeviceRing
    from virtviz.ring.verdicts import BackEnd, Verdict

MAC = bytes.fromhex("525400123456")
CONTROL = 2
"""The control queue, QEMU's even where vhost has the others."""


def device_ring(
    state: State, name: str, memory: Port, queue: Mapping[str, Any], features: int, back_end: BackEnd, start: int = 0
) -> DeviceRing | None:
    """Make the device's side of a queue, split or packed as was negotiated; None if there can be no such queue.

    vhost's knows memory that begins at address 0 only.
    """

    def has(feature: Feature) -> bool:
        return bool(features >> feature & 1)

    event_idx, indirect = has(Feature.RING_F_EVENT_IDX), has(Feature.RING_F_INDIRECT_DESC)
    areas = (queue[area] for area in ("desc", "driver", "device"))
    layout = lay_out(memory, queue["size"], *areas, packed=has(Feature.F_RING_PACKED))
    if layout == "queue not allowed":
        return None
    if isinstance(layout, PackedLayout):
        return PackedDevice(
            state,
            name,
            memory,
            layout,
            back_end=back_end,
            event_idx=event_idx,
            indirect=indirect,
            in_order=has(Feature.F_IN_ORDER),
        )
    if back_end == "vhost":
        return SplitDevice(state, name, memory, layout, event_idx=event_idx, start=start)
    return CheckedSplitDevice(
        state, name, memory, layout, back_end=back_end, event_idx=event_idx, indirect=indirect, start=start
    )


class Device:
    """The device, ready: DRIVER_OK is set."""

    def __init__(
        self,
        memory: bytearray,
        base: int,
        features: int,
        queues: Sequence[Mapping[str, Any]],
        back_end: BackEnd = "qemu",
        *,
        recording: bool = False,
        watch: Callable[[Port], Port] = lambda port: port,
    ) -> None:
        self.state = State(recording=recording)
        self._memory = watch(Window(self.state.adopt("arena", memory), base))
        self._features = features
        self._queues = {queue["index"]: queue for queue in queues}
        self._back_end: BackEnd = back_end
        made = {index: self._ring(index) for index in self._queues}
        self.rings = {index: ring for index, ring in made.items() if ring}
        self.net = NetDevice(
            self.state, "net", self.rings, features=features, back_end=back_end, mac=MAC, vnet_hdr=False
        )
        self.net.set_status(VIRTIO_CONFIG_S_DRIVER_OK)
        for index in made.keys() - self.rings.keys():
            self.net.refuse_queue(index)
        self._out: list[bytes] = []
        self._backlog: deque[bytes] = deque()

    def kick(self, queue: int) -> None:
        """The driver notifies a queue."""
        self._out += self.net.kick(queue)
        if queue % 2 == 0 and queue != CONTROL:
            self._deliver()

    def inject(self, frame: bytes) -> None:
        """A frame arrives from the network."""
        self._backlog.append(bytes(frame))
        self._deliver()

    def _deliver(self) -> None:
        while self._backlog and self.net.receive(self._backlog[0]) != "no room":
            self._backlog.popleft()

    def frames(self) -> list[bytes]:
        """Give the frames sent since this was last asked."""
        out, self._out = self._out, []
        return out

    def interrupted(self) -> bool:
        """Say whether a used-buffer interrupt was raised since this was last asked."""
        return bool(self.net.read_isr() & VIRTIO_PCI_ISR_QUEUE)

    def broken(self) -> bool:
        """Say whether the device needs a reset."""
        return bool(self.net.cells.broken)

    def verdict(self) -> Verdict | None:
        """Give the verdict on the last malformed state met."""
        return self.net.verdict()

    def start_at(self, queue: int, index: int) -> None:
        """Let a queue stand at an index, as if so many buffers had been served."""
        ring = self._ring(queue, index)
        if ring:
            self.rings[queue] = self.net.rings[queue] = ring

    def _ring(self, queue: int, start: int = 0) -> DeviceRing | None:
        back_end: BackEnd = "qemu" if self._back_end == "vhost" and queue == CONTROL else self._back_end
        name = f"queue{queue} from {start}"
        return device_ring(self.state, name, self._memory, self._queues[queue], self._features, back_end, start)
