"""The TAP device: an Ethernet port of the host whose other end is a file descriptor, here held by vhost-net.

Rows V-TX.10 (frames from the guest come out of it) and N-IN.8 to 10 (frames for the guest wait in its queue).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import CORE_SOCK, PTR_RING, TUN
from virtviz.spec.frames import ETH_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.vhost import VhostQueue

PEEK_BATCH = 64
"""Socket buffers vhost takes from the TAP's queue at a time."""


@cells
class TapCells(Cells):
    """What a TAP keeps.

    Attributes:
        watched: 1 while somebody waits on its wait queue for frames.
        tx_dropped: frames for the guest that found the queue full.
        rx_errors: frames from the guest too short to be Ethernet.
        sent: the next frame of the batch being sent.
    """

    watched: int = 0
    tx_dropped: int = 0
    rx_errors: int = 0
    sent: int = 0


class Tap:
    """A TAP device, or one queue of a TAP device that has several: what is behind one file descriptor.

    Args:
        number: the queue's number, from 0.

    Attributes:
        name: the device's.
        label: the queue's.
        queue: frames for the guest (the ptr_ring behind the file descriptor).
        taken: frames vhost has taken from it in a batch and not yet delivered.
    """

    def __init__(self, state: State, name: str, pool: PacketPool, length: int, number: int = 0) -> None:
        self.name = name
        self.label = label = f"{name}.q{number + 1}" if number else name
        self.pool = pool
        self.cells = state.add(TapCells, label)
        self.queue = Fifo(state, f"{label}.queue", length)
        self.taken = Fifo(state, f"{label}.taken", PEEK_BATCH)

    def peek(self) -> int:
        """Give the slot of the next frame for the guest, 0 if none; takes up to 64 off the queue at a time."""
        if not self.taken:
            while self.queue and not self.taken.is_full:
                self.taken.put(self.queue.take())
        return self.taken.first()

    def consume(self) -> None:
        """Take the frame that `peek` gave."""
        self.taken.take()

    def unpeek(self) -> int:
        """Put back what `peek` has taken off the queue (vhost_net_buf_unproduce); answers how many found no room."""
        entries = [self.taken.take() for _ in range(len(self.taken))]
        lost = [slot for slot in reversed(entries) if not self.queue.untake(slot)]
        for slot in lost:
            self.pool.release(slot)
        return len(lost)

    def next_packet(self) -> int:
        """Give the number of the next packet for the guest; for people only."""
        return self.pool.cells.packet[self.taken.first() or self.queue.first()]


class TapSendmsg(Routine):
    """Frames of a batch come out of the TAP and go up the host's stack: tun_sendmsg, tun_xdp_one.

    Args:
        port: the switch port the TAP is.
        receive: what takes the frames: the port's rx_handler.
        softirq: what local_bh_enable runs after the batch; None where no frame can have raised a softirq.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        tap: Tap,
        queue: VhostQueue,
        port: int,
        receive: Routine,
        softirq: Routine | None,
    ) -> None:
        super().__init__(name, place)
        self.tap = tap
        self.q = queue
        self.port = port
        self.receive = receive
        self.softirq = softirq
        if softirq is None:
            self.links = {"softirq": ""}

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the batch."""
        return {"tap": self.tap.name, "sent": self.tap.cells.sent}

    @op(
        "V-TX.10",
        {"done": "end the batch", "": "take the next frame of the batch"},
        "tun_xdp_one",
        TUN,
        text={
            DROPPED: (
                "The frame is shorter than an Ethernet header, or longer than anything this network carries: it is "
                "dropped here."
            ),
            "done": "Every frame of the batch has gone.",
            "": (
                "A socket buffer is built around the page, without a copy, and the frame goes up the host's stack "
                "as if {tap} had received it."
            ),
        },
        to={
            "frame": call("receive", "next_frame"),
            "last frame": call("receive", "softirq"),
            DROPPED: goto("next_frame"),
            "done": goto("softirq"),
        },
        milestone={"frame": "at-tap", "last frame": "at-tap"},
        cost="tap",
    )
    def next_frame(self, me: Context) -> str:
        queue, mine = self.q.cells, self.tap.cells
        sent = mine.sent
        if sent == queue.done:
            mine.sent = 0
            return "done"
        me.skb = slot = queue.frames[sent]
        mine.sent = sent = sent + 1
        slots = self.tap.pool.cells
        me.packet = slots.packet[slot]
        me.port = self.port
        if slots.length[slot] < ETH_HEADER_BYTES:
            mine.rx_errors += 1
            if slot:
                self.tap.pool.release(slot)
            return DROPPED
        if sent < queue.done:
            return "frame"
        mine.sent = 0
        return "last frame"


class TapXmit(Routine):
    """A frame for the guest: into the TAP's queue, and the reader is told. Rows N-IN.8 to 10.

    Args:
        wakeup: the callback of whoever watches the TAP.
    """

    def __init__(self, name: str, place: Place, tap: Tap, wakeup: Routine) -> None:
        super().__init__(name, place)
        self.tap = tap
        self.wakeup = wakeup

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the queue."""
        tap = self.tap
        return {"tap": tap.name, "queue": tap.queue.name, "count": len(tap.queue), "limit": tap.queue.capacity}

    @op(
        "N-IN.8",
        "transmit on the TAP",
        "tun_net_xmit",
        TUN,
        text=(
            "{tap}'s queueing discipline is empty and bypassed. For the host this is transmission: what it "
            "sends on {tap}, the guest receives."
        ),
        private=True,
    )
    def net_xmit(self, me: Context) -> None: ...

    @op(
        "N-IN.9",
        "put it into the TAP's queue",
        "ptr_ring_produce",
        PTR_RING,
        text={
            "queued": "The frame waits in {tap}'s queue, {count} of at most {limit}, until somebody reads it.",
            DROPPED: "The queue holds {limit} frames already: this one is dropped here and counted in tx_dropped.",
        },
        to={"queued": goto("data_ready"), DROPPED: RETURN},
        milestone={"queued": "at-tap"},
        into={"queued": "{queue}"},
    )
    def produce(self, me: Context) -> str:
        tap = self.tap
        if tap.queue.put(me.skb):
            return "queued"
        tap.cells.tx_dropped += 1
        tap.pool.release(me.skb)
        return DROPPED

    @op(
        "N-IN.10",
        "tell the reader",
        "sock_def_readable",
        CORE_SOCK,
        text={
            "watched": "Somebody waits for frames on {tap}: the callback runs.",
            "unwatched": "The reader is busy emptying the queue and has taken its callback off: nobody is told.",
        },
        to={"watched": call("wakeup", None), "unwatched": RETURN},
        fence=True,
    )
    def data_ready(self, me: Context) -> str:
        return "watched" if self.tap.cells.watched else "unwatched"
