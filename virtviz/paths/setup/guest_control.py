"""The driver sends commands over the control queue, and waits for each answer. Rows CP.4.

A command is a buffer like any other: what the device reads (class, command, data), and one byte that it writes. The
driver does not sleep and no interrupt comes: it kicks and spins until the answer is there. Bringing the interface up
sends three: what to receive beside what is addressed to the card.

Source: virtio 1.4, 5.1.9.5; Linux 6.12 drivers/net/virtio_net.c (virtnet_send_command_reply, virtnet_rx_mode_work).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.ops import RETURN, call, goto, op
from virtviz.paths.setup import registers as reg
from virtviz.paths.setup.guest_probe import ProbeRoutine
from virtviz.spec.citation import VIRTIO_NET, VIRTIO_PCI, VIRTIO_RING, VIRTIO_RING_H
from virtviz.spec.virtio import (
    VIRTIO_NET_CTRL_MAC,
    VIRTIO_NET_CTRL_MAC_TABLE_SET,
    VIRTIO_NET_CTRL_RX,
    VIRTIO_NET_CTRL_RX_ALLMULTI,
    VIRTIO_NET_CTRL_RX_PROMISC,
    VIRTIO_NET_OK,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp
    from virtviz.ring.rings import DriverRing

UNANSWERED: Final = 0xFF
"""What stands in the answer's byte before the device has written it; neither VIRTIO_NET_OK nor VIRTIO_NET_ERR."""


class Command(Struct, frozen=True):
    """A command: its readable bytes, and what it asks for."""

    content: bytes
    what: str


RX_MODE: Final = (
    Command(bytes((VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0)), "not to receive what is for others"),
    Command(bytes((VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, 0)), "not to receive every multicast frame"),
    Command(
        bytes((VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET)) + bytes(8),
        "which further addresses to receive for: none",
    ),
)
"""What the driver asks for when the interface comes up (virtnet_rx_mode_work)."""


