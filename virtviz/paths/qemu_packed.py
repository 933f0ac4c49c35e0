"""QEMU's virtio-net device over packed rings: what its routines do and say otherwise than over split ones.

There is no avail.idx to read and no list of heads: QEMU reads the flags of the next descriptor. To return a buffer it
writes over that descriptor, the flags last. Turning kicks on is two stores, the place and then the flags.

Between the flags of a used descriptor and the look at what the guest wishes QEMU puts no full barrier of its own, as it
does over a split ring (virtio_split_should_notify has one, virtio_packed_should_notify has none). For what was sent,
virtio_notify() enters an RCU read section there, and that is one, unless QEMU was built with `--enable-membarrier`,
which is not usual. For what was received that section was entered before (virtio_net_do_receive), and there is none.

Source: QEMU 10.0 hw/virtio/virtio.c (virtqueue_packed_pop, virtqueue_packed_flush, virtio_packed_should_notify,
virtio_queue_packed_set_notification, virtio_queue_packed_poll), include/qemu/rcu.h (rcu_read_lock); virtio 1.4, 2.8.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths import qemu_deliver, qemu_link, qemu_tx, qemu_vcpu
from virtviz.ring.verdicts import RESET
from virtviz.spec.citation import QEMU_RCU, QEMU_VIRTIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.paths.context import Context
    from virtviz.ring.qemu_device import QemuPackedDevice

Retold = dict[str, Any]

EVENTS, AVAILABLE, USED = "2.8.10", "2.8.21", "2.8.22"
"""Sections: event suppression, supplying buffers, receiving used buffers."""
SET_NOTIFICATION: Final = "virtio_queue_packed_set_notification"
IS_EMPTY: Final = "virtio_queue_packed_empty_rcu"

_DISABLE: Final[Retold] = {
    "function": SET_NOTIFICATION,
    "spec": EVENTS,
    "text": {
        "written": "device_event.flags = DISABLE: the guest need not kick.",
        "nothing": "device_event.flags = DISABLE, as before: QEMU does not look whether it has to be written.",
    },
}
_PLACES: Final[Mapping[str, str]] = {
    "placed": "device_event.desc = {kicks}: a kick is wanted for the descriptor behind what is known to be there.",
    "no place": "Without event indices no place can be given: every buffer made available kicks.",
}
_WANTS: Final = "device_event.flags = {flags_asked}, stored after the place: the guest never sees an old place with it."
_USED: Final[Mapping[str, Any]] = {
    "write_used": {
        "title": "write the used descriptor, all but its flags",
        "function": "virtqueue_packed_fill_desc",
        "spec": USED,
    },
    "publish_used_idx": {
        "name": "publish_used_flags",
        "title": "store the used flags",
        "function": "virtqueue_packed_flush",
        "spec": USED,
    },
    "mb_before_interrupt_check": {
        "title": "enter an RCU read section",
        "function": "rcu_read_lock",
        "source": QEMU_RCU,
        "spec": EVENTS,
        "text": (
            "The used flags must be visible before QEMU asks for the guest's wish. It has no barrier for that, but "
            "entering an RCU read section mostly is one."
        ),
    },
    "check_interrupt": {"function": "virtio_packed_should_notify", "spec": EVENTS},
}


def _place(then: str) -> Retold:
    """Tell an op that asks for kicks as one that only stores the place."""
    return {
        "title": {"placed": "say where a kick is wanted", "no place": "give no place"},
        "function": SET_NOTIFICATION,
        "spec": EVENTS,
        "text": _PLACES,
        "to": {outcome: goto(then) for outcome in _PLACES},
    }


class ServeTxKick(qemu_tx.ServeTxKick):
    """A kick of the transmit queue."""

    retold = MappingProxyType({"disable_kicks": _DISABLE})


class ServeTxKickFromVcpu(qemu_vcpu.ServeTxKickFromVcpu):
    """The same, handled by the vCPU's thread."""

    retold = MappingProxyType({"disable_kicks": _DISABLE})


