"""The guest takes its driver off the device and puts it back: tear-down, and all from the reset again.

Rows CP.1.10 to CP.1.14.

First nothing may come in or go out, then the device is reset, so that it does not touch memory any more; only then are
buffers and rings freed. The order is what matters: a device that was not reset would go on writing into memory that
belongs to somebody else by then.

Source: Linux 6.12 drivers/net/virtio_net.c (virtnet_remove, virtnet_close, remove_vq_common, free_unused_bufs),
drivers/virtio/virtio_pci_common.c (vp_del_vqs), drivers/virtio/virtio_pci_modern.c (vp_reset, del_vq),
drivers/base/bus.c (unbind_store, bind_store).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.setup import registers as reg
from virtviz.paths.setup.guest_probe import ProbeRoutine
from virtviz.paths.setup.state import NO_VECTOR
from virtviz.spec.citation import VIRTIO_NET, VIRTIO_PCI, VIRTIO_RING
from virtviz.spec.setup_sources import DRIVER_BUS, READ_WRITE, VIRTIO_PCI_MODERN, VIRTIO_PCI_MODERN_DEV

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.setup.state import SetUp
    from virtviz.ring.rings import DriverRing


class RemoveDriver(ProbeRoutine):
    """Unbind the driver, and bind it again.

    Args:
        drivers: the driver's side of the queues; without the control queue where no command is sent.
        pools: where each data queue's buffers lie.
        again: sets the device up anew.
    """

    first = "unbind"

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        access: Routine,
        *,
        drivers: Sequence[DriverRing],
        pools: Sequence[PacketPool],
        again: Routine,
    ) -> None:
        super().__init__(name, place, setup, access)
        self.drivers = drivers
        self.pools = pools
        self.again = again

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the queue and what it holds."""
        queue = self.mine.queue % self.setup.queues
        outstanding = sum(map(bool, self.drivers[queue].cells.tokens)) if queue != self.control else 0
        freed = self.setup.queue_name((queue - 1) % self.control)
        return {"queue": self.setup.queue_name(queue), "freed": freed, "outstanding": outstanding, "entry": queue + 1}

    @op(
        "CP.1.10",
        "unbind the driver",
        "unbind_store",
        DRIVER_BUS,
        text="The function's name is written to the file “unbind” of virtio-pci: virtio-net loses its device first.",
    )
    def unbind(self, me: Context) -> None:
        self.mine.up = 0

    @op(
        "CP.1.10",
        "take the interface down",
        "virtnet_close",
        VIRTIO_NET,
        text=(
            "The interface goes down: no program can send any more, and NAPI polls no queue. Frames may still come in."
        ),
        to=goto("reset_device"),
    )
    def close(self, me: Context) -> None:
        self.mine.queue = 0

    @op(
        "CP.1.11",
        "reset the device",
        "vp_reset",
        VIRTIO_PCI_MODERN,
        spec="3.3.1",
        text="Before any memory is freed the device must have stopped using it: 0 in device_status.",
        to=call("access", "wait_for_reset"),
        cause="store to device_status",
        fence=True,
    )
    def reset_device(self, me: Context) -> None:
        self.store(reg.DEVICE_STATUS, 0, 1)

    @op(
        "CP.1.11",
        "wait for the reset",
        "vp_reset",
        VIRTIO_PCI_MODERN,
        spec="2.4.2",
        text="It has stopped once device_status reads 0.",
        to=call("access", "look_at_reset"),
        cause="load of device_status",
    )
    def wait_for_reset(self, me: Context) -> None:
        self.load(reg.DEVICE_STATUS, 1)

    @op(
        "CP.1.11",
        "see whether it is reset",
        "vp_reset",
        VIRTIO_PCI_MODERN,
        spec="2.4.2",
        text={"reset": "It reads 0: the rings are the driver's alone.", "not yet": "Not yet: the driver asks again."},
        to={"reset": goto("free_buffers"), "not yet": goto("wait_for_reset")},
        private=True,
    )
    def look_at_reset(self, me: Context) -> str:
        return "not yet" if self.loaded else "reset"

    @op(
        "CP.1.12",
        "free what the queue holds",
        "free_unused_bufs",
        VIRTIO_NET,
        text="The {queue} queue's buffers that the device never used are freed.",
    )
    def free_buffers(self, me: Context) -> None:
        queue = self.mine.queue
        for token in self.drivers[queue].cells.tokens:
            if token:
                self.pools[queue].release(token)

    @op(
        "CP.1.12",
        {"more": "free the queue", "all": "free the queue"},
        "vring_del_virtqueue",
        VIRTIO_RING,
        text={
            "more": "The {freed} queue's three parts are freed. Whoever gets that memory next gets it cleared.",
            "all": "The {freed} queue's three parts are freed. Its interrupt goes next.",
        },
        to={"more": goto("free_buffers"), "all": goto("mask")},
    )
    def free_queue(self, me: Context) -> str:
        mine = self.mine
        begin_anew(self.drivers[mine.queue])
        mine.queue = following = (mine.queue + 1) % self.control
        if following:
            return "more"
        for ring in self.drivers[self.control :]:
            # Nothing is in it: every command was waited for.
            begin_anew(ring)
        return "all"

    @op(
        "CP.1.13",
        "mask the queue's interrupt",
        "vp_del_vqs",
        VIRTIO_PCI,
        spec="4.1.5.1.2",
        text="Entry {entry} of the MSI-X table is masked, and its handler is gone.",
        to=call("access", "choose_queue"),
        cause="store to the MSI-X table",
    )
    def mask(self, me: Context) -> None:
        reg.store(self.setup, reg.BAR1 + 16 * (self.mine.queue + 1) + 12, 1, 4)

    @op(
        "CP.1.13",
        "choose the queue",
        "del_vq",
        VIRTIO_PCI_MODERN,
        spec="4.1.5.1.2",
        text="The {queue} queue is chosen once more.",
        to=call("access", "take_vector"),
        cause="store to queue_select",
    )
    def choose_queue(self, me: Context) -> None:
        self.store(reg.QUEUE_SELECT, self.mine.queue, 2)

    @op(
        "CP.1.13",
        "take its entry away",
        "vp_modern_queue_vector",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.2",
        text="0xffff: the {queue} queue has no entry of the MSI-X table any more.",
        to=call("access", "vector_taken"),
        cause="store to queue_msix_vector",
    )
    def take_vector(self, me: Context) -> None:
        self.store(reg.QUEUE_MSIX_VECTOR, NO_VECTOR, 2)

    @op(
        "CP.1.13",
        "go on to the next queue",
        "vp_del_vqs",
        VIRTIO_PCI,
        text={"more": "The next queue.", "all": "The device is as it was before any driver came."},
        to={"more": goto("mask"), "all": goto("bind")},
        private=True,
    )
    def vector_taken(self, me: Context) -> str:
        mine = self.mine
        mine.queue = following = (mine.queue + 1) % self.control
        return "more" if following else "all"

    @op(
        "CP.1.14",
        "bind the driver again",
        "bind_store",
        DRIVER_BUS,
        text=("The name is written to “bind”. The capabilities say what they said before; that is not shown again."),
        to=goto("again"),
    )
    def bind(self, me: Context) -> None: ...


