"""Registers of the threads of a data path, and the contexts a CPU can be in."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from virtviz.engine.cells import cells
from virtviz.engine.threads import Registers


class Level(IntEnum):
    """What a CPU is doing, from the ordinary to the urgent."""

    PROCESS = 0
    SOFTIRQ = 1
    HARDIRQ = 2


@cells
class Context(Registers):
    """The registers of a thread that carries packets.

    Attributes:
        skb: slot of the packet it carries, in the pool of the side it runs on; 0 for none.
        port: number of the switch port the packet came in by.
        outputs: switch ports it still has to be sent to, as bits.
        held: slot of the original while copies of it are sent to several ports; 0 for none.
    """

    skb: int = 0
    port: int = 0
    outputs: int = 0
    held: int = 0


@cells
class WatchedContext(Context):
    """The registers of such a thread in a machine that somebody looks at."""

    observed: ClassVar[bool] = True
