"""QEMU's virtio-mmio: its interrupt registers, and how it raises and lowers the device's only line.

InterruptStatus says why the line is high: bit 0, some buffer was used; bit 1, the configuration changed. The line is
high as long as it is not 0. Whoever sets a bit or takes one back has QEMU compute the line anew, and QEMU tells KVM
each time, by a system call, even if the level is what it was.

With vhost-net an interrupt comes here, too: virtio-mmio ties no eventfd to KVM (irqfd), so that the worker's signal
wakes QEMU's main loop (`qemu_calls.py`).

Source: QEMU 10.0 hw/virtio/virtio-mmio.c (virtio_mmio_read, virtio_mmio_write, virtio_mmio_update_irq), hw/virtio/
virtio.c (virtio_set_isr, virtio_irq, virtio_notify_vector).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import RETURN, Routine, call, call_any, op
from virtviz.paths.qemu_checks import NotifyConfig
from virtviz.paths.qemu_deliver import Deliver
from virtviz.paths.qemu_link import DropQueued
from virtviz.paths.qemu_threads import UnderLock
from virtviz.paths.qemu_tx import SendQueued
from virtviz.paths.qemu_used import TellingRoutine
from virtviz.paths.vhost_used import ReturnBuffers
from virtviz.spec.citation import QEMU_VIRTIO, QEMU_VIRTIO_MMIO
from virtviz.spec.virtio_mmio import VIRTIO_MMIO_INT_VRING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.kvm_device import AccessCells
    from virtviz.paths.kvm_ioapic import Ioapic
    from virtviz.paths.qemu import Qemu

# The interrupt's line


class SetStatus(Routine):
    """A buffer was used: note it in InterruptStatus, then see to the line. Row 3.

    Args:
        device: whose InterruptStatus it is.
        line: what computes the line anew.
    """

    def __init__(self, name: str, place: Place, queue: str, device: DeviceStatus, line: Routine) -> None:
        super().__init__(name, place, queue)
        self.device = device
        self.line = line

    @op(
        "MMIO.3",
        "set bit 0 of InterruptStatus",
        "virtio_set_isr",
        QEMU_VIRTIO,
        spec="4.2.2",
        text={
            "set": "InterruptStatus: some buffer was used. It does not say in which queue.",
            "set already": "InterruptStatus says so already, for the driver has not acknowledged it: nothing to write.",
        },
        to={"set": call("line", None), "set already": call("line", None)},
    )
    def set_status(self, me: Context) -> str:
        mine = self.device.cells
        if mine.isr & VIRTIO_MMIO_INT_VRING:
            return "set already"
        mine.isr |= VIRTIO_MMIO_INT_VRING
        return "set"


class UpdateLine(Routine):
    """Compute the line's level from InterruptStatus, and tell KVM: virtio_mmio_update_irq.

    Args:
        device: whose InterruptStatus it is.
        ioapic: the line.
        tell_kvm: the system call by which KVM hears of the line's level.
        row: which row it is.
    """

    def __init__(
        self, name: str, place: Place, device: DeviceStatus, ioapic: Ioapic, tell_kvm: Routine, row: str
    ) -> None:
        super().__init__(name, place)
        self.device = device
        self.ioapic = ioapic
        self.tell_kvm = tell_kvm
        self.rows = {"line": row}

    def words(self, me: Context) -> Mapping[str, object]:
        """Give InterruptStatus."""
        return {"isr": self.device.cells.isr}

    @op(
        "line",
        "compute the line's level",
        "virtio_mmio_update_irq",
        QEMU_VIRTIO_MMIO,
        spec="4.2.3.4",
        text={
            "rises": "InterruptStatus is {isr}, not 0: the device's only line goes high. KVM has to be told.",
            "falls": "InterruptStatus is 0: the device's line goes low. KVM has to be told.",
            "stays high": "InterruptStatus is {isr}: the line stays high. QEMU does not compare, and tells KVM again.",
            "stays low": "InterruptStatus is 0: the line stays low. QEMU does not compare, and tells KVM again.",
        },
        to={name: call("tell_kvm", None) for name in ("rises", "falls", "stays high", "stays low")},
    )
    def compute(self, me: Context) -> str:
        line = self.ioapic.line
        level = int(self.device.cells.isr != 0)
        if line.level == level:
            return "stays high" if level else "stays low"
        line.level = level
        return "rises" if level else "falls"


# What QEMU's back-end does in place of a message


class TellsByLine(TellingRoutine):
    """A routine that returns buffers: the guest hears of them by the device's line."""

    @op(
        "MMIO.3",
        "interrupt by the device's line",
        "virtio_irq",
        QEMU_VIRTIO,
        spec="4.2.3.4",
        text="The queue has no interrupt of its own: the device has one for all queues, and for the configuration.",
        to=call("interrupt", "told"),
        private=True,
    )
    def signal(self, me: Context) -> None: ...


class SendQueuedByLine(TellsByLine, SendQueued):
    """The bottom half that sends."""


class DeliverByLine(TellsByLine, Deliver):
    """What puts a frame into the guest's buffers."""


class DropQueuedByLine(TellsByLine, DropQueued):
    """What drops packets for want of a link."""


