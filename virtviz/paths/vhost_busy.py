"""vhost-net polls before it asks to be told (QEMU's `poll-us`): for some time it watches the TAP and both rings.

What comes meanwhile costs neither a kick nor a wake-up, at the price of a CPU that spins. A spin ends when something
comes, when the worker has other work, or when its time is up. Time is up here once nothing else can move: in a run that
follows simulated time too, a spin is as long as it has to be, and its length counts only as on or off.

Source: Linux drivers/vhost/net.c (vhost_net_busy_poll, vhost_net_tx_get_vq_desc, vhost_net_rx_peek_head_len,
vhost_net_busy_poll_try_queue); QEMU 10.0 net/tap.c (poll-us), hw/virtio/vhost.c (VHOST_SET_VRING_BUSYLOOP_TIMEOUT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.vhost import Work
from virtviz.paths.vhost_rx import HandleRx
from virtviz.paths.vhost_tx import HandleTx
from virtviz.ring.verdicts import RESET, STOPS
from virtviz.spec.citation import VHOST, VHOST_NET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.vhost import VhostQueue


@cells
class SpinCells(Cells):
    """What a worker keeps while it polls.

    Attributes:
        spinning: 1 while it polls.
        polled: 1 if this round has polled already; the very first, when the interface is brought up, does not poll.
        put: pieces of work ever put on its list when it began to poll.
    """

    spinning: int = 0
    polled: int = 1
    put: int = 0


class BusyPoll:
    """Polling of both queues of a pair.

    Args:
        microseconds: how long at most, for people.
    """

    def __init__(self, state: State, name: str, rx: VhostQueue, tx: VhostQueue, microseconds: int) -> None:
        self.cells = state.add(SpinCells, name)
        self.rx = rx
        self.tx = tx
        self.microseconds = microseconds

    def begin(self, other: VhostQueue) -> None:
        """Begin to poll, without kicks for the other queue of the pair."""
        mine = self.cells
        mine.spinning = 1
        mine.put = self.tx.worker.list.cells.put
        other.ring.disable_kicks()

    def is_spinning(self) -> bool:
        """Say whether the worker polls."""
        return bool(self.cells.spinning)

    def has_work(self) -> bool:
        """Say whether the worker has got other work (vhost_vq_has_work).

        It had taken its whole list before it began with the first piece of it, so what was there before is none.
        """
        return self.tx.worker.list.cells.put != self.cells.put

    def tx_waits(self) -> bool:
        """Say whether the guest has put something into its transmit queue."""
        return not self.tx.ring.is_empty()

    def rx_waits(self) -> bool:
        """Say whether a frame for the guest has come."""
        return bool(self.rx.tap.queue)

    def something_came(self) -> bool:
        """Say whether there is a reason to stop polling."""
        rx = self.rx_waits() and not self.rx.ring.is_empty()
        return self.has_work() or self.tx_waits() or rx

    def ended(self) -> str:
        """End a spin; answers by what."""
        self.cells.spinning = 0
        if self.has_work():
            return "other work"
        if self.tx_waits():
            return "sent"
        return "arrived" if self.rx_waits() else "time is up"


class _Polls(Routine):
    """What the handlers of both queues do when there is nothing to do.

    Attributes:
        busy: the polling.
    """

    busy: BusyPoll

    def words(self, me: Context) -> Mapping[str, object]:
        """Give how long too."""
        return {**super().words(me), "time": self.busy.microseconds}

    def something_came(self) -> bool:
        """Say whether there is a reason to stop polling."""
        return self.busy.something_came()

    def time_is_up(self) -> bool:
        """Say that polling ends once nothing else can move."""
        return True


class BusyHandleTx(_Polls, HandleTx):
    """Send what the guest put into its transmit queue, and poll when the queue is empty.

    Args:
        busy: the polling.
    """

    def __init__(
        self, name: str, place: Place, queue: VhostQueue, pool: PacketPool, flush: Routine, busy: BusyPoll
    ) -> None:
        super().__init__(name, place, queue, pool, flush)
        self.busy = busy

    @op(
        "V-TX.4",
        {"known": "go on with the next entry", "": "read avail.idx"},
        "vhost_get_avail_idx",
        VHOST,
        spec="2.7.13",
        text={
            "known": "avail.idx was {avail} when last read, and is not read again: entry {next} is still to be taken.",
            "new": "avail.idx is {avail}: entry {next} is available, and the next to be taken.{passed}",
            "empty": "avail.idx is still {avail}: the ring is empty, and has been polled.",
            "not polled yet": "avail.idx is still {avail}: the ring is empty. What is collected goes, then it polls.",
            STOPS: "{wrong}",
            RESET: "{wrong}",
        },
        to={
            "known": goto("read_head"),
            "new": goto("read_head"),
            "empty": goto("enable_kicks"),
            "not polled yet": call("flush", "begin_to_poll"),
            STOPS: goto("flush"),
            RESET: goto("ask_for_reset"),
        },
        cost="ring cold",
    )
    def read_avail_idx(self, me: Context) -> str:
        mine = self.busy.cells
        answer = HandleTx.read_avail_idx(self, me) or ""
        if answer != "empty":
            return answer
        if mine.polled:
            mine.polled = 0
            return "empty"
        mine.polled = 1
        return "not polled yet"

    @op(
        "V-TX.9",
        "begin to poll",
        "vhost_net_busy_poll",
        VHOST_NET,
        text="For at most {time} µs the worker watches both rings and the TAP; it wants no kick for either ring.",
    )
    def begin_to_poll(self, me: Context) -> None:
        self.busy.begin(self.busy.rx)

    @op(
        "V-TX.9",
        "poll",
        "vhost_net_busy_poll",
        VHOST_NET,
        text={
            "sent": "The guest has sent something more: it is found without a kick and without a wake-up.",
            "arrived": "A frame for the guest is on the TAP: the other queue gets its turn.",
            "other work": "There is other work on the worker's list: this queue comes again after it.",
            "time is up": "{time} µs are over, and nothing came: now the worker does ask to be told.",
        },
        to={
            "sent": goto("read_avail_idx"),
            "arrived": goto("queue_receive"),
            "other work": goto("requeue"),
            "time is up": goto("ask_for_refills"),
        },
        guard="something_came",
        patience="time_is_up",
    )
    def poll(self, me: Context) -> str:
        answer = self.busy.ended()
        if answer in ("sent", "other work"):
            # The next time that the ring is empty it is polled anew.
            self.busy.cells.polled = 0
        return answer

    @op(
        "V-TX.9",
        "queue the receive work",
        "vhost_net_busy_poll_try_queue",
        VHOST_NET,
        text="The worker puts the receive queue's work on its own list.",
        to=goto("read_avail_idx"),
    )
    def queue_receive(self, me: Context) -> None:
        self.q.worker.queue(Work.RX_KICK)

    @op(
        "V-TX.9",
        "let the other ring's kicks be",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text="The receive queue's kicks are as they were before: vhost is told of new buffers again.",
        to=goto("read_avail_idx"),
    )
    def ask_for_refills(self, me: Context) -> None:
        self.busy.rx.ring.enable_kicks()


class BusyHandleRx(_Polls, HandleRx):
    """Deliver frames from the TAP, and poll when there are none.

    Args:
        busy: the polling.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        queue: VhostQueue,
        pool: PacketPool,
        give_back: Routine,
        watch: Routine,
        busy: BusyPoll,
    ) -> None:
        super().__init__(name, place, queue, pool, give_back, watch)
        self.busy = busy

    @op(
        "V-RX.3",
        "look at the next frame",
        "vhost_net_buf_peek",
        VHOST_NET,
        text={
            "frame": "A frame of {length} bytes, header included, is next.",
            "empty": "The TAP's queue is empty, and has been polled.",
            "not polled yet": "The TAP's queue is empty. What is filled is given back, then vhost polls.",
        },
        to={
            "frame": goto("read_avail_idx"),
            "empty": goto("watch_tap"),
            "not polled yet": call("give_back", "begin_to_poll"),
        },
    )
    def peek_frame(self, me: Context) -> str:
        mine = self.busy.cells
        if HandleRx.peek_frame(self, me) == "frame":
            return "frame"
        if mine.polled:
            mine.polled = 0
            return "empty"
        mine.polled = 1
        return "not polled yet"

    @op(
        "V-RX.10",
        "begin to poll",
        "vhost_net_busy_poll",
        VHOST_NET,
        text="For at most {time} µs the worker watches the TAP and both rings; it wants no kick for either ring.",
    )
    def begin_to_poll(self, me: Context) -> None:
        self.busy.begin(self.busy.tx)

    @op(
        "V-RX.10",
        "poll",
        "vhost_net_busy_poll",
        VHOST_NET,
        text={
            "sent": "The guest has sent something: it is found without a kick and without a wake-up.",
            "arrived": "A frame for the guest has come: it is found without a wake-up.",
            "other work": "There is other work on the worker's list: this queue comes again after it.",
            "time is up": "{time} µs are over, and nothing came: now the worker does ask to be told.",
        },
        to={
            "sent": goto("queue_transmit"),
            "arrived": goto("ask_for_kicks"),
            "other work": goto("requeue"),
            "time is up": goto("ask_for_kicks"),
        },
        guard="something_came",
        patience="time_is_up",
    )
    def poll(self, me: Context) -> str:
        answer = self.busy.ended()
        if answer in ("arrived", "other work"):
            self.busy.cells.polled = 0
        return answer

    @op(
        "V-RX.10",
        "queue the transmit work",
        "vhost_net_busy_poll_try_queue",
        VHOST_NET,
        text="The worker puts the transmit queue's work on its own list.",
        to=goto("peek_frame"),
    )
    def queue_transmit(self, me: Context) -> None:
        self.q.worker.queue(Work.TX_KICK)

    @op(
        "V-RX.10",
        "ask for the other ring's kicks",
        "vhost_net_busy_poll_try_queue",
        VHOST_NET,
        spec="2.7.10",
        text="The transmit queue's kicks are wanted again.",
    )
    def ask_for_kicks(self, me: Context) -> None:
        self.busy.tx.ring.enable_kicks()

    @op(
        "V-RX.10",
        "full barrier",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text="The wish must be visible before avail.idx is read again.",
        fence=True,
        cost="barrier",
    )
    def mb_before_last_look(self, me: Context) -> None: ...

    @op(
        "V-RX.10",
        "look at the other ring's avail.idx again",
        "vhost_net_busy_poll_try_queue",
        VHOST_NET,
        spec="2.7.10",
        text={
            "still empty": "The guest has sent nothing meanwhile.",
            "more": "The guest has slipped something in: the transmit queue's work goes on the worker's own list.",
        },
        to={"still empty": goto("peek_frame"), "more": goto("queue_transmit")},
        cost="ring cold",
    )
    def look_again(self, me: Context) -> str:
        return "more" if self.busy.tx_waits() else "still empty"
