"""QEMU reads frames from the TAP for the guest: block Q-RX, rows 2, 3 and 11. Between these is `qemu_deliver.py`.

A frame is copied twice: by read() into QEMU's memory, and by QEMU into the guest's. If the guest has no buffer for it,
it waits in QEMU, and the TAP is not read any more until the guest has kicked its receive queue.

Source: QEMU 10.0 net/tap.c (tap_send), hw/net/virtio-net.c (virtio_net_handle_rx), net/queue.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.qemu_nic import TAP_BURST, NicRoutine
from virtviz.spec.citation import QEMU_NET, QEMU_TAP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.qemu_nic import Nic, TapClient


class RxRoutine(NicRoutine):
    """A routine that works on the receive queue."""

    def __init__(self, name: str, place: Place, nic: Nic) -> None:
        super().__init__(name, place, nic, nic.rx_name, nic.rx)

    def length(self, me: Context) -> int:
        """Give the bytes of the frame in hand, header included."""
        return self.nic.kept_length()


class ReadTap(Routine):
    """The handler of the TAP's descriptor: read and deliver, until there is nothing to read (tap_send).

    Args:
        nic: the device that the frames are for.
        read: read() of the TAP.
        deliver: delivers the frame that was read.
    """

    def __init__(self, name: str, place: Place, nic: TapClient, read: Routine, deliver: Routine) -> None:
        super().__init__(name, place, nic.rx_name)
        self.nic = nic
        self.read = read
        self.deliver = deliver

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the device; give the frame's length and the limit."""
        return {"device": self.nic.title, "length": self.nic.kept_length(), "limit": TAP_BURST}

    @op(
        "Q-RX.2",
        "read the TAP",
        "tap_send",
        QEMU_TAP,
        text="One read() for one frame: a system call that copies it into QEMU's memory.",
        to=call("read", "look_at_result"),
    )
    def begin(self, me: Context) -> None:
        if self.nic.cells.read:
            self.nic.cells.read = 0

    @op(
        {"frame": "Q-RX.3", "nothing": "Q-RX.11", DROPPED: "CONFIG.12"},
        {
            "frame": "offer the frame to the device",
            "nothing": "see that nothing is left",
            DROPPED: "drop the frame",
        },
        "qemu_send_packet_async",
        QEMU_NET,
        text={
            "frame": "A frame of {length} bytes, header included, is offered to the {device}.",
            "nothing": "EAGAIN: the TAP has been emptied.",
            DROPPED: "The link of the device is down: QEMU takes the frame for delivered, and drops it.",
        },
        to={"frame": call("deliver", "count"), "nothing": RETURN, DROPPED: goto("count")},
        private=True,
    )
    def look_at_result(self, me: Context) -> str:
        mine = self.nic.cells
        if not mine.got:
            return "nothing"
        mine.read += 1
        return DROPPED if self.nic.drops_kept() else "frame"

    @op(
        {"kept": "Q-RX.3", "": "Q-RX.11"},
        {
            "kept": "stop reading the TAP",
            "enough": "let others have a turn",
            "failed": "let others have a turn",
            "": "read the TAP again",
        },
        "tap_send",
        QEMU_TAP,
        text={
            "more": "The frame is done with: QEMU reads again, until read() finds nothing.",
            "enough": "{limit} frames were read in a row: other descriptors have a turn.",
            "kept": "The frame waits in QEMU: the TAP is taken off what ppoll() waits for, until there are buffers.",
            "failed": "The device has failed to take the frame: QEMU leaves the TAP for this turn.",
        },
        to={"more": call("read", "look_at_result"), "enough": RETURN, "kept": RETURN, "failed": RETURN},
    )
    def count(self, me: Context) -> str:
        mine = self.nic.cells
        if mine.frame:
            self.nic.qemu.poll_tap(self.nic.pair, wanted=False)
            return "kept"
        if not mine.got:
            return "failed"
        return "enough" if mine.read >= TAP_BURST else "more"


class ServeRxKick(RxRoutine):
    """A kick of the receive queue: the guest has put buffers into it. What waits in QEMU is delivered.

    Args:
        deliver: delivers the frame that waits.
    """

    links: Mapping[str, str] = {"notify": ""}

    def __init__(self, name: str, place: Place, nic: Nic, deliver: Routine) -> None:
        super().__init__(name, place, nic)
        self.deliver = deliver

    @op(
        "Q-RX.3",
        "see whether a frame waits",
        "qemu_flush_queued_packets",
        QEMU_NET,
        text={
            "waits": "The guest has put buffers into its receive queue, and a frame has been waiting in QEMU for one.",
            "nothing waits": "The guest has put buffers into its receive queue. No frame has been waiting for them.",
            DROPPED: "A frame has been waiting in QEMU for buffers, but now the link is down: it is dropped.",
            "broken": "The guest has misused a ring: the device is broken until it is reset.",
        },
        to={
            "waits": call("deliver", "read_tap_again"),
            "nothing waits": goto("notify"),
            DROPPED: goto("read_tap_again"),
            "broken": RETURN,
        },
    )
    def flush(self, me: Context) -> str:
        mine = self.nic.cells
        if mine.broken:
            return "broken"
        if not mine.frame:
            return "nothing waits"
        if not self.nic.status.cells.config_status:
            self.nic.drop_kept()
            return DROPPED
        me.packet = self.nic.memory.cells.packet[mine.frame]
        return "waits"

    @op(
        "Q-RX.3",
        "read the TAP again",
        "tap_send_completed",
        QEMU_TAP,
        text={
            "delivered": "The frame is done with: the TAP is among what ppoll() waits for again.",
            "kept": "There is no room for it even now: it waits on.",
        },
        to={"delivered": goto("notify"), "kept": RETURN},
    )
    def read_tap_again(self, me: Context) -> str:
        if self.nic.cells.frame:
            return "kept"
        self.nic.qemu.poll_tap(self.nic.pair, wanted=True)
        return "delivered"