class SendQueued(qemu_tx.SendQueued):
    """The bottom half: send packet after packet."""

    ring: QemuPackedDevice
    retold = MappingProxyType(
        {
            **_USED,
            "read_avail_idx": {
                "name": "read_flags",
                "row": {"new": "Q-TX.5", RESET: "Q-TX.5", "broken": "Q-TX.5", "": "Q-TX.12"},
                "title": {
                    "broken": "take nothing from a broken device",
                    "still broken": "take nothing from a broken device",
                    "": "read the flags of the next descriptor",
                },
                "function": IS_EMPTY,
                "spec": "2.8.1",
                "text": {
                    "new": "Slot {next} has AVAIL at {avail_wrap}, like the driver's counter, and USED not: available.",
                    "empty": "The flags of slot {next} do not say available: the ring is empty.",
                    "still empty": "Nothing slipped in while QEMU was asking: the bottom half is done.",
                    "more came": "The ring is empty again, but something had slipped in: the guest is active.",
                    "broken": "The device is broken, so virtqueue_pop() gives nothing, whatever lies in the ring.",
                    "still broken": "Still broken: the bottom half is done, and asking for a kick was in vain.",
                    RESET: "{wrong}",
                },
                "to": {
                    "new": goto("read_desc"),
                    "broken": goto("enable_kicks"),
                    "still broken": RETURN,
                    RESET: call("error", "after_error"),
                    "empty": goto("enable_kicks"),
                    "still empty": RETURN,
                    "more came": goto("disable_kicks"),
                },
            },
            "read_head": None,
            "read_desc": {"spec": AVAILABLE},
            "write_used": {
                **_USED["write_used"],
                "text": (
                    "writev() has returned. The driver's descriptor is written over: id {head}, 0 bytes written; its "
                    "flags still say available."
                ),
            },
            "publish_used_idx": {
                **_USED["publish_used_idx"],
                "text": "Slot {used_slot} gets AVAIL and USED alike: the buffer is the guest's again.",
            },
            "disable_kicks": {
                "function": SET_NOTIFICATION,
                "spec": EVENTS,
                "text": "device_event.flags = DISABLE: the guest is active, so more may come without kicks.",
            },
            "enable_kicks": _place("want_kicks"),
            "mb_before_recheck": {"function": SET_NOTIFICATION, "spec": EVENTS},
        }
    )

    def read_avail_idx(self, me: Context) -> str:
        """Look for a buffer, and begin with it."""
        found = str(super().read_avail_idx(me))
        # The descriptor that was looked at is the head.
        if found != "new":
            return found
        head = str(self.read_head(me))
        return found if head == "head" else head

    def enable_kicks(self, me: Context) -> str:
        """Store the place of the next kick."""
        self.note_rearmed()
        return "placed" if self.ring.place_kick_event() else "no place"

    @op(
        "Q-TX.12",
        "say that kicks are wanted",
        SET_NOTIFICATION,
        QEMU_VIRTIO,
        spec=EVENTS,
        text=_WANTS,
        to=goto("mb_before_recheck"),
    )
    def want_kicks(self, me: Context) -> None:
        self.ring.want_kicks()


