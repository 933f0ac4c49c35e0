"""A vhost-user port of OVS-DPDK over packed rings: what its routines do and say otherwise than over split ones.

There is no avail.idx and no list of heads: the library goes by the flags of the descriptors. What it has sent it
returns while the burst is still being taken, all but the first, whose flags it stores last. What it has filled it
returns four slots at a time. In either case it asks once, at the end, whether the guest wants a call.

Source: DPDK lib/vhost/virtio_net.c (virtio_dev_tx_packed, virtio_dev_rx_packed), lib/vhost/vhost.h
(vhost_vring_call_packed).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from virtviz.engine.effects import COPIED
from virtviz.engine.ops import RETURN, Routine, goto
from virtviz.paths import vhost_user, vhost_user_send
from virtviz.ring.verdicts import RETRIES, UNSENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.paths.context import Context
    from virtviz.ring.dpdk_packed_device import DpdkPackedDevice
    from virtviz.ring.verdicts import Problem, Verdict

Retold = dict[str, Any]

AVAILABLE, USED, EVENTS = "2.8.21", "2.8.22", "2.8.10"
"""Sections: supplying buffers, receiving used buffers, event suppression."""
FILL: Final = "fill_vec_buf_packed"
CALL: Final = "vhost_vring_call_packed"

_CALLS: Final[Mapping[str, Retold]] = {
    "mb_before_call_check": {
        "function": CALL,
        "spec": EVENTS,
        "text": (
            "The used flags must be visible before the library reads whether the guest wants a call. Storing them was "
            "not enough: a processor may read before its own store has arrived."
        ),
    },
    "check_call": {"function": CALL, "spec": EVENTS},
}
_DESC: Final[Retold] = {"function": FILL, "spec": AVAILABLE}


class DequeueBurst(vhost_user.DequeueBurst):
    """Take a burst out of a guest's transmit queue."""

    ring: DpdkPackedDevice
    retold = MappingProxyType(
        {
            **_CALLS,
            "read_avail_idx": {
                "name": "count_available",
                "title": "count the available buffers",
                "function": "get_nb_avail_entries_packed",
                "spec": "2.8.1",
                "text": {
                    "new": (
                        "From slot {next} on, with the wrap counter at {avail_wrap}, the flags say that {burst} can be "
                        "taken: as many, at most 32, are this burst."
                    ),
                    "empty": "The flags of slot {next} do not say available: the guest has sent nothing.",
                },
                "to": {"new": goto("read_desc"), "empty": RETURN},
            },
            "read_head": None,
            "read_desc": {
                **_DESC,
                "text": {
                    "last": (
                        "The descriptor gives a guest-physical address, a length, and the buffer's id, {head}. The "
                        "guest's memory is mapped into this process: the library adds an offset, and asks nobody."
                        "{passed}"
                    ),
                    "next": "The descriptor gives a piece of the buffer; the next slot goes on with it.{passed}",
                    "indirect": "The descriptor refers to a table: the buffer's pieces are described there.{passed}",
                    UNSENT: "{wrong}",
                    "gone": "The flags of slot {slot} no longer say available: the burst ends before it.",
                },
                "to": {
                    "last": goto("copy_packet"),
                    "next": goto("read_desc"),
                    "indirect": goto("read_desc"),
                    UNSENT: goto("write_used"),
                    "gone": goto("write_used"),
                },
            },
            "note_used": {
                "name": "return_buffer",
                "row": "U-TX.6",
                "title": "return the buffer, unseen",
                "function": "vhost_shadow_dequeue_single_packed",
                "spec": USED,
                "private": False,
                "text": {
                    "more": "Packet {packet} of {burst} is copied. {returned} On to the next.",
                    "all": "Packet {packet} of {burst} is copied, the last of this burst. {returned}",
                },
                "to": {"more": goto("read_desc"), "all": goto("write_used")},
            },
            "write_used": {
                "title": "write the first buffer's id",
                "function": "vhost_flush_dequeue_shadow_packed",
                "spec": USED,
                "text": {
                    "written": (
                        "Slot {used_slot}, the burst's first, gets its buffer's id; the length stays as the guest "
                        "wrote it. Its flags still say available, so nothing of the burst can be seen."
                    ),
                    "nothing": "No buffer was used: there is nothing to give back.",
                },
                "to": {"written": goto("publish_used_flags"), "nothing": goto("nothing_used")},
            },
            "publish_used_idx": {
                "name": "publish_used_flags",
                "title": "store the first buffer's used flags",
                "function": "vhost_flush_dequeue_shadow_packed",
                "spec": USED,
                "text": (
                    "Slot {used_slot} gets AVAIL and USED alike. The guest reads it first, so this shows the whole "
                    "burst: it has {buffers} back."
                ),
            },
        }
    )

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts speak of."""
        first = self.q.cells.done == 1
        returned = (
            "Its used descriptor is kept back: as long as the guest does not find this one, it looks at no other."
            if first
            else "Its used descriptor is written at once, flags and all; it waits for the burst's first."
        )
        return {**super().words(me), "returned": returned}

    def judge(self, problem: Problem, *, refused: bool = True) -> Verdict:
        """Make the verdict on a malformed state: what cannot be followed is given back as well."""
        found = super().judge(problem, refused=refused)
        return replace(found, what=UNSENT) if found.what == RETRIES else found

    def read_avail_idx(self, me: Context) -> str:
        """Count what is there, and begin with the first buffer."""
        found = str(super().read_avail_idx(me))
        if found == "new":
            self._begin(me)
        return found

    def _begin(self, me: Context) -> None:
        self.ring.begin()
        if me.observed:
            me.packet = self.q.next_packet()

    def read_desc(self, me: Context) -> str:
        """Read the next descriptor; the first one's flags are looked at once more."""
        if not self.ring.cells.found and self.ring.look() == "empty":
            return "gone"
        return str(super().read_desc(me))

    def stay(self, problem: Problem) -> str:
        """Give back what was followed of a chain that leads nowhere, and end the burst."""
        answer = super().stay(problem)
        self.ring.return_sent()
        self.q.cells.done += 1
        return answer

    def copy_packet(self, me: Context) -> str:
        """Copy the packet; a buffer without a frame, or with too long a one, goes back at once."""
        answer = str(super().copy_packet(me))
        if answer != COPIED:
            self.ring.return_sent()
        return answer

    def note_used(self, me: Context) -> str:
        """Return the buffer just copied, and begin with the next."""
        self.ring.return_sent()
        answer = str(super().note_used(me))
        if answer == "more":
            self._begin(me)
        return answer

    def write_used(self, me: Context) -> str:
        """Write what was kept back, all but the flags."""
        if not self.q.cells.done:
            return "nothing"
        self.ring.write_first_id()
        return "written"


