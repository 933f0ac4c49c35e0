"""The interface is brought up for the first time: ndo_open, as part of a set-up. Rows CP.1.8 and G-RX.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, op
from virtviz.spec.citation import VIRTIO_NET

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp


class OpenDevice(Routine):
    """Fill the receive queue, kick once, and let programs use the network.

    Args:
        refill: fills the receive queue.
        program: the program in the guest.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, refill: Routine, program: Routine) -> None:
        super().__init__(name, place)
        self.mine = setup.probe
        self.refill = refill
        self.program = program

    @op(
        "G-RX.6",
        "bring the interface up",
        "virtnet_open",
        VIRTIO_NET,
        text="The driver offers a buffer with every descriptor of the receive queue before the first packet can come.",
        to=call("refill", "up"),
    )
    def open(self, me: Context) -> None: ...

    @op(
        "CP.1.8",
        "the interface is up",
        "virtnet_open",
        VIRTIO_NET,
        text="The interface is up: programs can use the network. Whoever is on the wire can reach this guest.",
        to=call("program", None),
    )
    def up(self, me: Context) -> None:
        self.mine.up = 1