class Deliver(qemu_deliver.Deliver):
    """Put the frame in hand into the guest's buffers."""

    ring: QemuPackedDevice
    links = MappingProxyType({**qemu_deliver.Deliver.links, "tell": "check_interrupt"})
    retold = MappingProxyType(
        {
            **_USED,
            # The frame is delivered within an RCU read section: it is not entered anew, and so there is no barrier.
            "mb_before_interrupt_check": None,
            "find_buffers": {
                "spec": "2.8.1",
                "text": {
                    "room": "The guest has offered buffers, by their flags: from slot {next} on there is room.{passed}",
                    "too little": "The buffers on offer cannot hold the frame: they end before {kicks}.",
                    RESET: "{wrong}",
                },
            },
            "enable_kicks": _place("want_kicks"),
            "mb_before_refill_recheck": {
                "function": SET_NOTIFICATION,
                "spec": EVENTS,
                "text": "The wish must be visible before the flags are read again.",
            },
            "recheck": {
                "title": "look at the flags behind them again",
                "function": "virtio_queue_packed_poll",
                "spec": EVENTS,
            },
            "disable_kicks": _DISABLE,
            "read_head": {
                "name": "read_flags",
                "title": "read the flags of the next descriptor",
                "function": IS_EMPTY,
                "spec": "2.8.1",
                "text": {
                    "head": "The flags of slot {next} say that it is available: a buffer begins there.{passed}",
                    DROPPED: (
                        "virtqueue_pop() gives no buffer: the ring is empty, or the device broken. The frame is lost."
                    ),
                    RESET: "{wrong}",
                },
            },
            "read_desc": {"spec": AVAILABLE},
            "write_used": {
                "title": "write the used descriptors",
                "function": "virtqueue_packed_fill_desc",
                "spec": USED,
                "text": (
                    "Each buffer gets a used descriptor: its id and the bytes written into it. All but the flags of "
                    "the first, so still unseen."
                ),
            },
            "publish_used_idx": {
                **_USED["publish_used_idx"],
                "text": "One store shows all of the packet's buffers: the flags of slot {used_slot}, read first.",
            },
        }
    )

    def enable_kicks(self, me: Context) -> str:
        """Store the place of the next kick, and note how far the ring is filled."""
        self.nic.cells.seen = self.ring.mark()
        return "placed" if self.ring.place_kick_event() else "no place"

    @op(
        "Q-RX.3",
        "say that kicks are wanted",
        SET_NOTIFICATION,
        QEMU_VIRTIO,
        spec=EVENTS,
        text=_WANTS,
        to=goto("mb_before_refill_recheck"),
    )
    def want_kicks(self, me: Context) -> None:
        self.ring.want_kicks()


class DropQueued(qemu_link.DropQueued):
    """Take everything out of the transmit queue and give it back unsent."""

    retold = MappingProxyType(
        {
            **_USED,
            "look": {
                "function": "virtqueue_packed_drop_all",
                "spec": "2.8.1",
                "text": {
                    "more": "Slot {next} is available: it is still to be taken.",
                    "empty": "Nothing is left in the ring, and nothing was dropped: nobody has to be told.",
                    "dropped some": "Nothing is left in the ring. What was dropped the driver has to get back.",
                },
            },
            "drop": {
                "function": "virtqueue_packed_drop_all",
                "spec": AVAILABLE,
                "text": {
                    DROPPED: "Without a link the packet of id {head} cannot go anywhere. Only its flags are looked at.",
                    RESET: "{wrong}",
                },
            },
            "write_used": {
                **_USED["write_used"],
                "text": "To the driver a dropped packet looks like one that was sent: id {head}, 0 bytes written.",
            },
            "publish_used_idx": {
                **_USED["publish_used_idx"],
                "text": "Slot {used_slot} gets AVAIL and USED alike: the buffer is the guest's again.",
            },
        }
    )


class SetLink(qemu_link.SetLink):
    """The monitor's request to change a link."""

    ring: QemuPackedDevice
    retold = MappingProxyType({"ask_for_kicks": _place("want_kicks")})

    def ask_for_kicks(self, me: Context) -> str:
        """Store the place of the next kick."""
        return "placed" if self.ring.place_kick_event() else "no place"

    @op(
        "CONFIG.6",
        "say that kicks are wanted",
        SET_NOTIFICATION,
        QEMU_VIRTIO,
        spec=EVENTS,
        text=_WANTS,
        to=call("drop", "answer"),
    )
    def want_kicks(self, me: Context) -> None:
        self.ring.want_kicks()


OVER_PACKED: Final[Mapping[type[Routine], type[Routine]]] = {
    qemu_tx.ServeTxKick: ServeTxKick,
    qemu_tx.SendQueued: SendQueued,
    qemu_deliver.Deliver: Deliver,
    qemu_vcpu.ServeTxKickFromVcpu: ServeTxKickFromVcpu,
    qemu_link.DropQueued: DropQueued,
    qemu_link.SetLink: SetLink,
}
"""Routine of QEMU's device -> what it is over packed rings."""
