"""A set-up over packed rings: what its routines do and say otherwise than over split ones.

The three addresses that the driver stores are of other things, and commands go over a control queue that is packed as
well: there is no list of heads, and the flags of the first descriptor make a command available.

Source: Linux 6.12 drivers/virtio/virtio_ring.c (virtqueue_add_packed, virtqueue_get_buf_ctx_packed); QEMU 10.0
hw/virtio/virtio.c (virtqueue_packed_fill_desc, virtqueue_packed_flush); virtio 1.4, 2.8.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from virtviz.engine.ops import Routine, goto
from virtviz.paths.setup import guest_control, guest_pairs, guest_queues, qemu_control, qemu_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMANDS: Final[Mapping[str, Mapping[str, Any] | None]] = MappingProxyType(
    {
        "write_descs": {
            "function": "virtqueue_add_packed",
            "spec": "2.8.21.1",
            "text": (
                "Two descriptors: the command, which the device reads, and the byte that it writes. The first one's "
                "flags still say that it is the driver's."
            ),
            "to": goto("publish_flags"),
        },
        "write_avail": None,
        "publish": {
            "name": "publish_flags",
            "title": "store the flags",
            "function": "virtqueue_add_packed",
            "spec": "2.8.21.1",
            "text": "The first descriptor's flags say available: the device may take the command from now on.",
        },
        "mb": {"spec": "2.8.21.3.1"},
        "is_kick_wanted": {"function": "virtqueue_kick_prepare_packed", "spec": "2.8.21.3.1"},
        "await_answer": {
            "function": "virtqueue_get_buf_ctx_packed",
            "text": (
                "The driver has looked at the descriptor's flags over and over, without sleeping. Now the buffer is "
                "back."
            ),
        },
    }
)
_ANSWERS: Final[Mapping[str, Mapping[str, Any] | None]] = MappingProxyType(
    {
        "write_used": {
            "title": "write the used descriptor, all but its flags",
            "function": "virtqueue_packed_fill_desc",
            "spec": "2.8.22",
            "text": "The buffer goes back: its id, and that one byte was written.",
            "to": goto("publish_used_flags"),
        },
        "publish_used": {
            "name": "publish_used_flags",
            "title": "store the used flags",
            "function": "virtqueue_packed_flush",
            "spec": "2.8.22",
        },
    }
)


class SetQueuesUp(guest_queues.SetQueuesUp):
    """Interrupts, then queue after queue, then all are enabled."""

    retold = MappingProxyType(
        {
            "write_desc": {"text": "The descriptor ring is at {desc}, an address of the guest's. Both sides write it."},
            "write_avail": {
                "title": "say where the driver's wishes stand",
                "text": "Whether the driver wants interrupts stands at {avail}, in four bytes that only it writes.",
            },
            "write_used": {
                "title": "say where the device's wishes stand",
                "text": "Whether the device wants kicks stands at {used}, in four bytes that only it writes.",
            },
        }
    )


class SendCommands(guest_control.SendCommands):
    """Send some commands, one after the other."""

    retold = _COMMANDS


class SetPairs(guest_pairs.SetPairs):
    """Say how many queue pairs are to be used."""

    retold = _COMMANDS


class ServeControl(qemu_control.ServeControl):
    """Commands of the control queue."""

    retold = _ANSWERS


class ServeControlInPairs(qemu_pairs.ServeControlInPairs):
    """The same where one of the commands is how many queue pairs are to be used."""

    retold = _ANSWERS


OVER_PACKED: Final[Mapping[type[Routine], type[Routine]]] = {
    guest_queues.SetQueuesUp: SetQueuesUp,
    guest_control.SendCommands: SendCommands,
    guest_pairs.SetPairs: SetPairs,
    qemu_control.ServeControl: ServeControl,
    qemu_pairs.ServeControlInPairs: ServeControlInPairs,
}
"""Routine of a set-up -> what it is over packed rings."""