class SendCommands(ProbeRoutine):
    """Send some commands, one after the other.

    Args:
        notify: what a store to its notify address leads to.
        ring: the driver's side of the control queue.
        page: where a command lies in the guest's memory.
        commands: what is to be sent.
    """

    first = "write_command"

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        access: Routine,
        notify: Routine,
        ring: DriverRing,
        page: int,
        commands: Sequence[Command] = RX_MODE,
    ) -> None:
        super().__init__(name, place, setup, access)
        self.notify = notify
        self.ring = ring
        self.page = page
        self._commands = commands

    @property
    def commands(self) -> Sequence[Command]:
        """What is to be sent, all of it."""
        return self._commands

    @property
    def command(self) -> Command:
        """The command being sent."""
        return self.commands[self.mine.sent % len(self.commands)]

    @property
    def answer_at(self) -> int:
        """Where the answer's byte is."""
        return self.page + len(self.command.content)

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what the command asks for."""
        return {"what": self.command.what, "head": self.ring.cells.head, "class": self.command.content[0]}

    @op(
        "CP.4.1",
        "write a command",
        "virtnet_send_command_reply",
        VIRTIO_NET,
        spec="5.1.9.5",
        text="A command is laid out in memory: {what}. Behind it is one byte for the answer.",
    )
    def write_command(self, me: Context) -> None:
        self.ring.memory.write(self.page, self.command.content + bytes((UNANSWERED,)))

    @op(
        "CP.4.2",
        "write its descriptors",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.1",
        text="Two descriptors from head {head} on: the command, which the device reads, and the byte that it writes.",
    )
    def write_descs(self, me: Context) -> None:
        self.ring.write_chain([(self.page, len(self.command.content)), (self.answer_at, 1)], 1, 1)

    @op(
        "CP.4.2",
        "write avail.ring",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.2",
        text="The next slot of the control queue's available ring gets the head, {head}.",
    )
    def write_avail(self, me: Context) -> None:
        self.ring.list_head()

    @op(
        "CP.4.2",
        "publish avail.idx",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.3",
        text="The device may take the command from now on.",
    )
    def publish(self, me: Context) -> None:
        self.ring.publish()

    @op(
        "CP.4.3",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING_H,
        spec="2.7.13.4.1",
        text="The command must be visible before the device is told of it.",
        fence=True,
        cost="barrier",
    )
    def mb(self, me: Context) -> None: ...

    @op(
        "CP.4.3",
        "ask whether a kick is wanted",
        "virtqueue_kick_prepare_split",
        VIRTIO_RING,
        spec="2.7.13.4",
        text={
            "kick": "The device wants to be told.",
            "no kick": "The device is at the queue already, and will find it.",
        },
        to={"kick": goto("kick"), "no kick": goto("await_answer")},
    )
    def is_kick_wanted(self, me: Context) -> str:
        return "kick" if self.ring.kick_needed() else "no kick"

    @op(
        "CP.4.3",
        "kick the control queue",
        "vp_notify",
        VIRTIO_PCI,
        spec="4.1.5.2",
        text="A kick like that of any other queue: its number is stored to its notify address.",
        to=call("notify", "await_answer"),
        cause="store to the notify address",
    )
    def kick(self, me: Context) -> None:
        mine, control = self.mine, self.control
        reg.store(self.setup, mine.notify + mine.notify_off[control] * mine.multiplier, control, 2)

    def is_answered(self) -> bool:
        """Say whether the device has returned the buffer."""
        return self.ring.more_used()

    @op(
        "CP.4.5",
        "find the answer",
        "virtqueue_get_buf",
        VIRTIO_RING,
        spec="5.1.9.5",
        text="The driver has looked at used.idx over and over, without sleeping. Now the buffer is back.",
        guard="is_answered",
    )
    def await_answer(self, me: Context) -> None:
        self.ring.take_used()

    @op(
        "CP.4.5",
        {"refused": "see that it was refused", "": "see that it was done"},
        "virtnet_send_command_reply",
        VIRTIO_NET,
        spec="5.1.9.5",
        text={
            "more": "VIRTIO_NET_OK (0): it is done. The next command.",
            "all": "VIRTIO_NET_OK (0): it is done. That was the last command.",
            "refused": (
                "VIRTIO_NET_ERR (1): the device refused it. The driver says so in the kernel's log, and goes on."
            ),
        },
        to={"more": goto("write_command"), "all": RETURN, "refused": RETURN},
    )
    def read_answer(self, me: Context) -> str:
        mine = self.mine
        answer = self.ring.memory.read(self.answer_at, 1)[0]
        mine.sent = (mine.sent + 1) % len(self.commands)
        if answer != VIRTIO_NET_OK:
            return "refused"
        return "more" if mine.sent else "all"


class FillAndCommand(ProbeRoutine):
    """What bringing the interface up does to the queues: fill the receive queue, then say what to receive.

    Args:
        refill: fills the receive queue.
        commands: sends the commands.
    """

    def __init__(
        self, name: str, place: Place, setup: SetUp, access: Routine, refill: Routine, commands: Routine
    ) -> None:
        super().__init__(name, place, setup, access)
        self.refill = refill
        self.commands = commands

    @op(
        "G-RX.6",
        "fill the receive queue",
        "virtnet_open",
        VIRTIO_NET,
        text="Empty buffers first: without them no frame could be received.",
        to=call("refill", "set_rx_mode"),
        private=True,
    )
    def fill(self, me: Context) -> None: ...

    @op(
        "CP.4.1",
        "say what to receive",
        "virtnet_set_rx_mode",
        VIRTIO_NET,
        text=(
            "The kernel tells the card what to receive beside frames for its own address. That goes by the "
            "control queue."
        ),
        to=call("commands", None),
    )
    def set_rx_mode(self, me: Context) -> None: ...
