"""The guest's driver on virtio-mmio: how it kicks, and what it does when it is interrupted.

There is one register for all kicks, into which the queue's number is stored; and one interrupt line for all that the
device has to say. So the handler has to ask the device what it wants, tell it that it was heard, and look at every
queue: two accesses to registers, each of which goes to QEMU. With MSI-X on PCI each queue has a message of its own, and
nothing has to be asked.

Source: Linux 6.12 drivers/virtio/virtio_mmio.c (vm_notify, vm_interrupt).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.guest_config import ConfigChanged, TakeInterruptThenWork
from virtviz.paths.guest_level import TakeLevelInterrupt, TakeLevelInterruptByExits
from virtviz.paths.virtio_net import Notify, NotifyInterruptsOff
from virtviz.spec.citation import VIRTIO_CORE, VIRTIO_MMIO
from virtviz.spec.virtio_mmio import VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.kvm_device import AccessCells

_KICK: Final = MappingProxyType(
    {
        "function": "vm_notify",
        "source": VIRTIO_MMIO,
        "spec": "4.2.3.3",
        "text": (
            "The driver stores the queue's number, 32 bits, to QueueNotify: one register for all queues. On PCI each "
            "queue has an address of its own."
        ),
        "cause": "store to QueueNotify",
    }
)


class NotifyMmio(Notify):
    """The kick: a 32-bit store of the queue's number to QueueNotify.

    Attributes:
        index: the queue's number; set by the wiring.
        access: the value that is stored; set by the wiring.
    """

    index: int
    access: AccessCells
    retold = MappingProxyType({"kick": _KICK})

    def kick(self, me: Context) -> None:
        """Store the queue's number."""
        self.access.value = self.index


class NotifyMmioInterruptsOff(NotifyInterruptsOff):
    """The same by a guest that happens to have interrupts disabled while it kicks."""

    index: int
    access: AccessCells
    retold = MappingProxyType(
        {
            "kick": {
                **_KICK,
                "text": (
                    "The driver stores the queue's number, 32 bits, to QueueNotify: one register for all queues. The "
                    "guest has interrupts disabled just now."
                ),
            }
        }
    )

    def kick(self, me: Context) -> None:
        """Store the queue's number."""
        super().kick(me)
        self.access.value = self.index


@cells
class InterruptCells(Cells):
    """What the handler keeps: the bits of InterruptStatus that it has loaded."""

    status: int = 0


class LineInterrupt(Routine):
    """The handler of the device's line: vm_interrupt.

    Args:
        access: the register access under way.
        load: what a load from InterruptStatus leads to.
        acknowledge: what a store to InterruptACK leads to.
        transmit, receive: what looks at each queue: the queue set up last comes first in the driver's list.
    """

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        *,
        access: AccessCells,
        load: Routine,
        acknowledge: Routine,
        transmit: Routine,
        receive: Routine,
    ) -> None:
        super().__init__(name, place)
        self.mine = state.add(InterruptCells, name)
        self.access = access
        self.load = load
        self.acknowledge = acknowledge
        self.transmit = transmit
        self.receive = receive

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the bits that were loaded."""
        return {"status": self.mine.status}

    @op(
        "MMIO.5",
        "load InterruptStatus",
        "vm_interrupt",
        VIRTIO_MMIO,
        spec="4.2.3.4",
        text=(
            "The line does not say what the device wants: the driver has to ask. It loads InterruptStatus, a register "
            "that only QEMU knows."
        ),
        to=call("load", "store_ack"),
        cause="load from InterruptStatus",
        cost="kick",
        private=True,
    )
    def load_status(self, me: Context) -> None: ...

    @op(
        "MMIO.6",
        "store to InterruptACK",
        "vm_interrupt",
        VIRTIO_MMIO,
        spec="4.2.3.4",
        text=(
            "InterruptStatus was {status}. The driver stores the same bits to InterruptACK: these it has heard of. "
            "QEMU has to take them back, and lower the line."
        ),
        to=call("acknowledge", "look"),
        cause="store to InterruptACK",
        cost="kick",
    )
    def store_ack(self, me: Context) -> None:
        self.mine.status = self.access.value

    @op(
        "MMIO.7",
        "see what has happened",
        "vm_interrupt",
        VIRTIO_MMIO,
        spec="4.2.2",
        text={
            "queues": (
                "Bit 0: a buffer was used, in some queue. The line is one for all, so every queue of the device has "
                "to be looked at."
            ),
            "nothing": "No bit was set: somebody else's interrupt, or one that was dealt with before.",
        },
        to={"queues": call("transmit", "receive"), "nothing": RETURN},
        private=True,
    )
    def look(self, me: Context) -> str:
        return "queues" if self.mine.status & VIRTIO_MMIO_INT_VRING else "nothing"


class LineInterruptWithConfig(LineInterrupt):
    """The same where the device's configuration can change.

    Attributes:
        config: what hears of that; set by the wiring.
    """

    config: Routine
    retold = MappingProxyType({"store_ack": {"to": call("acknowledge", "look_at_config")}})

    @op(
        "MMIO.7",
        "see whether the configuration changed",
        "vm_interrupt",
        VIRTIO_MMIO,
        spec="4.2.2",
        text={
            "changed": "Bit 1 of what was loaded: the configuration changed.",
            "unchanged": "Bit 1 of what was loaded is clear: the configuration is as it was.",
        },
        to={"changed": call("config", "look"), "unchanged": goto("look")},
        private=True,
    )
    def look_at_config(self, me: Context) -> str:
        return "changed" if self.mine.status & VIRTIO_MMIO_INT_CONFIG else "unchanged"


class ConfigChangedOnLine(ConfigChanged):
    """A changed configuration, heard of by the device's only line: row 7 of CONFIG."""

    retold = MappingProxyType(
        {
            "hear": {
                "function": "virtio_config_changed",
                "source": VIRTIO_CORE,
                "spec": "4.2.3.4",
                "text": "The transport asks the driver to look at its device.",
            }
        }
    )


class TakeLineThenWork(TakeLevelInterrupt, TakeInterruptThenWork):
    """An interrupt by a line, where it may have scheduled work."""


class TakeLineByExitsThenWork(TakeLevelInterruptByExits, TakeInterruptThenWork):
    """The same without APICv."""
