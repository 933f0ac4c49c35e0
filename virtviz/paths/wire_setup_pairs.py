"""Putting the set-up of a device with several queue pairs together, and of a guest with as many vCPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.places import Domain, Place
from virtviz.paths.parts import KVM, QEMU, QEMU_VCPU
from virtviz.paths.setup import guest_pairs, qemu_pairs
from virtviz.paths.setup.further_cpus import AwaitStart, BeginOnFurtherCpu, BootAll, FurtherEntry, SendStart
from virtviz.paths.setup.guest_rebind import WaitingProgram
from virtviz.paths.setup.vcpu_start import VcpuThread
from virtviz.paths.virtio_net import Notify, NotifyInterruptsOff
from virtviz.paths.virtio_net import OpenDevice as RunningOpenDevice
from virtviz.paths.virtio_refill import Refill
from virtviz.paths.wire_guest import FIRST_PID, RX, enter_guest
from virtviz.paths.wire_rings import routine_kind
from virtviz.paths.wire_setup import PowerOn

if TYPE_CHECKING:
    from virtviz.engine.ops import Routine
    from virtviz.paths.setup.calls import VhostCalls
    from virtviz.paths.setup.guest_open import OpenDevice
    from virtviz.paths.setup.guest_remove import OpenAgain
    from virtviz.paths.setup.qemu_start import QemuStart, QemuStartWithVhost
    from virtviz.paths.wire_guest import Guest
    from virtviz.ring.rings import QemuRing


class PowerOnInPairs(PowerOn):
    """The beginning of a virtual machine whose device has several queue pairs.

    The first vCPU sets all of them up, and starts the other vCPUs before.
    """

    start_class: ClassVar[type[QemuStart]] = qemu_pairs.QemuStartInPairs
    start_with_vhost_class: ClassVar[type[QemuStartWithVhost]] = qemu_pairs.QemuStartWithVhostInPairs
    open_class: ClassVar[type[OpenDevice]] = guest_pairs.OpenDeviceInPairs
    open_again_class: ClassVar[type[OpenAgain]] = guest_pairs.OpenAgainInPairs

    # QEMU

    def _set_pairs(self, name: str, place: Place) -> Routine:
        """Make what switches the TAP's queues on and off."""
        return qemu_pairs.SetQueuePairs(name, place, self.setup, self.calls)

    def _start_qemu(self, vhost: VhostCalls | None) -> None:
        super()._start_qemu(vhost)
        assert isinstance(self.main.start, qemu_pairs.QemuStartInPairs)
        self.main.start.set_pairs = self._set_pairs(f"{self.setup.process_name}.reset_pairs", QEMU)

    def _followed(self, name: str, header: Routine, offload: Routine) -> Routine:
        set_pairs = self._set_pairs(f"{name}_pairs", QEMU_VCPU)
        return qemu_pairs.FollowGuestInPairs(name, QEMU_VCPU, self.setup, header, offload, set_pairs)

    def _serve_control(self, name: str, place: Place, ring: QemuRing, who: str = "the vCPU's thread") -> Routine:
        kind, change = self._kind(qemu_pairs.ServeControlInPairs), self._change_pairs(name, place)
        return kind(self.parts.state, name, place, self.device, ring, change, who)

    def _change_pairs(self, name: str, place: Place) -> Routine:
        """Make what the command to use several pairs leads to, besides its answer."""
        set_pairs = self._set_pairs(f"{name}.set_pairs", place)
        return qemu_pairs.ChangePairs(f"{name}.change_pairs", place, self.setup, self.calls, set_pairs)

    def _worker_names(self) -> list[str]:
        return [f"vhost-{FIRST_PID}.q{guest.number + 1}" for guest in self.guests]

    # The vCPUs

    def _start_vcpu(self, vhost: VhostCalls | None) -> None:
        super()._start_vcpu(vhost)
        for guest in self.guests[1:]:
            self._start_further(guest)

    def _boot(self, kernel: Place, find: Routine) -> Routine:
        guest, setup, name = self.guest, self.setup, self.guest.name
        send: dict[str, Routine] = {}
        for other, events in zip(self.guests[1:], setup.apics, strict=True):
            what = f"start_of_vcpu{other.number}"
            enter = enter_guest(guest, "CP.8.14", what, "The message is sent.")
            send[f"vcpu{other.number}"] = SendStart(
                f"{name}.{what}", KVM, guest.vcpu, events, f"vcpu{other.number}", enter
            )
        return BootAll(f"{name}.boot", kernel, find, setup, send)

    def _start_further(self, guest: Guest) -> None:
        """Make what another vCPU does: it waits to be started, and then for programs."""
        setup, number = self.setup, guest.number
        kernel = guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel")
        opened = guest.thread.start
        assert isinstance(opened, RunningOpenDevice)
        begin = BeginOnFurtherCpu(f"{guest.tag}.begin", kernel, setup, number, opened.program)
        enter = FurtherEntry(f"{guest.tag}.first_entry", KVM, guest.vcpu, begin)
        wait = AwaitStart(f"{guest.tag}.await_start", KVM, f"vcpu{number}", setup.apics[number - 1], enter)
        guest.thread.start = VcpuThread(f"{guest.tag}.thread", QEMU_VCPU, setup, self.calls, wait, number)

    # The driver

    def _probe(self, what: str, pci: Place, reach: Routine, queues: Routine, onward: Routine) -> Routine:
        return guest_pairs.ProbeInPairs(
            f"{self.guest.name}.{what}",
            pci,
            self.setup,
            reach,
            knows=self._known(),
            queues=queues,
            onward=onward,
            set_pairs=self.ask_for_pairs,
        )

    def _commands(self, driver: Place, reach: Routine) -> Routine:
        commands = super()._commands(driver, reach)
        ring, name = self.control_driver[0], f"{self.guest.name}.controlq"
        page = self.guest.memory.control_layout.end
        self.ask_for_pairs = self._kind(guest_pairs.SetPairs)(
            f"{name}.set_pairs", driver, self.setup, reach, self.control_kick, ring, page
        )
        return commands

    def _refill(self, first: Routine) -> Routine:
        guest, world = self.guest, self.parts.world
        notify_class = Notify if world.on("guest_if") else NotifyInterruptsOff
        refills = {self.setup.queue_name(0): first}
        for other, backend in zip(self.guests[1:], self.backends[1:], strict=True):
            name = f"{other.rx_name}.by_vcpu0"
            queue = other.rxq.through(other.rx_driver.through(guest.rx_driver.memory))
            kick = backend.kick_exit_from(guest)
            notify = notify_class(f"{name}.notify", guest.driver_place, other.rx_name, guest.cpu, kick, "G-RX.7")
            refills[self.setup.queue_name(other.index_of(RX))] = routine_kind(world, Refill)(
                f"{name}.refill", guest.driver_place, queue, notify
            )
        return guest_pairs.FillAll(f"{guest.name}.fill_all", guest.driver_place, self.setup, refills)

    def _rebind(self, pci: Place, reach: Routine, queues: Routine, refill: Routine) -> None:
        super()._rebind(pci, reach, queues, refill)
        cpus = self.setup.cpus
        for guest in self.guests[1:]:
            assert isinstance(guest.program, WaitingProgram)
            guest.program.resets = lambda: cpus.resets