class SendBatch(vhost_user_send.SendBatch):
    """Put the output batch of a port into the guest."""

    ring: DpdkPackedDevice
    retold = MappingProxyType(
        {
            **_CALLS,
            "read_avail_idx": {
                "name": "prefetch_desc",
                "title": "have the next descriptor fetched",
                "function": "virtio_dev_rx_packed",
                "spec": "2.8.1",
                # A prefetch waits for nothing: whoever reads the line next does.
                "cost": "step",
                "text": (
                    "There is no index to read. The library has the processor fetch the cache line of slot {next}, to "
                    "look at its flags right away."
                ),
            },
            "read_head": {
                "name": "read_flags",
                "title": "read the flags of the next descriptor",
                "function": FILL,
                "spec": "2.8.1",
                "text": {
                    "head": "Slot {next} has AVAIL at {avail_wrap}, as the driver's counter, and USED not: available.",
                    "none": (
                        "Slot {next} is not available, and {missing} bytes of this packet have no room: it is not "
                        "delivered, and neither is what comes after it in the batch."
                    ),
                    RETRIES: "{wrong}",
                },
            },
            "read_desc": _DESC,
            "take_next": {
                "function": "vhost_shadow_enqueue_single_packed",
                "text": {
                    "more": "Packet {packet} of {burst} is copied, its buffers noted; on to the next.",
                    "all": (
                        "Packet {packet} of {burst} is copied, the last of this batch. Of the buffers that are noted "
                        "the guest does not know yet."
                    ),
                    "line": (
                        "Packet {packet} of {burst} is copied. What is noted fills a cache line of four descriptors, "
                        "so it is returned now."
                    ),
                },
                "to": {"more": goto("read_flags"), "all": goto("write_used"), "line": goto("write_used")},
            },
            "write_used": {
                "title": "write the used descriptors",
                "function": "vhost_flush_enqueue_shadow_packed",
                "spec": USED,
                "text": {
                    "written": (
                        "For {buffers} the id and the bytes written are stored, and the flags for all but the first. "
                        "Still unseen: slot {used_slot} says available as before."
                    ),
                    "returned": "What was noted has been returned before; the guest has not been told of it.",
                    "nothing": "No buffer was used: there is nothing to give back.",
                },
                "to": {
                    "written": goto("publish_used_flags"),
                    "returned": goto("mb_before_call_check"),
                    "nothing": goto("nothing_used"),
                },
            },
            "publish_used_idx": {
                "name": "publish_used_flags",
                "title": "store the used flags",
                "function": "vhost_flush_enqueue_shadow_packed",
                "spec": USED,
                "text": {
                    "done": "Slot {used_slot} gets AVAIL and USED alike: the guest can see what was returned.",
                    "more": (
                        "Slot {used_slot} gets AVAIL and USED alike: the guest can see what was returned. Whether it "
                        "wants a call is asked at the end of the batch."
                    ),
                },
                "to": {"done": goto("mb_before_call_check"), "more": goto("read_flags")},
            },
        }
    )

    def another(self) -> bool:
        """Read the next descriptor's flags: say whether a buffer is there."""
        return self.ring.look() == "new"

    def read_avail_idx(self, me: Context) -> None:
        """Begin with the rest of the batch; nothing is read."""
        queue = self.q.cells
        if queue.done:
            queue.done = 0
        self.take(me)

    def take_next(self, me: Context) -> str:
        """Note the packet's buffers; a full cache line is returned."""
        queue = self.q.cells
        queue.packet = done = queue.packet + 1
        if done == queue.burst:
            return "all"
        if self.ring.line_full(queue.heads[: queue.done]):
            queue.goes_on = 1
            return "line"
        self.take(me)
        return "more"

    def write_used(self, me: Context) -> str:
        """Write the used descriptors of what is noted."""
        queue = self.q.cells
        if not queue.done:
            return "returned" if queue.packet > queue.before else "nothing"
        return str(super().write_used(me))

    def publish_used_idx(self, me: Context) -> str:
        """Show what was returned, and go on with the batch if it is not done."""
        super().publish_used_idx(me)
        queue = self.q.cells
        if not queue.goes_on:
            return "done"
        queue.goes_on = queue.done = 0
        self.take(me)
        return "more"


OVER_PACKED: Final[Mapping[type[Routine], type[Routine]]] = {
    vhost_user.DequeueBurst: DequeueBurst,
    vhost_user_send.SendBatch: SendBatch,
}
"""Routine of a vhost-user port -> what it is over packed rings."""
