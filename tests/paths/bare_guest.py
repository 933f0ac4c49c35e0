"""A guest that is nothing but a driver's side of each queue, and a virtio-net device on the other."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from virtviz.engine.state import State
from virtviz.paths.virtio_device.device import NetDevice
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.packed import PackedLayout
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.packed_driver import PackedDriver
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver
from virtviz.spec.virtio import VIRTIO_CONFIG_S_DRIVER_OK, Feature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from virtviz.ring.rings import DeviceRing, DriverRing
    from virtviz.ring.verdicts import BackEnd

MAC = bytes.fromhex("525400123456")
HEADER = 12
BUFFERS, BUFFER_BYTES = 0x8000, 0x800


class BareGuest:
    """Queues of 8 descriptors, a buffer of 2 KiB for each number from 0."""

    def __init__(
        self,
        *features: Feature,
        layout: str = "split",
        back_end: BackEnd = "qemu",
        pairs: int = 1,
        start: int = 0,
        ready: bool = True,
        recording: bool = False,
        version_1: bool = True,
        **more: Any,
    ) -> None:
        self.state = State(recording=recording)
        self.ram = self.state.region("ram", 0x20000)
        self.layout, self.back_end, self.start = layout, back_end, start
        wanted = {*features} | ({Feature.F_VERSION_1} if version_1 else set())
        self.features = sum(1 << feature for feature in wanted)
        self.event_idx = Feature.RING_F_EVENT_IDX in wanted
        self.pairs = pairs
        self.control = 2 * pairs
        self.layouts: dict[int, Any] = {}
        self.drivers: dict[int, DriverRing] = {}
        for queue in range(self.control + 1):
            place = PackedLayout if layout == "packed" else SplitLayout
            self.layouts[queue] = place.at(0x400 * queue, 8)
        self.make_drivers(start)
        devices = {queue: self._device(queue) for queue in self.layouts}
        self.net = NetDevice(
            self.state,
            "net",
            devices,
            features=self.features,
            back_end=back_end,
            mac=MAC,
            max_pairs=pairs,
            **more,
        )
        if ready:
            self.net.set_status(VIRTIO_CONFIG_S_DRIVER_OK)

    def make_drivers(self, start: int = 0, name: str = "driver") -> None:
        """Give every queue a driver's side in memory that was not used before."""
        for queue, layout in self.layouts.items():
            self.ram.write(0x400 * queue, bytes(0x400))
            at = self.state, f"{name}{queue}", self.ram, layout
            if self.layout == "packed":
                self.drivers[queue] = PackedDriver(*at, event_idx=self.event_idx)
            else:
                for word in (layout.avail_idx, layout.used_idx, layout.avail_event, layout.used_event):
                    self.ram.plain_u16[word // 2] = start
                self.drivers[queue] = SplitDriver(*at, event_idx=self.event_idx, start=start)

    def _device(self, queue: int) -> DeviceRing:
        back_end: BackEnd = "qemu" if self.back_end == "vhost" and queue == self.control else self.back_end
        at = self.state, f"device{queue}", self.ram, self.layouts[queue]
        if self.layout == "packed":
            return PackedDevice(*at, back_end=back_end, event_idx=self.event_idx, indirect=False)
        if back_end == "vhost":
            return SplitDevice(*at, event_idx=self.event_idx, start=self.start)
        return CheckedSplitDevice(*at, back_end=back_end, event_idx=self.event_idx, indirect=False, start=self.start)

    def at(self, number: int) -> int:
        return BUFFERS + BUFFER_BYTES * number

    def offer(self, queue: int, pieces: list[tuple[int, int]], writable: int, token: int) -> None:
        driver = self.drivers[queue]
        driver.write_chain(pieces, writable, token)
        driver.list_head()
        driver.publish()

    def offer_room(self, *lengths: int, queue: int = 0) -> None:
        """Offer buffers to receive into, buffer i being number i."""
        for i, length in enumerate(lengths):
            self.ram.write(self.at(i), b"\xee" * length)
            self.offer(queue, [(self.at(i), length)], 1, i + 1)

    def back(self, queue: int) -> list[tuple[int, int]]:
        """Take back what has returned: tokens and lengths."""
        driver, found = self.drivers[queue], []
        while driver.more_used():
            assert driver.take_used()
            found.append((driver.cells.token, driver.cells.written))
        return found

    def send(self, *frames: bytes, queue: int = 1) -> list[bytes]:
        for i, frame in enumerate(frames):
            self.ram.write(self.at(16 + i), bytes(HEADER) + frame)
            self.offer(queue, [(self.at(16 + i), HEADER + len(frame))], 0, i + 1)
        return self.net.kick(queue)

    def command(self, group: int, command: int, data: bytes = b"") -> int:
        """Send a command; answers what the device answered."""
        where = self.at(40)
        self.ram.write(where, bytes([group, command]) + data + b"\xaa")
        pieces = [(where, 2), (where + 2, len(data)), (where + 2 + len(data), 1)]
        self.offer(self.control, [piece for piece in pieces if piece[1]], 1, 1)
        self.net.kick(self.control)
        assert self.back(self.control) == [(1, 1)]
        return self.ram.read(where + 2 + len(data), 1)[0]

    def set_table(self, unicast: Iterable[bytes], multicast: Iterable[bytes]) -> int:
        unicast, multicast = list(unicast), list(multicast)
        data = struct.pack("<I", len(unicast)) + b"".join(unicast)
        return self.command(1, 0, data + struct.pack("<I", len(multicast)) + b"".join(multicast))


def frame_to(target: str, tag: int | None = None, length: int = 60) -> bytes:
    """A frame to an address, with a VLAN tag or not."""
    vlan = b"" if tag is None else b"\x81\x00" + tag.to_bytes(2, "big")
    head = bytes.fromhex(target) + bytes.fromhex("525400aabbcc") + vlan + b"\x88\xb5"
    return head + bytes(i % 256 for i in range(length - len(head)))
