"""The interface is brought up for the first time: ndo_open, as part of a set-up. Rows CP.1.8 and G-RX.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, goto, op
from virtviz.spec.citation import SCENARIO, VIRTIO_NET

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
        to=goto("start_program"),
    )
    def up(self, me: Context) -> None:
        self.mine.up = 1

    def never(self) -> bool:
        """Say that nothing the network does lets the program begin."""
        return False

    def always(self) -> bool:
        """Say that time alone does."""
        return True

    @op(
        "CP.1.8",
        "start a program",
        "main",
        SCENARIO,
        text="The guest goes on booting. When everything has come to rest, a program that uses the network begins.",
        to=goto("program"),
        guard="never",
        patience="always",
        private=True,
    )
    def start_program(self, me: Context) -> None: ...
