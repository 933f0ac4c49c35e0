"""OVS-DPDK's poll mode driver (PMD) thread: a CPU that does nothing but look whether a receive queue has something.

It is never told of anything and never sleeps. That an idle one goes round and round is not shown: its next look is a
step as soon as it would find something, and the looks that find nothing are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, call_any, op
from virtviz.spec.citation import OVS_DPIF_NETDEV

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context

BURST: Final = 32
"""Packets taken from a receive queue at a time: NETDEV_MAX_BURST of OVS, MAX_PKT_BURST of DPDK's vhost library."""


class RxQueue(Protocol):
    """A receive queue that a PMD polls."""

    name: str

    def has_something(self) -> bool:
        """Say whether a poll would find a packet."""

    def next_packet(self) -> int:
        """Give the number of the packet that a poll would find first, 0 if unknown. For people only."""


@cells
class PmdCells(Cells):
    """What a PMD thread keeps.

    Attributes:
        rxq: the receive queue to poll next, by its place in the list.
        count: packets of the burst in hand.
        at: which of them is being looked at.
        mbufs: their slots; 0 for one that was dealt with.
        flows: the flow of each, as the flow table's slot plus one.
        outputs: where each is to be sent, as bits.
        waiting: for each port, packets in its output batch.
        batches: these batches, 32 slots for each port.
        sent: packets of the batch in hand that the network card has been given.
    """

    rxq: int = 0
    count: int = 0
    at: int = 0
    sent: int = 0
    mbufs: list[int]
    flows: list[int]
    outputs: list[int]
    waiting: list[int]
    batches: list[int]


class Pmd:
    """What a PMD thread keeps: the burst in hand, and an output batch for each port."""

    def __init__(self, state: State, name: str, ports: int) -> None:
        self.name = name
        self.cells = state.add(
            PmdCells,
            name,
            mbufs=[0] * BURST,
            flows=[0] * BURST,
            outputs=[0] * BURST,
            waiting=[0] * ports,
            batches=[0] * (BURST * ports),
        )

    def begin_burst(self) -> None:
        """Begin an empty burst."""
        if self.cells.count:
            self.cells.count = 0

    def receive(self, mbuf: int) -> None:
        """Put a packet into the burst in hand; there is room for 32."""
        mine = self.cells
        mine.mbufs[mine.count] = mbuf
        mine.count += 1

    def queue_output(self, port: int, mbuf: int) -> None:
        """Put a packet into the output batch of a port, numbered from 0."""
        mine = self.cells
        at = mine.waiting[port]
        mine.batches[BURST * port + at] = mbuf
        mine.waiting[port] = at + 1

    def output(self, port: int) -> list[int]:
        """Give the slots in the output batch of a port."""
        mine = self.cells
        return mine.batches[BURST * port : BURST * port + mine.waiting[port]]


class PmdLoop(Routine):
    """The endless loop of a PMD thread.

    Args:
        queues: the receive queues in the order in which they are polled.
        receive: for each, in the same order: name of its port -> what receives from it, and does with the packets
            whatever is to be done.
    """

    def __init__(
        self, name: str, place: Place, pmd: Pmd, queues: Sequence[RxQueue], receive: Mapping[str, Routine]
    ) -> None:
        super().__init__(name, place)
        self.pmd = pmd
        self.queues = list(queues)
        self.receive = receive
        self._ports = list(receive)

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the thread."""
        return {"pmd": self.pmd.name, "queues": len(self.queues)}

    def finds_something(self) -> bool:
        """Say whether a turn of the loop would find a packet in some queue."""
        return any(queue.has_something() for queue in self.queues)

    @op(
        {"dpdk0": "U-RX.2", "": "U-TX.1"},
        {"dpdk0": "come to the card's receive queue", "": "come to the guest's transmit queue"},
        "dp_netdev_process_rxq_port",
        OVS_DPIF_NETDEV,
        text={
            "dpdk0": (
                "{pmd} goes round its {queues} receive queues without end; the network card's turn has come. Nobody "
                "has interrupted anybody."
            ),
            "": (
                "{pmd} goes round its {queues} receive queues without end; this guest's turn has come. Nobody has told "
                "it anything: it looks by itself, on a CPU that it keeps busy even when nothing happens."
            ),
        },
        to=call_any("receive", "next_queue"),
        milestone={"dpdk0": "", "": "backend-awake"},
        guard="finds_something",
        cost="pmd poll",
    )
    def next_queue(self, me: Context) -> str:
        mine, count = self.pmd.cells, len(self.queues)
        first = mine.rxq
        at = next((i % count for i in range(first, first + count) if self.queues[i % count].has_something()), first)
        mine.rxq = (at + 1) % count
        if me.observed:
            me.packet = self.queues[at].next_packet()
        return self._ports[at]