class OpenAgain(Routine):
    """The interface is brought up once more, and whoever bound the driver goes on.

    Args:
        refill: fills the receive queue.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, refill: Routine) -> None:
        super().__init__(name, place)
        self.mine = setup.probe
        self.refill = refill

    @op(
        "CP.1.14",
        "bring the interface up again",
        "virtnet_open",
        VIRTIO_NET,
        text="The interface is brought up again: the receive queue, empty and new, is filled with buffers.",
        to=call("refill", "up_again"),
    )
    def open_again(self, me: Context) -> None: ...

    @op(
        "CP.1.14",
        "the interface is up again",
        "virtnet_open",
        VIRTIO_NET,
        text="The interface is up again. For programs the network was away for a moment.",
    )
    def up_again(self, me: Context) -> None:
        self.mine.up = 1

    def never(self) -> bool:
        """Say that nothing the network does is waited for."""
        return False

    def always(self) -> bool:
        """Say that time alone is."""
        return True

    @op(
        "CP.1.14",
        "go on with the program",
        "ksys_write",
        READ_WRITE,
        text="After a while, when everything has come to rest, the program goes on.",
        to=RETURN,
        cause="return from the system call",
        guard="never",
        patience="always",
        private=True,
    )
    def return_to_program(self, me: Context) -> None: ...


def begin_anew(driver: DriverRing) -> None:
    """Let a driver's side of a queue begin anew, in memory that has been cleared."""
    mine, layout = driver.cells, driver.layout
    for field, value in mine.fields.items():
        if value is not None and getattr(mine, field) != value:
            setattr(mine, field, value)
    mine.num_free = layout.size
    for n in range(layout.size):
        if mine.tokens[n]:
            mine.tokens[n] = 0
        if mine.next[n] != (n + 1) % layout.size:
            mine.next[n] = (n + 1) % layout.size
    first = layout.areas[0]
    driver.memory.write(first, bytes(layout.end - first))
