"""Rings that a real Linux driver wrote: our device side must serve them so, and our driver side write the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from virtviz.engine.state import State
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.rings import DeviceRing, read_buffer, take
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver
from virtviz.spec.virtio import Feature

DOCUMENT = json.loads((Path(__file__).parent / "data" / "linux-driver-rings.json").read_text("utf-8"))
SETS = DOCUMENT["sets"]


class Queue:
    """The queue of a recorded set, in memory as large as the guest used."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        queue = recorded["queue"]
        areas = (int(queue[name], 16) for name in ("desc", "driver", "device"))
        self.layout = SplitLayout(queue["size"], *areas)
        self.features = int(recorded["features_hex"], 16)
        self.memory = bytearray(self.layout.end + self.layout.end % 2)
        self.state = State(recording=False)
        self.ram = self.state.adopt("ram", self.memory)

    def has(self, feature: Feature) -> bool:
        return bool(self.features >> feature & 1)

    def load(self, rings: dict[str, str]) -> None:
        for area, digits in rings.items():
            at, data = getattr(self.layout, area), bytes.fromhex(digits)
            self.memory[at : at + len(data)] = data

    def rings(self) -> dict[str, str]:
        size = self.layout.size
        lengths = {"desc": 16 * size, "avail": 6 + 2 * size, "used": 6 + 8 * size}
        return {area: bytes(self.ram.read(getattr(self.layout, area), n)).hex() for area, n in lengths.items()}

    def device(self, kind: str, start: int) -> DeviceRing:
        event_idx = self.has(Feature.RING_F_EVENT_IDX)
        if kind == "vhost":
            return SplitDevice(self.state, kind, self.ram, self.layout, event_idx=event_idx, start=start)
        return CheckedSplitDevice(
            self.state,
            kind,
            self.ram,
            self.layout,
            back_end="strict" if kind == "strict" else "qemu",
            event_idx=event_idx,
            indirect=self.has(Feature.RING_F_INDIRECT_DESC),
            start=start,
        )


def index_in(rings: dict[str, str], area: str) -> int:
    return int.from_bytes(bytes.fromhex(rings[area])[2:4], "little")


@pytest.mark.parametrize("recorded", SETS, ids=lambda recorded: recorded["what"])
@pytest.mark.parametrize("kind", ["vhost", "qemu", "strict"])
def test_our_device_side_takes_linux_rings_to_where_they_were_taken(kind, recorded):
    queue = Queue(recorded)
    queue.load(recorded["captures"][0]["idle"])
    device = queue.device(kind, index_in(recorded["captures"][0]["idle"], "used"))
    for capture in recorded["captures"]:
        assert queue.rings() == capture["idle"]
        queue.load(capture["before"])
        parts = [(int(address, 16), length) for address, length in capture["buffer"]["parts"]]
        content = bytes.fromhex(capture["bytes_read"])
        assert len(content) == sum(length for _, length in parts)
        for address, length in parts:
            queue.ram.write(address, content[:length])
            content = content[length:]
        device.disable_kicks()
        assert take(device) == "buffer"
        assert device.pieces() == parts
        assert device.cells.head == capture["buffer"]["head_or_id"]
        assert read_buffer(device).hex() == capture["bytes_read"]
        device.write_used([device.cells.head], [0])
        device.publish()
        assert device.interrupt_wanted(), "the driver asked for this one"
        device.enable_kicks()
        assert take(device) == "empty"
        assert queue.rings() == capture["after"]


@pytest.mark.parametrize("recorded", SETS, ids=lambda recorded: recorded["what"])
def test_our_driver_side_writes_what_linux_wrote(recorded):
    queue = Queue(recorded)
    event_idx, indirect = queue.has(Feature.RING_F_EVENT_IDX), queue.has(Feature.RING_F_INDIRECT_DESC)
    driver = SplitDriver(queue.state, "transmitq1", queue.ram, queue.layout, event_idx=event_idx, indirect=indirect)
    device = queue.device("vhost", 0)

    def send(address: int, length: int) -> None:
        """As start_xmit() with TX NAPI does: take back what has returned, ask for a late interrupt, add the packet."""
        driver.disable_callbacks()
        while driver.more_used():
            assert driver.take_used()
            driver.move_used_event()
        driver.enable_callbacks_delayed()
        driver.write_single(address, length, 0, 1)
        driver.list_head()
        driver.publish()
        assert driver.kick_needed()

    def serve() -> None:
        device.disable_kicks()
        assert take(device) == "buffer"
        device.write_used([device.cells.head], [0])
        device.publish()
        if device.interrupt_wanted():
            driver.note_interrupt()
        device.enable_kicks()

    # What was sent before the recording began stands in the descriptor table still.
    first = bytes.fromhex(recorded["captures"][0]["idle"]["desc"])
    send(int.from_bytes(first[:8], "little"), int.from_bytes(first[8:12], "little"))
    serve()
    for capture in recorded["captures"]:
        assert queue.rings() == capture["idle"]
        ((address, length),) = capture["buffer"]["parts"]
        send(int(address, 16), length)
        assert queue.rings() == capture["before"]
        serve()
        assert queue.rings() == capture["after"]
