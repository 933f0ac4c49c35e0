"""A small split ring with both ends, and a slow, obvious model of what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from virtviz.engine.state import State
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver
from virtviz.spec.virtio import VIRTQ_DESC

if TYPE_CHECKING:
    from virtviz.engine.memory import Region

BUFFERS = 0x1000
"""Where the tests' buffers lie."""


@dataclass
class Ring:
    """A ring in memory of its own, and its two ends."""

    state: State
    memory: Region
    layout: SplitLayout
    driver: SplitDriver
    device: SplitDevice

    def word(self, address: int) -> int:
        """Read a word as an outsider."""
        return self.memory.plain_u16[address // 2]

    def put_word(self, address: int, value: int) -> None:
        """Write a word as an outsider."""
        self.memory.plain_u16[address // 2] = value

    def desc(self, index: int) -> tuple[Any, ...]:
        """Read a descriptor as an outsider: address, length, flags, next."""
        return VIRTQ_DESC.unpack_from(self.memory.bytes, self.layout.desc + 16 * index)

    def put_desc(self, index: int, address: int, length: int, flags: int, following: int) -> None:
        """Write a descriptor as an outsider."""
        VIRTQ_DESC.pack_into(self.memory.bytes, self.layout.desc + 16 * index, address, length, flags, following)

    def offer(self, head: int, times: int = 1) -> None:
        """Make a head available as an outsider, without asking the driver."""
        for _ in range(times):
            index = self.word(self.layout.avail_idx)
            self.put_word(self.layout.avail_ring(index & (self.layout.size - 1)), head)
            self.put_word(self.layout.avail_idx, index + 1 & 0xFFFF)

    def send(self, token: int, *lengths: int, writable: int = 0) -> int:
        """Let the driver publish a buffer of pieces of these lengths; answers its head."""
        pieces = [(BUFFERS + 0x100 * i, length) for i, length in enumerate(lengths)]
        head = self.driver.write_chain(pieces, writable, token)
        self.driver.write_avail_ring()
        self.driver.publish_avail_idx()
        return head

    def fetch(self) -> str:
        """Let the device take the next buffer; answers its last word about it."""
        answer: str = self.device.read_avail_idx()
        mine = self.device.cells
        if answer == "empty" and mine.avail_idx == mine.last_avail_idx:
            return answer
        if answer == "avail.idx jumped":
            return answer
        answer = self.device.read_head()
        while answer in ("head", "next", "indirect"):
            answer = self.device.read_desc()
        return answer

    def give_back(self, *heads: int, written: int = 0) -> None:
        """Let the device return buffers."""
        self.device.write_used(list(heads), [written] * len(heads))
        self.device.publish_used_idx()


def make_ring(
    size: int = 4, *, event_idx: bool = True, indirect: bool = False, start: int = 0, recording: bool = False
) -> Ring:
    """Make a ring whose indices begin at `start`."""
    state = State(recording=recording)
    memory = state.region("ram", 0x2000)
    layout = SplitLayout.at(0x100, size)
    for address in (layout.avail_idx, layout.used_idx, layout.used_event, layout.avail_event):
        memory.plain_u16[address // 2] = start
    driver = SplitDriver(state, "q", memory, layout, event_idx=event_idx, indirect=indirect, start=start)
    device = SplitDevice(state, "dev", memory, layout, event_idx=event_idx, start=start)
    return Ring(state, memory, layout, driver, device)
