"""A system call of a set-up, seen from the kernel: one op that does it, in the thread that called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine
from virtviz.paths.setup.pairs import ORDINALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp


class KernelCall(Routine):
    """What the kernel does in one system call.

    Args:
        setup: what it is about.
    """

    def __init__(self, name: str, place: Place, setup: SetUp) -> None:
        super().__init__(name, place)
        self.setup = setup

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts of system calls speak of."""
        arguments, setup = self.setup.arguments, self.setup
        return {
            "tap": setup.port_name,
            "ordinal": ORDINALS[setup.sequence.argument],
            "index": arguments.index,
            "queue": setup.queue_name(arguments.index),
            "value": arguments.value,
            "hex": f"{arguments.value:#x}",
            "desc": f"{arguments.desc:#x}",
            "result": f"{arguments.result:#x}",
            "fd": arguments.value,
        }
