"""QEMU answers commands of the control queue, whoever serves the others. Rows CP.4.4.

While vhost has the data queues, the control queue has no eventfd: its kick is a heavy exit, and the vCPU's thread
carries the command out. Where QEMU has all queues the control queue has one as well, and the main loop does it.

Source: QEMU 10.0 hw/net/virtio-net.c (virtio_net_handle_ctrl, virtio_net_handle_ctrl_iov), hw/virtio/virtio-pci.c
(virtio_pci_notify_write), hw/virtio/virtio.c (virtqueue_push).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, goto, op
from virtviz.paths.virtio_device.control import run_command
from virtviz.ring.rings import read_buffer, take, write_buffer
from virtviz.spec.citation import QEMU_VIRTIO, QEMU_VIRTIO_NET, QEMU_VIRTIO_PCI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.virtio_device.device import NetDevice
    from virtviz.ring.rings import DeviceRing


@cells
class ControlCells(Cells):
    """What QEMU has in its hands: class of the command, and the answer to it."""

    command: int = 0
    answer: int = 0


CLASSES: Final = {0: "what to receive", 1: "addresses", 2: "VLANs", 3: "announcing", 4: "queue pairs", 5: "offloads"}


class ServeControl(Routine):
    """Commands of the control queue, carried out on the vCPU's thread.

    Args:
        device: the device model.
        ring: the device's side of the queue.
        who: whose thread it is, for people.
    """

    def __init__(
        self, state: State, name: str, place: Place, device: NetDevice, ring: DeviceRing, who: str = "the vCPU's thread"
    ) -> None:
        super().__init__(name, place)
        self.who = who
        self.mine = state.add(ControlCells, name)
        self.device = device
        self.ring = ring

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the command's class."""
        mine = self.mine
        return {"class": CLASSES.get(mine.command, "something unknown"), "answer": mine.answer, "who": self.who}

    @op(
        "CP.4.4",
        "find the queue that was kicked",
        "virtio_pci_notify_write",
        QEMU_VIRTIO_PCI,
        spec="4.1.4.4",
        text="It is the control queue: its handler runs right here, on {who}.",
        to=goto("pop"),
        private=True,
    )
    def find_queue(self, me: Context) -> None: ...

    @op(
        "CP.4.4",
        {"command": "take the command", "": "find no more commands"},
        "virtio_net_handle_ctrl",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5",
        text={
            "command": "A command is in the queue: QEMU takes it.",
            "nothing": "The control queue is empty: that was all.",
            "broken": "What is in the control queue is no command: QEMU leaves it.",
        },
        to={"command": goto("carry_out"), "nothing": RETURN, "broken": RETURN},
    )
    def pop(self, me: Context) -> str:
        taken = take(self.ring)
        return "command" if taken == "buffer" else "nothing" if taken == "empty" else "broken"

    @op(
        "CP.4.4",
        "carry the command out",
        "virtio_net_handle_ctrl_iov",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5",
        text="The command is about {class}. QEMU's device model does what it asks for, and vhost is not told of it.",
    )
    def carry_out(self, me: Context) -> None:
        command = read_buffer(self.ring)
        self.mine.command = command[0]
        self.mine.answer = run_command(self.device, command)

    @op(
        "CP.4.4",
        "write the answer",
        "virtio_net_handle_ctrl",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5",
        text="The byte for the answer becomes {answer}.",
    )
    def write_answer(self, me: Context) -> None:
        write_buffer(self.ring, bytes((self.mine.answer,)))

    @op(
        "CP.4.4",
        "write the used element",
        "virtqueue_fill",
        QEMU_VIRTIO,
        spec="2.7.8",
        text="The buffer goes back: its head, and that one byte was written.",
    )
    def write_used(self, me: Context) -> None:
        self.ring.write_used([self.ring.cells.head], [1])

    @op(
        "CP.4.4",
        "publish used.idx",
        "virtqueue_flush",
        QEMU_VIRTIO,
        spec="2.7.8.2",
        text="From now on the driver can see that it is done. It gets no interrupt for it, and waits for none.",
        to=goto("pop"),
    )
    def publish_used(self, me: Context) -> None:
        self.ring.publish()
