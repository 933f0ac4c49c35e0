"""Sending one packet with virtio-net: start_xmit. Rows 4 to 13 of block G-TX.

With NAPI for the transmit queue the driver asks for completion interrupts, late ones if it can; without, it asks for
none and frees old packets whenever it sends new ones.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.virtio_net import Transmitq, TransmitRoutine
from virtviz.spec.citation import NETDEVICE_H, SKBUFF_H, VIRTIO_NET, VIRTIO_RING, VIRTIO_RING_H
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


PLAIN_HEADER = bytes(VIRTIO_NET_HDR_BYTES)
"""A virtio-net header that asks for nothing: no checksum, no segmentation, num_buffers 0."""


class Xmit(TransmitRoutine):
    """What start_xmit does with and without NAPI for the transmit queue: all but the beginning."""

    def __init__(
        self, name: str, place: Place, queue: Transmitq, reclaim: Routine, add: Routine, notify: Routine
    ) -> None:
        super().__init__(name, place, queue)
        self.reclaim = reclaim
        self.add = add
        self.notify = notify

    def packet_in_hand(self, me: Context) -> None:
        """Work on the packet of the socket buffer, whatever was freed meanwhile."""
        if me.observed:
            packet = self.q.pool.cells.packet[me.skb]
            if me.packet != packet:
                me.packet = packet

    @op(
        "G-TX.7",
        "fill in the virtio-net header",
        "xmit_skb",
        VIRTIO_NET,
        spec="5.1.9.2",
        text="12 bytes go in front of the frame: no checksum to finish, no segmentation, num_buffers 0.",
        to=call("add", "stop_if_full"),
    )
    def fill_header(self, me: Context) -> None:
        pool = self.q.pool
        pool.memory.write(pool.at[me.skb] - VIRTIO_NET_HDR_BYTES, PLAIN_HEADER)

    @op(
        "G-TX.11",
        "stop the queue if it is nearly full",
        "check_sq_full_and_disable",
        VIRTIO_NET,
        text={
            "room": "Free descriptors: {num_free}, enough for any packet: the queue stays open.",
            "stopped": (
                "Free descriptors: {num_free}, fewer than {threshold}. The stack may send no more, and a late "
                "interrupt is asked for."
            ),
        },
        to={"room": goto("decide_flush"), "stopped": goto("mb_before_stop_recheck")},
    )
    def stop_if_full(self, me: Context) -> str:
        if self.mine.num_free >= self.q.threshold:
            return "room"
        self.q.tx.cells.driver_off = 1
        self.ask_late_after_stop()
        return "stopped"

    def ask_late_after_stop(self) -> None:
        """Ask for a late interrupt, which opens the queue again."""
        self.ring.enable_callbacks_delayed()

    @op(
        "G-TX.11",
        "full barrier",
        "virtio_store_mb",
        VIRTIO_RING_H,
        spec="2.7.14",
        text="Again: ask first, barrier, then look, so that no completion slips through.",
        to=goto("recheck_after_stop"),
        fence=True,
        cost="barrier",
    )
    def mb_before_stop_recheck(self, me: Context) -> None: ...

    @op(
        "G-TX.12",
        "decide whether to tell the device now",
        "__netdev_tx_sent_queue",
        NETDEVICE_H,
        text={
            "now": "No other packet is announced: the device has to hear of this one, if it wants to.",
            "later": "Another packet follows at once: telling the device is left to the last of them.",
        },
        to={"now": goto("mb_before_kick_check"), "later": RETURN},
        private=True,
    )
    def decide_flush(self, me: Context) -> str:
        return "now" if self.q.tx.sent(self.q.pool.cells.length[me.skb]) else "later"

    @op(
        "G-TX.12",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING_H,
        spec="2.7.13.4.1",
        text=(
            "avail.idx must be visible before the driver reads whether a kick is wanted. Without this barrier "
            "a kick can be lost."
        ),
        fence=True,
        cost="barrier",
    )
    def mb_before_kick_check(self, me: Context) -> None: ...

    @op(
        "G-TX.12",
        "ask whether a kick is wanted",
        "virtqueue_kick_prepare_split",
        VIRTIO_RING,
        spec="2.7.13.4",
        text={
            "kick": "By its {wish}, the device wants to hear of this entry: a kick is needed.",
            "no kick": "By its {wish}, the device has been told already or is awake: it will find this entry. No kick.",
        },
        to={"kick": call("notify", None), "no kick": RETURN},
        cost="ring cold",
    )
    def check_kick(self, me: Context) -> str:
        return "kick" if self.ring.kick_needed() else "no kick"


class StartXmit(Xmit):
    """Send one packet: start_xmit, with NAPI for the transmit queue."""

    first = "disable_callbacks"

    @op(
        "G-TX.4",
        "ask for no completion interrupt",
        "virtqueue_disable_cb",
        VIRTIO_RING,
        spec="2.7.7",
        text={
            "event": (
                "With event indices there is no way to say never: used_event is pointed at 0, most often far from "
                "where the device works."
            ),
            "flag": "avail.flags says NO_INTERRUPT: the device need not interrupt for what it returns.",
            "nothing": "Callbacks are off already, or an interrupt has come since they were on: nothing is written.",
        },
        to={k: call("reclaim", "enable_callbacks_delayed") for k in ("event", "flag", "nothing")},
    )
    def disable_callbacks(self, me: Context) -> str:
        self.packet_in_hand(me)
        return self.ring.disable_callbacks()

    @op(
        "G-TX.6",
        "ask for a late completion interrupt",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.7",
        text={
            "asked": "{late}",
            "more to come": "Another packet follows at once: asking for an interrupt is left to the last of them.",
        },
        to={"asked": goto("mb_before_delayed_recheck"), "more to come": goto("fill_header")},
    )
    def enable_callbacks_delayed(self, me: Context) -> str:
        self.packet_in_hand(me)
        if self.q.tx.cells.more:
            return "more to come"
        self.ring.enable_callbacks_delayed()
        return "asked"

    @op(
        "G-TX.6",
        "full barrier",
        "virtio_store_mb",
        VIRTIO_RING_H,
        spec="2.7.14",
        text="The store of used_event must be visible before used.idx is read, or both sides could miss each other.",
        fence=True,
        cost="barrier",
    )
    def mb_before_delayed_recheck(self, me: Context) -> None: ...

    @op(
        "G-TX.6",
        "look at used.idx again",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "enough": "used.idx has not passed used_event: the interrupt is still to come. Go on.",
            "too late": "used.idx has passed used_event meanwhile: what came back is freed first, no interrupt tells.",
        },
        to={"enough": goto("fill_header"), "too late": goto("disable_callbacks")},
        cost="ring cold",
    )
    def recheck_used_idx(self, me: Context) -> str:
        return "too late" if self.ring.too_many_used() else "enough"

    @op(
        "G-TX.11",
        "look at used.idx again",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "enough": "The interrupt asked for will open the queue again.",
            "too late": "More has come back already: the transmit NAPI is scheduled at once.",
        },
        to={"enough": goto("decide_flush"), "too late": goto("decide_flush")},
        cost="ring cold",
    )
    def recheck_after_stop(self, me: Context) -> str:
        if not self.ring.too_many_used():
            return "enough"
        if self.q.schedule():
            self.ring.disable_callbacks()
        return "too late"


class StartXmitWithoutNapi(Xmit):
    """Send one packet with napi_tx=0: nothing is asked for, and the packet is given up as soon as it is in the ring."""

    first = "begin"
    functions = MappingProxyType({"__netdev_tx_sent_queue": ("start_xmit", VIRTIO_NET)})
    retold = MappingProxyType({"fill_header": {"to": call("add", "give_up")}})

    @op(
        "G-TX.5",
        "begin with what was sent before",
        "start_xmit",
        VIRTIO_NET,
        text=(
            "Without transmit NAPI the driver neither asks for interrupts nor against them: it frees old "
            "packets when it sends new ones."
        ),
        to=call("reclaim", "fill_header"),
        private=True,
    )
    def begin(self, me: Context) -> None: ...

    def fill_header(self, me: Context) -> str | None:
        """Come back to the packet from what was freed before it."""
        self.packet_in_hand(me)
        return super().fill_header(me)

    @op(
        "G-TX.10",
        "give the packet up",
        "skb_orphan",
        SKBUFF_H,
        text={
            "given up": (
                "The socket's send buffer is given its share back now: nobody knows when the packet's memory will "
                "be freed."
            ),
            "gone": "There was no room for the packet: nothing is left to give up.",
        },
        to={"given up": goto("stop_if_full"), "gone": goto("stop_if_full")},
        private=True,
    )
    def give_up(self, me: Context) -> str:
        if not me.skb:
            return "gone"
        self.q.socket.uncharge(self.q.pool.cells.length[me.skb])
        return "given up"

    @op(
        "G-TX.11",
        "look at used.idx again",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "enough": "The interrupt asked for will open the queue again.",
            "too late": "More has come back already: it is freed at once.",
        },
        to={"enough": goto("decide_flush"), "too late": call("reclaim", "open_if_room")},
        cost="ring cold",
    )
    def recheck_after_stop(self, me: Context) -> str:
        return "too late" if self.ring.too_many_used() else "enough"

    @op(
        "G-TX.11",
        "open the queue again if there is room",
        "check_sq_full_and_disable",
        VIRTIO_NET,
        text={
            "opened": "Free descriptors: {num_free}. The queue is opened again, and no interrupt is wanted.",
            "still full": "Free descriptors: {num_free}, too few. The queue stays stopped until the interrupt.",
        },
        to={"opened": goto("decide_flush"), "still full": goto("decide_flush")},
    )
    def open_if_room(self, me: Context) -> str:
        self.packet_in_hand(me)
        if self.mine.num_free < self.q.threshold:
            return "still full"
        self.q.tx.cells.driver_off = 0
        self.ring.disable_callbacks()
        return "opened"
