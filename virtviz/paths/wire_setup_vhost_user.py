"""Putting the set-up of vhost-user together: QEMU and OVS-DPDK talk over a socket, and a TAP does not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from virtviz.engine.places import Domain, Place
from virtviz.paths.parts import QEMU, QEMU_VCPU
from virtviz.paths.pmd import PmdLoop
from virtviz.paths.setup import features, qemu_vhost_user, vhost_user_socket
from virtviz.paths.setup.qemu_start import IdleMainLoop
from virtviz.paths.setup.qemu_vhost import UntieEventfds
from virtviz.paths.setup.vhost_user_backend import AnnouncedQueue, BackendLoop, VhostUserDevice
from virtviz.paths.wire_guest import TX
from virtviz.paths.wire_setup import UNIX, PowerOn
from virtviz.paths.wire_vhost_user import VhostUserBackend, VhostUserPair, pmd_thread

if TYPE_CHECKING:
    from virtviz.engine.ops import Routine
    from virtviz.paths.parts import Parts
    from virtviz.paths.setup.calls import VhostCalls
    from virtviz.paths.setup.qemu_registers import ResetDevice
    from virtviz.paths.tap import Tap
    from virtviz.paths.wire_vhost_user_fallback import VhostUserFallback
    from virtviz.ring.rings import DpdkRing

EVENTS: Final = "vhost-events"
"""The thread of DPDK's vhost library that waits for messages."""


class PowerOnWithVhostUser(PowerOn):
    """The beginning of a virtual machine behind a vhost-user port.

    Args:
        parts: the world in the making.
        port: the port that serves it.

    Attributes:
        extended: the back-end knows protocol features.
    """

    extended: ClassVar[bool] = True
    reset_class: ClassVar[type[ResetDevice]] = qemu_vhost_user.ResetVhostUserDevice

    def __init__(self, parts: Parts, port: VhostUserBackend | VhostUserFallback) -> None:
        self.port = port
        self.socket = vhost_user_socket.Socket(parts.state, port.name)
        self.front = parts.state.add(qemu_vhost_user.FrontCells, f"{port.name}.front_end")
        offer = qemu_vhost_user.offered_by_backend(features.model_features(parts.world), extended=self.extended)
        self.served = VhostUserDevice(parts.state, port.name, offer, len(port.pairs))
        super().__init__(parts, [pair.guest for pair in port.pairs], port.pairs)
        self._start_backend()

    def _name_port(self) -> str:
        return self.port.name

    def _taps(self) -> list[Tap]:
        return []

    def _offer(self) -> int:
        return features.model_features(self.parts.world)

    def _negotiated(self) -> int:
        offer = self._offer() & (~qemu_vhost_user.ASKED | self.served.offer)
        return features.without_unmet(offer & self._known())

    def _talk(self, what: str, place: Place, plan: qemu_vhost_user.Plan) -> Routine:
        """Make a conversation of QEMU's with the back-end."""
        name = f"{self.port.name}.{what}"
        return qemu_vhost_user.Conversation(
            self.parts.state,
            name,
            place,
            self.setup,
            self.front,
            self.socket,
            plan,
            vhost_user_socket.SendMessage(f"{name}.sendmsg", UNIX, self.socket),
            vhost_user_socket.ReceiveAnswer(f"{name}.recvmsg", UNIX, self.socket),
        )

    def _enable(self, what: str, place: Place) -> Routine:
        """Make what tells the back-end which queue pairs are in use."""
        return self._talk(what, place, qemu_vhost_user.enable(len(self.guests)))

    def _follow(self, what: str) -> Routine:
        enable = self._enable(what, QEMU_VCPU)
        return qemu_vhost_user.FollowGuestByMessage(f"{self.guest.name}.{what}", QEMU_VCPU, enable)

    def _start_and_stop(self, vhost: VhostCalls | None) -> tuple[Routine, Routine]:
        setup, calls, name = self.setup, self.calls, self.guest.name
        tells = {
            f"pair {pair + 1}": self._talk(f"start{pair or ''}", QEMU_VCPU, qemu_vhost_user.start(pair))
            for pair in range(len(self.guests))
        }
        start = qemu_vhost_user.StartVhostUser(
            f"{name}.start_vhost_user", QEMU_VCPU, setup, calls, tells, interrupts_first=self.is_7_2
        )
        untie = UntieEventfds(f"{name}.untie", QEMU_VCPU, setup, calls, vhost)
        ask = self._talk("stop", QEMU_VCPU, qemu_vhost_user.stop(len(self.guests)))
        return start, qemu_vhost_user.StopVhostUser(f"{name}.stop_vhost_user", QEMU_VCPU, ask, untie)

    def _start_qemu(self, vhost: VhostCalls | None) -> None:
        name, pairs = self.setup.process_name, len(self.guests)
        start = qemu_vhost_user.QemuStartWithVhostUser(
            f"{name}.start",
            QEMU,
            self.setup,
            self.calls,
            self.front,
            self._talk("introduction", QEMU, qemu_vhost_user.introduction(pairs)),
            self._enable("machine_reset", QEMU),
            is_7_2=self.is_7_2,
            offer=self._offer(),
        )
        is_served_elsewhere = isinstance(self.backend, VhostUserPair)
        start.main_loop = IdleMainLoop(f"{name}.main_loop", QEMU) if is_served_elsewhere else self.main.start
        self.main.start = start

    def _start_backend(self) -> None:
        """Have the library's thread wait for messages, and the polling thread for a device."""
        port, parts = self.port, self.parts
        thread = parts.thread(EVENTS, cpu=0)
        rings: list[DpdkRing] = []
        if isinstance(port, VhostUserBackend):
            rings = [ring for pair in port.pairs for ring in (pair.rx_device, pair.tx_device)]
            self._poll_when_announced(port)
        thread.start = BackendLoop(
            f"{EVENTS}.loop",
            Place(port.name, Domain.HOST_USER, "vhost-user port"),
            self.socket,
            self.served,
            rings,
            parts.port(thread, self.guest.memory.region),
            vhost_user_socket.ReceiveMessage(f"{EVENTS}.recvmsg", UNIX, self.socket),
            vhost_user_socket.SendAnswer(f"{EVENTS}.sendmsg", UNIX, self.socket),
        )

    def _poll_when_announced(self, port: VhostUserBackend) -> None:
        """Have the polling thread look at a ring only once the switch has heard of it."""
        loop = pmd_thread(self.parts).start
        assert isinstance(loop, PmdLoop)
        if port.choice is not None:
            enabled = self.served.cells
            port.choice.is_on = lambda pair: bool(enabled.enabled[2 * pair])
        rings = {pair.name: pair.guest.index_of(TX) for pair in port.pairs}
        loop.queues = [
            AnnouncedQueue(queue, self.served, rings[queue.name]) if queue.name in rings else queue
            for queue in loop.queues
        ]
