"""QEMU's main loop as the way of an interrupt, where vhost-net serves the queues of a virtio-mmio device.

virtio-pci ties each queue's call eventfd to KVM (irqfd), and a signal becomes an interrupt inside the kernel.
virtio-mmio does not: QEMU's main loop waits for the call eventfds itself. So every interrupt wakes it, costs it the
system calls that it needs to wait, to read the eventfd and to move the line in KVM, and the Big QEMU Lock.

Source: QEMU 10.0 hw/virtio/virtio-mmio.c (virtio_mmio_set_guest_notifiers: with_irqfd is false), hw/virtio/virtio.c
(virtio_queue_set_guest_notifier_fd_handler, virtio_queue_guest_notifier_read).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import Routine, call, call_any, goto, op
from virtviz.paths.qemu import MainLoop, Qemu, Ready
from virtviz.paths.qemu_fds import PpollWait
from virtviz.spec.citation import QEMU_MAIN_LOOP, QEMU_VIRTIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells

RX_CALL, TX_CALL = Ready.RX_KICK, Ready.TX_KICK
"""What the main loop can find to do, as bits: there are no kicks for it, so theirs are free."""
CALLS: Final = {TX_CALL: "transmit call", RX_CALL: "receive call"}
"""What is served by whom, in the order in which it is served: what was registered last comes first."""


class CallingQemu(Qemu):
    """A QEMU whose main loop waits for the calls of vhost's queues, and for nothing else that happens here.

    Args:
        calls: the receive queue's and the transmit queue's call eventfd.
    """

    def __init__(self, state: State, name: str, own: EventfdCells, calls: Sequence[EventfdCells]) -> None:
        super().__init__(state, name, [], own, [])
        self.calls = calls

    def look(self) -> int:
        """Give which call eventfds are ready."""
        rx, tx = self.calls
        return (RX_CALL if rx.counter else 0) | (TX_CALL if tx.counter else 0)


class CallLoop(MainLoop):
    """The main loop's thread: main_loop_wait, over and over."""

    @op(
        "MMIO.2",
        "take the Big QEMU Lock",
        "os_host_main_loop_wait",
        QEMU_MAIN_LOOP,
        text=(
            "ppoll() says that vhost has signalled a queue's call eventfd. QEMU's devices run under one lock, which is "
            "taken first."
        ),
        to=goto("next_handler"),
        guard="lock_is_free",
    )
    def take_lock(self, me: Context) -> None:
        self.qemu.take_lock(me)
        self.qemu.cells.notify_me = 0

    @op(
        "MMIO.2",
        {"sleep": "wait in ppoll()", "": "run the next handler"},
        "main_loop_wait",
        QEMU_MAIN_LOOP,
        text={
            "transmit call": "The transmit queue's call eventfd was signalled: its handler runs.",
            "receive call": "The receive queue's call eventfd was signalled: its handler runs.",
            "sleep": "Nothing is left to do: the lock is given up, and {qemu} waits for all its descriptors at once.",
        },
        to={"handler": call_any("work", "next_handler"), "sleep": call("poll_wait", "take_lock")},
        # Giving up a lock makes all that was stored before it visible.
        fence=True,
    )
    def next_handler(self, me: Context) -> str:
        mine = self.qemu.cells
        for bit, name in CALLS.items():
            if mine.ready & bit:
                mine.ready &= ~bit
                return name
        mine.notify_me = 1
        self.qemu.release_lock()
        return "sleep"


class WaitForCalls(PpollWait):
    """ppoll() in the kernel: sleeps until vhost signals a call eventfd."""

    retold = MappingProxyType({"wait": {"row": "MMIO.2"}})


class ReadCall(Routine):
    """The handler of a queue's call eventfd: read it, then interrupt. Rows 2 and 3.

    Args:
        read: read() of the eventfd.
        interrupt: sets InterruptStatus, and raises the line.
    """

    def __init__(self, name: str, place: Place, queue: str, read: Routine, interrupt: Routine) -> None:
        super().__init__(name, place, queue)
        self.read = read
        self.interrupt = interrupt

    @op(
        "MMIO.2",
        "read the call's eventfd",
        "virtio_queue_guest_notifier_read",
        QEMU_VIRTIO,
        spec="4.2.3.4",
        text=(
            "vhost wants the guest to be interrupted, and only QEMU can do it: the eventfd is tied to no interrupt in "
            "KVM. First it has to be read, a system call."
        ),
        to=call("read", "interrupt"),
    )
    def read_call(self, me: Context) -> None: ...
