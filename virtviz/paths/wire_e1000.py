"""Putting QEMU's e1000 together: the device model, the exits that lead to it, its interrupt line, and the main loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.places import Domain, Place
from virtviz.engine.threads import ThreadKind
from virtviz.paths import kvm, kvm_device, kvm_ioapic, qemu_e1000, qemu_e1000_irq, qemu_e1000_mmio, qemu_fds, qemu_line
from virtviz.paths.packets import PacketPool
from virtviz.paths.parts import FDS, HOST_SLOT_BYTES, KVM, KVM_VM, QEMU, QEMU_VCPU, tap_place
from virtviz.paths.qemu import ReadOwnEventfd
from virtviz.paths.qemu_e1000_loop import E1000MainLoop, PpollAtOnce, PpollUntil
from virtviz.paths.qemu_e1000_rx import ReceiveFrame, TakeBuffers
from virtviz.paths.qemu_e1000_tx import SendRing
from virtviz.paths.qemu_rx import ReadTap
from virtviz.paths.tap import Tap, TapXmit
from virtviz.paths.tap_chr import TapRead, TapWrite, TapWriteWithSoftirqs
from virtviz.paths.traffic import vm_endpoint
from virtviz.paths.wire_guest import FIRST_PID, enter_guest, msi_delivery
from virtviz.paths.wire_qemu import FRAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_e1000_guest import E1000Guest
    from virtviz.paths.wire_switch import TapPort

DEVICE = Place("qemu.device", Domain.HOST_USER, "e1000 device")
ROWS: Final[Mapping[str, tuple[str, str]]] = {
    "TDT": ("E1000-TX.5", "E1000-TX.6"),
    "ICR": ("E1000-TX.14", "E1000-TX.14"),
    "IMC": ("E1000-TX.15", "E1000-TX.15"),
    "STATUS": ("E1000-TX.16", "E1000-TX.16"),
    "RDT": ("E1000-RX.14", "E1000-RX.14"),
    "IMS": ("E1000-TX.19", "E1000-TX.19"),
    "STATUS again": ("E1000-TX.20", "E1000-TX.20"),
}
"""Access -> the rows of the exit, and of what KVM does then."""


class E1000Backend:
    """QEMU's e1000 behind a TAP.

    Attributes:
        threads: the thread that carries the guest's frames to the TAP: the vCPU's own.
        main_loop: the main loop's thread.
        tap: the TAP it reads and writes.
        device: the device model.
    """

    def __init__(self, parts: Parts, guest: E1000Guest, number: int) -> None:
        self.parts, self.guest = parts, guest
        world, state, memory = parts.world, parts.state, guest.memory
        name = f"qemu-{FIRST_PID + 10 * number}"
        # The timer's turn comes before the main loop's: in the readable order it is over when the main loop looks.
        self.timer = parts.thread(f"{guest.name}.mitigation", cpu=2 * number, kind=ThreadKind.HARDWARE)
        self.main_loop: Thread = parts.thread(name, cpu=2 * number)
        self.threads = [guest.thread]
        self.tap = tap = Tap(state, f"tap{number}", parts.host_pool, world.number("txqueuelen"))
        own = state.add(kvm.EventfdCells, f"{name}.eventfd")
        self.qemu = qemu_e1000.E1000Qemu(state, name, [], own, [tap])
        self.qemu.thread = self.main_loop
        region = state.region(f"{name}.memory", FRAMES * HOST_SLOT_BYTES)
        frames = PacketPool(state, f"{name}.frames", region, 0, FRAMES, HOST_SLOT_BYTES, headroom=0)
        parts.pools[frames.name] = frames
        self.device = qemu_e1000.E1000(
            state,
            f"{name}.e1000",
            self.qemu,
            mac=vm_endpoint(number).mac,
            port=guest.port,
            tx_name=guest.tx_name,
            rx_name=guest.rx_name,
            tx=memory.tx_layout,
            rx=memory.rx_layout,
            skbs=memory.skbs,
            buffers=memory.buffers,
            memory=frames,
            data=state.region(f"{name}.e1000.data", qemu_e1000.TX_BUFFER_BYTES),
        )
        mine = self.device.cells
        parts.drops |= {
            f"{name}.filtered": lambda: mine.filtered,
            f"{name}.oversized": lambda: mine.oversized,
            f"{name}.refused": lambda: mine.refused,
            f"{tap.name}.tx_dropped": lambda: tap.cells.tx_dropped,
        }
        woken = qemu_fds.WakePoller(f"{name}.eventfd_wakeup", FDS, self.qemu, "E1000-TX.12", "its own eventfd")
        self.write = qemu_fds.WriteEventfd(f"{name}.write_eventfd", FDS, own, woken)
        self.write.rows = {"KICK.4": "E1000-TX.12"}
        self.send = SendRing(
            f"{guest.tx_name}.send",
            DEVICE,
            self.device,
            guest.access,
            writev=self.write,
            interrupt=self._interrupt("sent", "E1000-TX.12"),
        )

    # What others do with it

    def exits(self) -> dict[str, Routine]:
        """Make what an access to each register leads to."""
        guest, device, access = self.guest, self.device, self.guest.access
        receive = ReceiveFrame(
            f"{guest.rx_name}.receive_from_vcpu", DEVICE, device, self._interrupt("received_by_vcpu", "E1000-RX.7")
        )
        take_tail = TakeBuffers(f"{guest.rx_name}.take_buffers", DEVICE, device, receive, self.write)
        name = device.name
        serve: dict[str, Routine] = {
            "TDT": self.send,
            "ICR": qemu_e1000_mmio.ReadCauses(
                f"{name}.icr", DEVICE, device, access, self._interrupt("icr", "E1000-TX.14")
            ),
            "IMC": qemu_e1000_mmio.SetMask(
                f"{name}.imc", DEVICE, device, access, self._interrupt("imc", "E1000-TX.15")
            ),
            "STATUS": qemu_e1000_mmio.ReadStatus(f"{name}.status", DEVICE, device, access, "E1000-TX.16"),
            "IMS": qemu_e1000_mmio.ClearMask(
                f"{name}.ims", DEVICE, device, access, self._interrupt("ims", "E1000-TX.19")
            ),
            "STATUS again": qemu_e1000_mmio.ReadStatus(f"{name}.status_again", DEVICE, device, access, "E1000-TX.20"),
        }
        made = {register: self._heavy_exit(register, routine, take_tail) for register, routine in serve.items()}
        enter = enter_guest(guest, ROWS["RDT"][1], "rdt", "The store has been noted.")
        later = kvm_device.StoreLater(
            f"{guest.rx_name}.rdt.later", KVM, "RDT", guest.rx_name, ROWS["RDT"], access, guest.parked, enter
        )
        return made | {"RDT": self._leave("RDT", guest.rx_name, later)}

    def _heavy_exit(self, access: str, serve: Routine, take_tail: Routine) -> Routine:
        """Make an exit that goes to QEMU."""
        guest, register, queue = self.guest, access.partition(" ")[0], serve.queue
        called = f"{guest.name}.e1000.{access.replace(' ', '_').lower()}"
        is_load = register in ("ICR", "STATUS")
        serve_class = qemu_e1000_mmio.ServeLoad if is_load else qemu_e1000_mmio.ServeAccess
        in_qemu = serve_class(
            f"{called}.serve",
            QEMU_VCPU,
            self.device,
            register=register,
            parked=guest.parked,
            take_tail=take_tail,
            serve=serve,
            row=ROWS[access][1] if access != "TDT" else "E1000-TX.7",
        )
        row = "E1000-TX.13" if access == "TDT" else ROWS[access][1]
        enter = enter_guest(guest, row, access.replace(" ", "_").lower(), "KVM_RUN is called again.")
        kind = kvm_device.LoadInQemu if is_load else kvm_device.StoreInQemu
        if access == "TDT":
            kind = kvm_device.KickInQemu
        made = kind(f"{called}.in_qemu", KVM, register, queue, ROWS[access], in_qemu, enter)
        return self._leave(access, queue, made)

    def _leave(self, access: str, queue: str, then: Routine) -> Routine:
        """Make the exit itself, as the processor has it."""
        guest, register = self.guest, access.partition(" ")[0]
        on_intel = self.parts.world["cpu"] == "intel"
        leave = kvm_device.LeaveForDeviceIntel if on_intel else kvm_device.LeaveForDeviceAmd
        name = f"{guest.name}.e1000.{access.replace(' ', '_').lower()}.exit"
        return leave(name, KVM, guest.vcpu, register, queue, ROWS[access], then)

    def tap_transmit(self) -> Routine:
        """Make what transmitting on the TAP is, for the host: the way into the guest."""
        wakeup = qemu_fds.WakePoller(
            f"{self.tap.name}.wakeup", tap_place(self.tap.name), self.qemu, "N-IN.10", "the TAP"
        )
        return TapXmit(f"{self.tap.name}.xmit", tap_place(self.tap.name), self.tap, wakeup)

    def wire(self, port: TapPort) -> None:
        """Make everything the main loop does, and how a frame leaves.

        Args:
            port: the switch's port that the TAP is.
        """
        guest, name = self.guest, self.qemu.name
        self.send.writev = self._writev(port)
        device = self.device.through(self.parts.port(self.main_loop, guest.memory.region))
        receive = ReceiveFrame(f"{guest.rx_name}.receive", DEVICE, device, self._interrupt("received", "E1000-RX.7"))
        read_tap = TapRead(f"{self.tap.name}.read", tap_place(self.tap.name), self.tap, device)
        read_tap.rows = {"Q-RX.2": "E1000-RX.2", "Q-RX.11": "E1000-RX.8"}
        tap = ReadTap(f"{self.tap.name}.send", QEMU, device, read_tap, receive)
        tap.rows = {"Q-RX.2": "E1000-RX.2", "Q-RX.3": "E1000-RX.3", "Q-RX.11": "E1000-RX.8"}
        read_own = ReadOwnEventfd(
            f"{name}.serve_own", QEMU, qemu_fds.ReadEventfd(f"{name}.read_own", FDS, self.qemu.own, "E1000-TX.12")
        )
        read_own.rows = {"Q-TX.12": "E1000-TX.12"}
        self.main_loop.start = E1000MainLoop(
            f"{name}.loop",
            QEMU,
            self.qemu,
            poll_wait=PpollUntil(f"{name}.poll_wait", FDS, self.qemu),
            poll_now=PpollAtOnce(f"{name}.poll_now", FDS, self.qemu),
            work={
                "bottom half": qemu_e1000_irq.EmptyBottomHalf(f"{name}.notify_bh", QEMU),
                "own eventfd": read_own,
                "tap": tap,
                "timer": qemu_e1000_irq.RunTimer(
                    f"{name}.run_timer", DEVICE, device, self._interrupt("timer", "E1000-TX.12")
                ),
            },
            next_out=lambda: 0,
            next_in=device.next_in,
        )
        wake = qemu_fds.WakePoller(f"{guest.name}.mitigation.wake", FDS, self.qemu, "E1000-TX.12", "its timer")
        self.timer.start = qemu_e1000_irq.MitigationTimer(f"{guest.name}.mitigation", FDS, device, wake)

    # Parts of it

    def _interrupt(self, why: str, row: str) -> Routine:
        """Make what comes of a change of interrupt causes.

        Args:
            why: what has changed them; names the routines.
            row: which row it is.
        """
        name = f"{self.device.name}.{why}"
        return qemu_e1000_irq.UpdateLine(
            f"{name}.update_line",
            DEVICE,
            self.device,
            ioapic=self.guest.ioapic,
            timer=self.timer,
            write=self.write,
            tell_kvm=self._tell_kvm(name, row),
            row=row,
        )

    def _tell_kvm(self, name: str, row: str) -> Routine:
        """Make the system calls that tell KVM the line's level: one, two or three, by the machine's wiring."""
        guest = self.guest
        deliver = msi_delivery(self.parts, guest, f"{name}.vector", guest.rx_name, 0)

        def own(called: str) -> Routine:
            return kvm_ioapic.IrqLine(f"{name}.{called}", KVM_VM, guest.ioapic, deliver, row)

        def other(called: str) -> Routine:
            return kvm_ioapic.OtherIrqLine(f"{name}.{called}", KVM_VM, row)

        machine = self.parts.world["machine"]
        if machine == "q35":
            others = (other("pic_line"), other("pic_line_again"))
            return qemu_line.TellKvmQ35(f"{name}.tell_kvm", DEVICE, own("irq_line"), others, row)
        if machine == "pc":
            return qemu_line.TellKvmTwice(f"{name}.tell_kvm", DEVICE, own("irq_line"), own("irq_line_again"), row)
        return qemu_line.TellKvm(f"{name}.tell_kvm", DEVICE, own("irq_line"), row)

    def _writev(self, port: TapPort) -> Routine:
        name, place = f"{self.tap.name}.writev", tap_place(self.tap.name)
        made = (
            TapWrite(name, place, self.tap, self.device, port.number, port.receive)
            if port.poll is None
            else TapWriteWithSoftirqs(
                name, place, self.tap, self.device, port.number, port.receive, port.poll, self.parts.backlogs
            )
        )
        made.rows = {"Q-TX.7": "E1000-TX.10", "Q-TX.8": "E1000-TX.10"}
        return made
