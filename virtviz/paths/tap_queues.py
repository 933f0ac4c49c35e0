"""A TAP device with several queues: which of them a frame for the guest goes into.

Every queue is a file descriptor of its own (IFF_MULTI_QUEUE), here one for each queue pair of the guest. When a frame
of the guest comes out of a queue, the device remembers that its flow uses this queue; a frame for the guest goes into
the queue its flow used last, so that an answer returns to the vCPU that asked. A flow that the guest has not sent on is
spread by its hash. A program that chooses instead is in `tap_steering.py`.

Linux hashes with SipHash and a key made at random when it starts, so that nobody outside can say which queue a flow is
given; here it is CRC-32, so that a lesson is the same every time. Linux forgets a flow three seconds after its last
frame (tun_flow_cleanup); no run here lasts that long.

Source: Linux 6.12 drivers/net/tun.c (tun_automq_select_queue, tun_flow_update, tun_xdp_one, tun_get_user),
net/core/flow_dissector.c (__skb_get_hash_symmetric, flow_keys_dissector_symmetric_keys).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from zlib import crc32

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import Routine, call, call_any, goto, op
from virtviz.paths.tap import Tap, TapSendmsg
from virtviz.paths.tap_chr import TapWrite, TapWriteWithSoftirqs
from virtviz.spec.citation import TUN
from virtviz.spec.frames import ETH_HEADER_BYTES, ETHERTYPE_IPV4, IPV4_HEADER_BYTES, L4_HEADER_BYTES, PROTO_UDP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.vhost import VhostQueue

FLOWS_MAX: Final = 4096
"""Flows that a TAP remembers (MAX_TAP_FLOWS); what comes after that is spread by its hash for ever."""
PROTO_TCP: Final = 6
_NETWORK: Final = ETH_HEADER_BYTES
_TRANSPORT: Final = ETH_HEADER_BYTES + IPV4_HEADER_BYTES


def flow_hash(frame: bytes | bytearray) -> int:
    """Give a frame's flow as a number, u32 and never 0: the same for both directions of a conversation.

    It is made of the protocol, both IPv4 addresses, and for TCP and UDP both ports. The identifier of an echo request
    is not part of it: all programs of a guest that ping the same host are one flow.
    """
    ethertype = bytes(frame[12:14])
    if int.from_bytes(ethertype, "big") != ETHERTYPE_IPV4 or len(frame) < _TRANSPORT:
        return crc32(ethertype) or 1
    protocol = frame[_NETWORK + 9]
    ends = sorted((bytes(frame[_NETWORK + 12 : _NETWORK + 16]), bytes(frame[_NETWORK + 16 : _NETWORK + 20])))
    if protocol in (PROTO_UDP, PROTO_TCP) and len(frame) >= _TRANSPORT + L4_HEADER_BYTES // 2:
        ends += sorted((bytes(frame[_TRANSPORT : _TRANSPORT + 2]), bytes(frame[_TRANSPORT + 2 : _TRANSPORT + 4])))
    return crc32(b"".join((ethertype, bytes((protocol,)), *ends))) or 1


@cells
class FlowCells(Cells):
    """The flows a TAP remembers.

    Attributes:
        count: how many.
        hashes: hash of the flow in each place; 0 for none.
        queues: number of the queue that it was last sent on, from 0.
    """

    count: int = 0
    hashes: list[int]
    queues: list[int]


class TapFlows:
    """What a TAP with several queues remembers of flows.

    Args:
        name: the device's.
        queues: how many it has.

    Attributes:
        count_off: says how many of them, the last ones, are switched off; set by the wiring where any can be.
    """

    def __init__(self, state: State, name: str, queues: int) -> None:
        self.queues = queues
        self.count_off: Callable[[], int] = lambda: 0
        self.cells = state.add(FlowCells, f"{name}.flows", hashes=[0] * FLOWS_MAX, queues=[0] * FLOWS_MAX)

    def _place(self, flow: int) -> int:
        """Give a flow's place in the table, or the free one that it would have; -1 if it has none and all are taken."""
        hashes = self.cells.hashes
        for at in range(flow, flow + FLOWS_MAX):
            if hashes[at % FLOWS_MAX] in (flow, 0):
                return at % FLOWS_MAX
        return -1

    def queue_of(self, flow: int) -> tuple[int, bool]:
        """Choose a queue for a frame of a flow; answers its number, and whether the flow is remembered."""
        at = self._place(flow)
        if at >= 0 and self.cells.hashes[at]:
            return self.cells.queues[at], True
        return flow * (self.queues - self.count_off()) >> 32, False

    def forget(self, queue: int) -> None:
        """Forget the flows that were last sent on a queue, which is switched off (tun_flow_delete_by_queue)."""
        mine = self.cells
        kept = [(flow, mine.queues[at]) for at, flow in enumerate(mine.hashes) if flow]
        if all(of != queue for _, of in kept):
            return
        for at, flow in enumerate(mine.hashes):
            if flow:
                mine.hashes[at] = 0
        mine.count = 0
        for flow, of in kept:
            if of != queue:
                self.update(flow, of)

    def update(self, flow: int, queue: int) -> str:
        """Remember the queue that a flow was sent on; answers `new`, `moved`, `known` or `no room`."""
        mine, at = self.cells, self._place(flow)
        if at < 0:
            return "no room"
        if not mine.hashes[at]:
            mine.hashes[at], mine.queues[at] = flow, queue
            mine.count += 1
            return "new"
        if mine.queues[at] == queue:
            return "known"
        mine.queues[at] = queue
        return "moved"


@cells
class HashCells(Cells):
    """What writing a frame to a queue keeps meanwhile: the frame's flow."""

    flow: int = 0