class ReturnBuffersByLine(ReturnBuffers):
    """What vhost tells the guest by, with QEMU's help."""

    retold = MappingProxyType(
        {
            "signal_call": {
                "spec": "4.2.3.4",
                "text": (
                    "The worker adds 1 to the queue's call eventfd. On PCI that would make the interrupt, in this "
                    "thread. Here it only wakes QEMU."
                ),
            }
        }
    )


BY_LINE: Final[Mapping[type[Routine], type[Routine]]] = MappingProxyType(
    {
        SendQueued: SendQueuedByLine,
        Deliver: DeliverByLine,
        DropQueued: DropQueuedByLine,
        ReturnBuffers: ReturnBuffersByLine,
    }
)
"""A routine that tells the guest by a queue's message -> the one that does by the device's line."""


class NotifyConfigByLine(NotifyConfig):
    """A changed configuration: virtio_notify_config. Rows 4 and 5 of CONFIG."""

    retold = MappingProxyType(
        {
            "signal_change": {
                "title": "interrupt by the device's line",
                "function": "virtio_notify_vector",
                "source": QEMU_VIRTIO,
                "spec": "4.2.3.4",
                "text": "The configuration has no interrupt of its own: its bit of InterruptStatus raises the line.",
            }
        }
    )


# The registers, in the vCPU's thread


class ServeRegister(UnderLock):
    """An access to a register, as QEMU's vCPU thread serves it between two KVM_RUNs.

    Args:
        qemu: its process.
        register: its name.
        serve: what the access leads to.
        row: which row it is.
    """

    links = MappingProxyType({"work": "dispatch"})
    retold = MappingProxyType(
        {"release_lock": {"text": "The access is done with: the lock is given up, and the thread calls KVM_RUN again."}}
    )

    def __init__(self, name: str, place: Place, qemu: Qemu, register: str, serve: Routine, row: str) -> None:
        super().__init__(name, place)
        self.qemu = qemu
        self.register = register
        self.serve = serve
        self.rows = {"access": row, "take lock": row, "give lock up": row}

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the register."""
        return {"register": self.register}

    @op(
        "access",
        "find the register",
        "virtio_mmio_write",
        QEMU_VIRTIO_MMIO,
        spec="4.2.2",
        text="The address is in the device's 512 bytes of registers, and there it is {register}.",
        to=call("serve", "release_lock"),
        private=True,
    )
    def dispatch(self, me: Context) -> None: ...


class ServeRegisterLoad(ServeRegister):
    """A load, in the same way."""

    retold = MappingProxyType({"dispatch": {"function": "virtio_mmio_read"}})


class ReadStatus(Routine):
    """A load from InterruptStatus.

    Args:
        access: where the value goes.
    """

    def __init__(self, name: str, place: Place, device: DeviceStatus, access: AccessCells) -> None:
        super().__init__(name, place)
        self.device = device
        self.access = access

    def words(self, me: Context) -> Mapping[str, object]:
        """Give InterruptStatus."""
        return {"isr": self.device.cells.isr}

    @op(
        "MMIO.5",
        "read InterruptStatus",
        "virtio_mmio_read",
        QEMU_VIRTIO_MMIO,
        spec="4.2.2",
        text="InterruptStatus is {isr}. Reading it clears nothing, unlike the ISR status of PCI: the line stays high.",
        to=RETURN,
    )
    def read(self, me: Context) -> None:
        self.access.value = self.device.cells.isr


class Acknowledge(Routine):
    """A store to InterruptACK: the bits that are set in it are taken back.

    Args:
        access: what is stored.
        line: what computes the line anew.
    """

    def __init__(self, name: str, place: Place, device: DeviceStatus, access: AccessCells, line: Routine) -> None:
        super().__init__(name, place)
        self.device = device
        self.access = access
        self.line = line

    def words(self, me: Context) -> Mapping[str, object]:
        """Give InterruptStatus, and what is stored."""
        return {"isr": self.device.cells.isr, "value": self.access.value}

    @op(
        "MMIO.6",
        "take the bits back",
        "virtio_mmio_write",
        QEMU_VIRTIO_MMIO,
        spec="4.2.2",
        text=(
            "The bits stored to InterruptACK, {value}, are cleared: InterruptStatus is {isr}. Others, set since the "
            "driver looked, stay."
        ),
        to=call("line", None),
    )
    def clear(self, me: Context) -> None:
        self.device.cells.isr &= ~self.access.value


class HandleQueueNotify(UnderLock):
    """A store to QueueNotify, as QEMU's vCPU thread handles it between two KVM_RUNs, with `ioeventfd=off`.

    Args:
        qemu: its process.
        access: what was stored.
        serve: a queue's name -> what its kick leads to, in the order of the queues' numbers.
    """

    rows = MappingProxyType({"take lock": "KICK.3", "give lock up": "KICK.5"})
    links = MappingProxyType({"work": "find_queue"})

    def __init__(self, name: str, place: Place, qemu: Qemu, access: AccessCells, serve: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.qemu = qemu
        self.access = access
        self.serve = serve
        self._names = list(serve)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what was stored."""
        return {"value": self.access.value}

    @op(
        "Q-TX.3",
        "find the queue",
        "virtio_mmio_write",
        QEMU_VIRTIO_MMIO,
        spec="4.2.3.3",
        text="{value} was stored to QueueNotify: QEMU runs the handler of the queue of that number, in this thread.",
        to=call_any("serve", "release_lock"),
    )
    def find_queue(self, me: Context) -> str:
        return self._names[self.access.value]
