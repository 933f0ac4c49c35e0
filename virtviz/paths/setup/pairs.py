"""What the parties to a set-up keep once for each queue pair, or only where there are several.

What there is of the first pair stands where it would stand if there were no other: in the cells of the process, and of
the network device.
"""

from __future__ import annotations

from typing import Final, Protocol

from virtviz.engine.cells import Cells, cells

ORDINALS: Final = ("first", "second", "third", "fourth")
"""By pair, for people."""


def of_pair(name: str, pair: int) -> str:
    """Give the name of what is there once for each pair: for the first one as if there were no other."""
    return f"{name}.q{pair + 1}" if pair else name


class OfPair(Protocol):
    """What QEMU's process keeps for each queue pair, and for the vCPU that goes with it; see `ProcessCells`."""

    tap_fd: int
    vhost_fd: int
    vcpu_fd: int
    vcpu_thread: int
    vcpu_made: int


@cells
class PairCells(Cells):
    """The same for a pair that is not the first, whose numbers stand among those of the process.

    Attributes:
        tap_fd, vhost_fd, vcpu_fd, vcpu_thread, vcpu_made: as in `ProcessCells`.
        tap_off: 1 while the pair's queue of the TAP is switched off.
    """

    tap_fd: int = 0
    vhost_fd: int = 0
    vcpu_fd: int = 0
    vcpu_thread: int = 0
    vcpu_made: int = 0
    tap_off: int = 0


@cells
class SequenceCells(Cells):
    """Where there are several queue pairs: which one a sequence of QEMU's is at.

    Attributes:
        pair: that one, from 0.
        argument: the pair whose descriptor the ioctl that a thread is at is about.
        started: how many pairs vhost serves.
    """

    pair: int = 0
    argument: int = 0
    started: int = 0


class TunFile(Protocol):
    """What an open file of the TUN driver keeps: the descriptor that it has, once it is tied to a network device."""

    attached: int


@cells
class TunFileCells(Cells):
    """The same for a queue of a TAP that is not the first, whose numbers stand among those of the network device.

    Attributes:
        attached: as in `TapSetupCells`.
        detached: 1 while the queue is switched off: the file knows its device, and takes no part in it.
    """

    attached: int = 0
    detached: int = 0


@cells
class CpuCells(Cells):
    """What a guest with several vCPUs finds out besides.

    Attributes:
        pairs: queue pairs that driver and device have.
        said: CPUs that have said that they run.
        online: how many of these the first one has heard of.
        target: the CPU that a table entry's message is for.
        programs: 1 once programs may use the network.
        resets: how often the driver was taken off the device and put back.
    """

    pairs: int = 1
    said: int = 1
    online: int = 1
    target: int = 0
    programs: int = 0
    resets: int = 0


@cells
class ApicCells(Cells):
    """What KVM keeps for a vCPU that has to be started by another: bits INIT and STARTUP, once they have come."""

    events: int = 0