class FlowUpdate:
    """How a TAP's queue tells the device what it has sent.

    Args:
        flows: what the device remembers.
        tap: the queue.
        number: its number, from 0.
    """

    def __init__(self, state: State, flows: TapFlows, tap: Tap, number: int) -> None:
        self.flows = flows
        self.pool: PacketPool = tap.pool
        self.number = number
        self.cells = state.add(HashCells, f"{tap.name}.q{number + 1}.sending")

    def note(self, slot: int) -> None:
        """Take the flow of a frame that is about to be handed up; afterwards it may be gone."""
        flow = flow_hash(self.pool.data(slot))
        if self.cells.flow != flow:
            self.cells.flow = flow

    def update(self) -> str:
        """Remember the queue for that flow."""
        return self.flows.update(self.cells.flow, self.number)

    def words(self) -> dict[str, object]:
        """Name the flow and the queue."""
        return {"flow": f"{self.cells.flow:#010x}", "queue": self.number + 1}


UPDATE_TEXTS: Final = {
    "new": "{tap} remembers that flow {flow} uses queue {queue}: what is for the guest will go the same way.",
    "moved": "Flow {flow} comes from queue {queue} now, and {tap} remembers that instead of the one before.",
    "known": "{tap} knows already that flow {flow} uses queue {queue}.",
    "no room": "{tap} remembers as many flows as it can: this one will be spread by its hash.",
}


class TapSendmsgOnQueue(TapSendmsg):
    """tun_sendmsg on one of several queues: after each frame the device remembers its flow's queue."""

    retold = MappingProxyType(
        {
            "next_frame": {
                "to": {
                    "frame": call("receive", "update_flow"),
                    "last frame": call("receive", "update_flow"),
                    DROPPED: goto("next_frame"),
                    "done": goto("softirq"),
                }
            }
        }
    )

    def __init__(
        self,
        name: str,
        place: Place,
        tap: Tap,
        queue: VhostQueue,
        port: int,
        receive: Routine,
        softirq: Routine | None,
        update: FlowUpdate,
    ) -> None:
        super().__init__(name, place, tap, queue, port, receive, softirq)
        self.update = update

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the batch, the flow and the queue."""
        return {**super().words(me), **self.update.words()}

    def next_frame(self, me: Context) -> str:
        """Take the next frame, and note whose flow it is."""
        found = super().next_frame(me) or ""
        if found in ("frame", "last frame"):
            self.update.note(me.skb)
        return found

    @op(
        "V-TX.10",
        "remember the flow's queue",
        "tun_flow_update",
        TUN,
        text=UPDATE_TEXTS,
        to={name: goto("go_on") for name in UPDATE_TEXTS},
    )
    def update_flow(self, me: Context) -> str:
        return self.update.update()

    @op(
        "V-TX.10",
        "see whether the batch goes on",
        "tun_sendmsg",
        TUN,
        text={"more": "On to the next frame of the batch.", "end": "That was the last frame of the batch."},
        to={"more": goto("next_frame"), "end": goto("softirq")},
        private=True,
    )
    def go_on(self, me: Context) -> str:
        return "more" if self.tap.cells.sent else "end"


class _WriteRemembers(TapWrite):
    """writev() on one of several queues: before it returns, the device remembers the flow's queue.

    Attributes:
        update: tells the device; set by the wiring.
    """

    update: FlowUpdate

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the TAP, the length, the flow and the queue."""
        return {**super().words(me), **self.update.words()}

    def hand_up(self, me: Context) -> None:
        """Hand the frame up, and note whose flow it is."""
        super().hand_up(me)
        self.update.note(me.skb)

    @op(
        "Q-TX.8",
        "remember the flow's queue",
        "tun_flow_update",
        TUN,
        text=UPDATE_TEXTS,
        to={name: goto("finish") for name in UPDATE_TEXTS},
    )
    def update_flow(self, me: Context) -> str:
        return self.update.update()


class TapWriteOnQueue(_WriteRemembers):
    """The same where the frame raises no softirq."""

    links: Mapping[str, str] = {"let_softirqs_run": "update_flow"}


class TapWriteOnQueueWithSoftirqs(_WriteRemembers, TapWriteWithSoftirqs):
    """The same where it may: the softirq runs first, and with it perhaps an answer, for which it is too late."""

    retold = MappingProxyType(
        {"let_softirqs_run": {"to": {"softirq": call("softirq", "update_flow"), "none": goto("update_flow")}}}
    )


class TapSelectQueue(Routine):
    """Choose the queue that a frame for the guest goes into: tun_select_queue, row 8 of N-IN.

    Args:
        tap: the device's name.
        flows: what it remembers.
        queues: name of each queue, such as `queue 1`, -> transmission on it.
    """

    def __init__(
        self, name: str, place: Place, tap: str, pool: PacketPool, flows: TapFlows, queues: Mapping[str, Routine]
    ) -> None:
        super().__init__(name, place)
        self.tap = tap
        self.pool = pool
        self.flows = flows
        self.queues = queues
        self._names = list(queues)

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the flow, the queue, and why it is this one."""
        flow = flow_hash(self.pool.data(me.skb))
        number, known = self.flows.queue_of(flow)
        why = "was last sent on" if known else "was never sent by the guest, and its hash chooses"
        return {"tap": self.tap, "flow": f"{flow:#010x}", "number": number + 1, "why": why}

    @op(
        "N-IN.8",
        "choose the TAP's queue",
        "tun_select_queue",
        TUN,
        text="{tap} has several queues. The frame's flow, {flow}, {why} queue {number}: the frame goes there.",
        to=call_any("queues", None),
    )
    def select_queue(self, me: Context) -> str:
        return self._names[self.flows.queue_of(flow_hash(self.pool.data(me.skb)))[0]]
