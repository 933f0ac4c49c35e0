"""The guest's virtio-net driver over packed rings: what its routines do and say otherwise than over split ones.

A packed ring has no index to publish and no list of heads: a buffer is made available by the flags of its first
descriptor, stored last. The wish for interrupts stands in a structure of its own, place and flags, stored one after
the other. Everything else is as over split rings, and written once, in `virtio_xmit.py` and its neighbours.

Source: Linux drivers/virtio/virtio_ring.c (the functions whose names end in `_packed`); virtio 1.4, 2.8.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from virtviz.engine.ops import Routine, goto, op
from virtviz.paths import virtio_add, virtio_done, virtio_receive, virtio_refill, virtio_xmit
from virtviz.spec.citation import VIRTIO_RING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.paths.context import Context
    from virtviz.ring.packed_driver import PackedDriver

Retold = dict[str, Any]

GET_BUF: Final = "virtqueue_get_buf_ctx_packed"
ENABLE_LATE: Final = "virtqueue_enable_cb_delayed_packed"
USED, EVENTS, MAY_SEND = "2.8.22", "2.8.10", "2.8.21.3.1"
"""Sections: receiving used buffers, event suppression, sending available buffer notifications."""


# What is told alike in several routines

_BARRIER: Final[Retold] = {
    "spec": USED,
    "text": "The wish must be visible before the descriptor's flags are read, or both sides could miss each other.",
}
_NO_INTERRUPTS: Final[Retold] = {
    "spec": EVENTS,
    "text": {
        "flag": "driver_event.flags = DISABLE: with a packed ring a driver can say never, and says so.",
        "nothing": "Callbacks are off already, or an interrupt has come since they were on: nothing is written.",
        "": "The device need not interrupt while the poll is at work.",
    },
}
_MAY_WANT: Final[Mapping[str, str]] = {
    "written": "driver_event.flags = {flags_asked}, after the place: the device never sees an old place with it.",
    "nothing": "driver_event.flags say so already, and are not written again.",
}
_PLACES: Final[Mapping[str, str]] = {
    "placed": "driver_event.desc = {asked}: with this descriptor's return an interrupt shall come.",
    "no place": "Without event indices no place can be given: every buffer that comes back interrupts.",
}
_PLACES_LATE: Final[Mapping[str, str]] = {
    "placed": "driver_event.desc = {late}. One interrupt for many packets, if there are many.",
    "no place": "Without event indices a late interrupt cannot be asked for, only one each time.",
}
_LOOK: Final[Retold] = {"name": "read_used_flags", "spec": USED}


def _place(then: str, texts: Mapping[str, str] = _PLACES_LATE, function: str = ENABLE_LATE) -> Retold:
    """Tell an op that asks for an interrupt as one that only stores the place."""
    return {
        "title": {"placed": "say where an interrupt is wanted", "no place": "give no place"},
        "function": function,
        "spec": EVENTS,
        "text": texts,
        "to": {outcome: goto(then) for outcome in ("placed", "no place")},
    }


def _in_words(placed: bool) -> str:  # noqa: FBT001 - the answer of a ring
    return "placed" if placed else "no place"


# Sending


class AddBuffer(virtio_add.AddBuffer):
    """Put one packet into the ring: virtqueue_add_packed."""

    retold = MappingProxyType(
        {
            "write_desc": {
                "title": {
                    "direct": "write the descriptor, all but its flags",
                    "table": "write the table",
                    "no room": "find no room",
                },
                "function": "virtqueue_add_packed",
                "spec": "2.8.21.1",
                "text": {
                    "direct": (
                        "Slot {slot} gets address, length and id {head}. Its flags still say that it is the driver's: "
                        "the device cannot know of it yet."
                    ),
                    "table": (
                        "The packet lies in several pieces: they are described in a table of their own, outside the "
                        "ring."
                    ),
                    "no room": "Not enough descriptors are free, although the queue was not stopped: no room.",
                },
                "to": {
                    "direct": goto("publish_flags"),
                    "table": goto("write_indirect_desc"),
                    # Over a split ring Linux kicks here, for historical reasons; over a packed one it never did.
                    "no room": goto("drop_packet"),
                },
            },
            "write_indirect_desc": {
                "function": "virtqueue_add_indirect_packed",
                "spec": "2.8.7",
                "text": (
                    "Slot {slot} stands for the whole table: its address and length, id {head}; flag INDIRECT comes "
                    "with the others."
                ),
                "to": goto("publish_flags"),
            },
            "write_avail_ring": None,
            "publish_avail_idx": {
                "name": "publish_flags",
                "title": "store the flags",
                "function": "virtqueue_add_packed",
                "spec": "2.8.21.1.1",
                "text": (
                    "Slot {slot} gets its flags, {flags}, last of all: AVAIL as the driver's wrap counter, USED not. "
                    "From here on the device may take it."
                ),
            },
        }
    )


_XMIT: Final[Retold] = {
    "stop_if_full": {
        "text": {
            "room": "Free descriptors: {num_free}, enough for any packet: the queue stays open.",
            "stopped": (
                "Free descriptors: {num_free}, fewer than {threshold}: no more is sent, and a late interrupt asked "
                "for, {late}."
            ),
        },
        "to": {"room": goto("decide_flush"), "stopped": goto("want_callbacks_after_stop")},
    },
    "mb_before_stop_recheck": {"spec": USED},
    "mb_before_kick_check": {
        "spec": MAY_SEND,
        "text": (
            "The flags must be visible before the driver reads whether a kick is wanted. Without this barrier a kick "
            "can be lost."
        ),
    },
    "check_kick": {"function": "virtqueue_kick_prepare_packed", "spec": "2.8.21.2"},
    "recheck_after_stop": {"title": "look at the next used flags", "spec": USED, "function": ENABLE_LATE},
}


class _StopsPacked(virtio_xmit.Xmit):
    """What start_xmit does otherwise with and without NAPI: after stopping the queue, the flags are stored too."""

    ring: PackedDriver

    def ask_late_after_stop(self) -> None:
        """Store the place of a late interrupt, which opens the queue again."""
        self.ring.place_event_late()

    @op(
        "G-TX.11",
        "say that interrupts are wanted",
        ENABLE_LATE,
        VIRTIO_RING,
        spec=EVENTS,
        text=_MAY_WANT,
        to={outcome: goto("mb_before_stop_recheck") for outcome in _MAY_WANT},
    )
    def want_callbacks_after_stop(self, me: Context) -> str:
        return "written" if self.ring.want_callbacks() else "nothing"


class StartXmit(_StopsPacked, virtio_xmit.StartXmit):
    """Send one packet, with NAPI for the transmit queue."""

    retold = MappingProxyType(
        {
            **_XMIT,
            "disable_callbacks": _NO_INTERRUPTS,
            "enable_callbacks_delayed": {
                **_place("want_callbacks"),
                "title": {"more to come": "leave it to the last packet", "": "say where an interrupt is wanted"},
                "text": {
                    **_PLACES_LATE,
                    "more to come": (
                        "Another packet follows at once: asking for an interrupt is left to the last of them."
                    ),
                },
                "to": {
                    "placed": goto("want_callbacks"),
                    "no place": goto("want_callbacks"),
                    "more to come": goto("fill_header"),
                },
            },
            "mb_before_delayed_recheck": _BARRIER,
            "recheck_used_idx": {
                "name": "recheck_used_flags",
                "title": "look at the next used flags",
                "function": ENABLE_LATE,
                "spec": USED,
                "text": {
                    "enough": "Slot {last_used} has not come back: the interrupt is still to come. Go on.",
                    "too late": (
                        "Slot {last_used} has come back meanwhile: here Linux looks for one buffer, not for ¾ of them. "
                        "Once more."
                    ),
                },
            },
        }
    )

    def enable_callbacks_delayed(self, me: Context) -> str:
        """Store the place of a late interrupt."""
        self.packet_in_hand(me)
        if self.q.tx.cells.more:
            return "more to come"
        return _in_words(self.ring.place_event_late())

    @op(
        "G-TX.6",
        "say that interrupts are wanted",
        ENABLE_LATE,
        VIRTIO_RING,
        spec=EVENTS,
        text=_MAY_WANT,
        to={outcome: goto("mb_before_delayed_recheck") for outcome in _MAY_WANT},
    )
    def want_callbacks(self, me: Context) -> str:
        return "written" if self.ring.want_callbacks() else "nothing"


class StartXmitWithoutNapi(_StopsPacked, virtio_xmit.StartXmitWithoutNapi):
    """Send one packet with napi_tx=0."""

    retold = MappingProxyType(_XMIT)


# Getting sent packets back


class Reclaim(virtio_done.Reclaim):
    """Free packets the device has sent."""

    retold = MappingProxyType(
        {
            "read_used_idx": {
                **_LOOK,
                "text": {
                    "more": "Slot {last_used} has AVAIL and USED at {used_wrap}: the device has returned a buffer.",
                    "none": "The flags of slot {last_used} do not say used: there is nothing to take back.",
                },
            },
            "take_used": {
                "function": GET_BUF,
                "spec": USED,
                "text": {
                    "freed": "The used descriptor names id {head}: its descriptors and its memory are free again.",
                    "asked again": (
                        "The used descriptor names id {head}, free again; callbacks are on, so driver_event.desc moves "
                        "along, to {asked}."
                    ),
                    "bad": (
                        "The used descriptor names an id that is not outstanding. Linux marks the queue broken and "
                        "stops using it."
                    ),
                },
            },
        }
    )


_TRANSMIT_DONE: Final[Retold] = {
    "vring_interrupt": {
        "text": {
            "work": "Slot {last_used} has come back: the interrupt is for this queue.",
            "no work": "Slot {last_used} has not come back: nothing to do, and no harm done.",
        }
    }
}


class TransmitDone(virtio_done.TransmitDone):
    """The interrupt of a transmit queue."""

    retold = MappingProxyType(
        {
            **_TRANSMIT_DONE,
            "schedule_poll": {
                "text": {
                    "scheduled": (
                        "Further interrupts are unwanted until the poll is done. With event indices nothing is "
                        "written for that: one came already."
                    ),
                    "scheduled already": "The poll is scheduled or at work already: it is only told to look once more.",
                }
            },
        }
    )


class TransmitDoneWithoutNapi(virtio_done.TransmitDoneWithoutNapi):
    """The interrupt of a transmit queue with napi_tx=0."""

    retold = MappingProxyType(_TRANSMIT_DONE)


_END_OF_POLL: Final[Retold] = {
    "disable_again": {"spec": EVENTS},
    "mb_before_last_look": {"spec": USED},
    "enable_callbacks": _place("want_callbacks", _PLACES, "virtqueue_enable_cb_prepare_packed"),
    "last_look": {
        "title": "look at the next used flags one last time",
        "function": "virtqueue_poll_packed",
        "spec": USED,
    },
}


class PollTransmit(virtio_done.PollTransmit):
    """NAPI for a transmit queue."""

    ring: PackedDriver
    retold = MappingProxyType({**_END_OF_POLL, "disable_callbacks": _NO_INTERRUPTS})

    def enable_callbacks(self, me: Context) -> str:
        """Store the place of the next interrupt."""
        return _in_words(self.ring.place_event())

    @op(
        "G-TXC.4",
        "say that interrupts are wanted",
        "virtqueue_enable_cb_prepare_packed",
        VIRTIO_RING,
        spec=EVENTS,
        text=_MAY_WANT,
        to={outcome: goto("leave_poll_list") for outcome in _MAY_WANT},
    )
    def want_callbacks(self, me: Context) -> str:
        return "written" if self.ring.want_callbacks() else "nothing"


class CleanTransmit(virtio_done.CleanTransmit):
    """Tidy the transmit queue of the same pair before receiving."""

    ring: PackedDriver
    retold = MappingProxyType(
        {
            "disable_callbacks": {"spec": EVENTS},
            "enable_callbacks_delayed": _place("want_callbacks"),
            "mb_before_recheck": _BARRIER,
            "recheck": {"title": "look at the next used flags", "function": ENABLE_LATE, "spec": USED},
        }
    )

    def enable_callbacks_delayed(self, me: Context) -> str:
        """Store the place of a late interrupt."""
        return _in_words(self.ring.place_event_late())

    @op(
        "G-RX.2",
        "say that interrupts are wanted",
        ENABLE_LATE,
        VIRTIO_RING,
        spec=EVENTS,
        text=_MAY_WANT,
        to={outcome: goto("mb_before_recheck") for outcome in _MAY_WANT},
    )
    def want_callbacks(self, me: Context) -> str:
        return "written" if self.ring.want_callbacks() else "nothing"


# Receiving


class ReceiveDone(virtio_receive.ReceiveDone):
    """The interrupt of a receive queue."""

    retold = MappingProxyType(
        {
            "vring_interrupt": {
                "text": {
                    "work": "Slot {last_used} has come back: a packet has come.",
                    "no work": "Slot {last_used} has not come back: nothing to do, and no harm done.",
                }
            },
            "schedule_poll": {"spec": EVENTS},
        }
    )


_POLL: Final[Retold] = {
    **_END_OF_POLL,
    "read_used_idx": {
        **_LOOK,
        "text": {
            "more": "Slot {last_used} has AVAIL and USED at {used_wrap}: a buffer has come back, with something in it.",
            "refill": (
                "Slot {last_used} has not come back: all is taken. More than {threshold} buffers are used up, so the "
                "queue is refilled."
            ),
            "none": (
                "Slot {last_used} has not come back: all packets are taken. Enough empty buffers are left, so none is "
                "put back."
            ),
        },
    },
    "take_used": {
        "function": GET_BUF,
        "spec": USED,
        "text": {
            "first": "The used descriptor names id {head} and says that {written} bytes were written.",
            "piece": "The used descriptor names id {head}: {written} more bytes of the same packet.",
            "bad": (
                "The used descriptor names an id that is not outstanding. Linux marks the queue broken and stops using "
                "it."
            ),
        },
    },
}


class _WantsPackets(virtio_receive.PollReceive):
    """What the poll does otherwise: it asks in two steps."""

    ring: PackedDriver

    def enable_callbacks(self, me: Context) -> str:
        """Store the place of the next interrupt."""
        return _in_words(self.ring.place_event())

    @op(
        "G-RX.8",
        "say that interrupts are wanted",
        "virtqueue_enable_cb_prepare_packed",
        VIRTIO_RING,
        spec=EVENTS,
        text=_MAY_WANT,
        to={outcome: goto("complete") for outcome in _MAY_WANT},
    )
    def want_callbacks(self, me: Context) -> str:
        return "written" if self.ring.want_callbacks() else "nothing"


class PollReceive(_WantsPackets):
    """NAPI for a receive queue."""

    retold = MappingProxyType(_POLL)


class PollReceiveAlone(_WantsPackets, virtio_receive.PollReceiveAlone):
    """The same in a guest without transmit NAPI."""

    retold = MappingProxyType(_POLL)


class Refill(virtio_refill.Refill):
    """Put new buffers into the receive queue until it is full."""

    retold = MappingProxyType(
        {
            "post_buffer": {
                "text": {
                    "written": "An empty buffer is offered in slot {slot}, id {head}; its flags are still to come.",
                    "full": "Every descriptor is offered: the queue is full of empty buffers.",
                },
                "to": {"written": goto("publish_flags"), "full": goto("mb_before_kick_check")},
            },
            "write_avail_ring": None,
            "publish_avail_idx": {
                "name": "publish_flags",
                "title": "store the flags",
                "function": "virtqueue_add_packed",
                "spec": "2.8.21.1.1",
                "text": "Slot {slot} gets its flags, {flags}: the device may use the buffer from now on.",
            },
            "mb_before_kick_check": {"spec": MAY_SEND},
            "check_kick": {"function": "virtqueue_kick_prepare_packed", "spec": "2.8.21.2"},
        }
    )


OVER_PACKED: Final[Mapping[type[Routine], type[Routine]]] = {
    virtio_add.AddBuffer: AddBuffer,
    virtio_xmit.StartXmit: StartXmit,
    virtio_xmit.StartXmitWithoutNapi: StartXmitWithoutNapi,
    virtio_done.Reclaim: Reclaim,
    virtio_done.TransmitDone: TransmitDone,
    virtio_done.TransmitDoneWithoutNapi: TransmitDoneWithoutNapi,
    virtio_done.PollTransmit: PollTransmit,
    virtio_done.CleanTransmit: CleanTransmit,
    virtio_receive.ReceiveDone: ReceiveDone,
    virtio_receive.PollReceive: PollReceive,
    virtio_receive.PollReceiveAlone: PollReceiveAlone,
    virtio_refill.Refill: Refill,
}
"""Routine of the driver -> what it is over packed rings."""
