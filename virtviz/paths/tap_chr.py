"""The TAP's file descriptor, in the kernel: writev() brings a frame into the host, read() takes one out.

Each is one system call for one frame, with one copy in it. vhost-net uses neither: it calls the same TAP from inside
the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.host_net import softirq_waits
from virtviz.spec.citation import SOFTIRQ, TUN
from virtviz.spec.frames import ETH_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.host_net import Backlog
    from virtviz.paths.qemu_nic import TapClient
    from virtviz.paths.tap import Tap


class TapWrite(Routine):
    """writev(): a frame of the guest comes out of the TAP and goes up the host's stack. Rows 7 and 8 of Q-TX.

    Args:
        nic: the device whose buffer is written.
        port: the switch port the TAP is.
        receive: what takes the frame: the port's rx_handler.
    """

    links: Mapping[str, str] = {"let_softirqs_run": "finish"}

    def __init__(self, name: str, place: Place, tap: Tap, nic: TapClient, port: int, receive: Routine) -> None:
        super().__init__(name, place)
        self.tap = tap
        self.nic = nic
        self.port = port
        self.receive = receive

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the TAP and the length."""
        nic = self.nic
        return {"tap": self.tap.name, "length": self.length(me), "memory": nic.sent_from, "copies": nic.copies_out}

    @op(
        "Q-TX.7",
        "copy the packet out of the guest",
        "tun_get_user",
        TUN,
        spec="5.1.9.2",
        text={
            COPIED: (
                "The kernel copies header and frame, {length} bytes, out of {memory} into a socket buffer. {copies}"
            ),
            DROPPED: (
                "The frame is shorter than an Ethernet header, or the host has no memory for it: writev() fails, and "
                "QEMU drops the packet."
            ),
        },
        to={COPIED: goto("hand_up"), DROPPED: goto("finish")},
        size="length",
        cost="tap",
    )
    def copy_packet(self, me: Context) -> str:
        nic, pool = self.nic, self.tap.pool
        data = nic.outgoing()
        frame_bytes = len(data) - nic.header_bytes
        if frame_bytes < ETH_HEADER_BYTES or not pool.cells.free_count:
            nic.cells.refused += 1
            return DROPPED
        me.packet = packet = nic.outgoing_packet()
        me.skb = slot = pool.take(packet, frame_bytes)
        # The header lies in front of the frame, in the slot's headroom.
        pool.memory.write(pool.at[slot] - nic.header_bytes, data)
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand, header included."""
        return self.nic.outgoing_length()

    @op(
        "Q-TX.8",
        "hand the frame up",
        "tun_rx_batched",
        TUN,
        text="The frame goes up the host's stack as if {tap} had received it: in QEMU's thread, inside its writev().",
        to=call("receive", "let_softirqs_run"),
        milestone="at-tap",
        private=True,
    )
    def hand_up(self, me: Context) -> None:
        me.port = self.port

    @op(
        "Q-TX.8",
        "return from writev()",
        "tun_chr_write_iter",
        TUN,
        text="The frame has been switched, or waits for ovs-vswitchd: writev() returns.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...


class TapWriteWithSoftirqs(TapWrite):
    """The same where the frame may raise a softirq: it runs before writev() returns.

    Args:
        softirq: works off what the thread has raised a softirq for.
        backlogs: for each thread, what that is.
    """

    links: Mapping[str, str] = {}

    def __init__(
        self,
        name: str,
        place: Place,
        tap: Tap,
        nic: TapClient,
        port: int,
        receive: Routine,
        softirq: Routine,
        backlogs: Sequence[Backlog | None],
    ) -> None:
        super().__init__(name, place, tap, nic, port, receive)
        self.softirq = softirq
        self.backlogs = backlogs

    @op(
        "Q-TX.8",
        "let softirqs run",
        "__local_bh_enable_ip",
        SOFTIRQ,
        text={
            "softirq": "The frame has raised a softirq, which runs now, in this thread, inside this writev().",
            "none": "Softirqs were held off until now; none is waiting.",
        },
        to={"softirq": call("softirq", "finish"), "none": goto("finish")},
        private=True,
    )
    def let_softirqs_run(self, me: Context) -> str:
        return "softirq" if softirq_waits(self.backlogs, me) else "none"


class TapRead(Routine):
    """read(): a frame for the guest is copied out of the TAP's queue into QEMU's memory. Rows 2 and 11 of Q-RX."""

    def __init__(self, name: str, place: Place, tap: Tap, nic: TapClient) -> None:
        super().__init__(name, place)
        self.tap = tap
        self.nic = nic

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the TAP and the length."""
        return {"tap": self.tap.name, "length": self.length(me)}

    @op(
        {COPIED: "Q-RX.2", "EAGAIN": "Q-RX.11"},
        "read one frame",
        "tun_do_read",
        TUN,
        text={
            COPIED: (
                "The kernel makes a virtio-net header and copies header and frame, {length} bytes, out of {tap}'s "
                "queue into a buffer of QEMU's: the first copy."
            ),
            "EAGAIN": "{tap}'s queue is empty: read() returns EAGAIN.",
        },
        to={COPIED: RETURN, "EAGAIN": RETURN},
        size="length",
        cause="return from the system call",
        cost="tap",
    )
    def read(self, me: Context) -> str:
        mine, tap = self.nic.cells, self.tap
        if not tap.queue:
            mine.got = 0
            return "EAGAIN"
        slot = tap.queue.take()
        data = tap.pool.data(slot)
        me.packet = packet = tap.pool.cells.packet[slot]
        own = self.nic.memory.take(packet)
        self.nic.keep(own, bytes(data))
        tap.pool.release(slot)
        mine.frame = own
        mine.got = self.nic.header_bytes + len(data)
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes just read, header included."""
        return self.nic.cells.got
