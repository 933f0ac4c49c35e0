"""Putting a vhost-user port together that gets no device: QEMU serves the queues, and nothing is behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.places import Domain, Place
from virtviz.paths.parts import QEMU
from virtviz.paths.vhost_user_fallback import SendToNoDevice, SendToPeer, TakeAndForget
from virtviz.paths.wire_qemu import QemuBackend, QemuPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.ops import Routine
    from virtviz.paths.parts import Parts
    from virtviz.paths.pmd import Pmd
    from virtviz.paths.qemu_tx import SendQueued
    from virtviz.paths.tap import Tap
    from virtviz.paths.tap_queues import TapFlows
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_switch import TapPort
    from virtviz.paths.wire_vhost_user import Joined


class PairWithoutTap(QemuPair):
    """What QEMU has of a queue pair behind which there is a socket for messages."""

    send_class: ClassVar[type[SendQueued]] = SendToPeer

    def _join_network(self) -> None:
        self.peer = TakeAndForget(self.parts.state, f"{self.name}.vhost_user", QEMU, self.nic)
        lost = self.peer.lost
        self.parts.drops[f"{self.name}.vhost_user"] = lambda: lost.frames

    def _readers(self, deliver: Routine) -> dict[str, Routine]:
        return {}

    def _send_out(self, port: TapPort | None, flows: TapFlows | None) -> Routine:
        return self.peer


class VhostUserFallback(QemuBackend):
    """A vhost-user port whose guest QEMU serves in the end.

    Args:
        parts, machine, number: as for QEMU's back-end.

    Attributes:
        name: the port's.
    """

    def __init__(self, parts: Parts, machine: Sequence[Guest], number: int) -> None:
        super().__init__(parts, machine, number)
        self.name = f"vhost-user{number}"

    def _make_taps(self, number: int) -> list[Tap]:
        return []

    def pair_class(self) -> type[QemuPair]:
        """Say what it has of each queue pair."""
        return PairWithoutTap

    def join(self, pmd: Pmd, process: Routine, port: int) -> Joined:
        """Make what the polling thread does for the port: it polls nothing, and drops what is for it."""
        self.wire(None)
        parts, place = self.parts, Place(self.name, Domain.HOST_USER, "vhost-user port")
        send = SendToNoDevice(parts.state, f"{self.name}.send", place, pmd, parts.host_pool, port)
        lost = send.lost
        parts.drops[f"{self.name}.tx_dropped"] = lambda: lost.frames
        return [], {}, send
