"""Putting QEMU's own back-end together: its main loop, its virtio-net device, and the descriptors it waits for.

With `ioeventfd=off` its vCPU thread has a part of its own in user space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.places import Domain, Place, Role
from virtviz.paths import (
    kvm,
    kvm_eventfd,
    kvm_mmio,
    kvm_msi,
    qemu,
    qemu_deliver,
    qemu_fds,
    qemu_nic,
    qemu_rx,
    qemu_tx,
    qemu_vcpu,
)
from virtviz.paths.knobs import EVENT_IDX, INDIRECT, MERGEABLE
from virtviz.paths.packets import PacketPool
from virtviz.paths.parts import HOST_SLOT_BYTES, KVM, tap_place
from virtviz.paths.tap import Tap, TapXmit
from virtviz.paths.tap_chr import TapRead, TapWrite, TapWriteWithSoftirqs
from virtviz.paths.traffic import vm_endpoint
from virtviz.paths.wire_backend import FIRST_PID
from virtviz.paths.wire_guest import RX, TX, enter_guest, msi_delivery
from virtviz.ring.qemu_device import QemuDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_switch import TapPort
    from virtviz.ring.split_device import SplitDevice

QEMU = Place("qemu", Domain.HOST_USER, "QEMU")
QEMU_VCPU = Place("qemu.vcpu", Domain.HOST_USER, "QEMU's vCPU thread", Role.VCPU_USER)
FDS = Place("eventfd", Domain.HOST_KERNEL, "eventfds")
KVM_VM = Place("kvm.vm", Domain.HOST_KERNEL, "KVM")
"""KVM as a program calls it by its VM's descriptor: not the place where a guest is entered."""
FRAMES = 2
"""Frames that can be in QEMU's memory: one that waits for buffers, and one just read."""


class QemuBackend:
    """QEMU's user-space back-end for one queue pair.

    Attributes:
        thread, threads: the main loop's thread, which is the only one.
        tap: the TAP it reads and writes.
        rx_device, tx_device: the device's side of the rings.
    """

    def __init__(self, parts: Parts, machine: Sequence[Guest], number: int) -> None:
        (guest,) = machine
        self.parts, self.guest = parts, guest
        world, state, memory = parts.world, parts.state, guest.memory
        name = f"qemu-{FIRST_PID + 10 * number}"
        self.thread: Thread = parts.thread(name, cpu=2 * number)
        self.threads = [self.thread]
        self.tap = tap = Tap(state, f"tap{number}", parts.host_pool, world.number("txqueuelen"))
        self.kicks = [state.add(kvm.EventfdCells, f"{guest.name}.{queue}.kick") for queue in guest.vcpu.queues]
        own = state.add(kvm.EventfdCells, f"{name}.eventfd")
        self.qemu = qemu.Qemu(state, name, self.kicks, own, tap)
        self.qemu.thread = self.thread
        port = parts.port(self.thread, memory.region)
        self.tx_device, self.rx_device = (
            QemuDevice(
                state,
                f"{name}.{queue}.ring",
                port,
                layout,
                back_end="qemu",
                event_idx=world.has(EVENT_IDX),
                indirect=world.has(INDIRECT),
                start=world.number("queue.start"),
            )
            for queue, layout in (("transmitq1", memory.tx_layout), ("receiveq1", memory.rx_layout))
        )
        region = state.region(f"{name}.memory", FRAMES * HOST_SLOT_BYTES)
        frames = PacketPool(state, f"{name}.frames", region, 0, FRAMES, HOST_SLOT_BYTES, headroom=0)
        parts.pools[frames.name] = frames
        self.nic = qemu_nic.Nic(
            state,
            f"{name}.nic",
            self.qemu,
            mac=vm_endpoint(number).mac,
            tx_name=guest.tx_name,
            rx_name=guest.rx_name,
            tx=self.tx_device,
            rx=self.rx_device,
            skbs=memory.skbs,
            buffers=memory.buffers,
            memory=frames,
            mergeable=world.has(MERGEABLE),
        )
        nic = self.nic.cells
        parts.drops |= {
            f"{name}.discarded": lambda: nic.discarded,
            f"{name}.filtered": lambda: nic.filtered,
            f"{name}.refused": lambda: nic.refused,
            f"{name}.errors": lambda: nic.errors,
            f"{tap.name}.tx_dropped": lambda: tap.cells.tx_dropped,
        }

    # What others do with it

    def devices(self) -> list[tuple[SplitDevice, SplitDevice]]:
        """Give the device's side of the receive and the transmit queue."""
        return [(self.rx_device, self.tx_device)]

    def kick_exits(self) -> list[list[Routine]]:
        """Make what a store to each queue's notify address leads to."""
        return [self._light_exits() if self.parts.world.on("ioeventfd") else self._heavy_exits()]

    def _light_exits(self) -> list[Routine]:
        guest, on_intel = self.guest, self.parts.world["cpu"] == "intel"
        exit_class = kvm_eventfd.HandleKickIntel if on_intel else kvm_eventfd.HandleKickAmd
        after = "The kick is done with." if on_intel else "The store has been emulated."
        made: list[Routine] = []
        for queue, name, who in (
            (RX, guest.rx_name, "the receive queue's eventfd"),
            (TX, guest.tx_name, "the transmit queue's eventfd"),
        ):
            wakeup = qemu_fds.WakeForKick(f"{name}.kick_wakeup", FDS, self.qemu, "KICK.4", who)
            enter = enter_guest(guest, "KICK.5", f"{guest.vcpu.queues[queue]}_kick", after)
            made.append(exit_class(f"{name}.kick_exit", KVM, guest.vcpu, name, queue, self.kicks[queue], wakeup, enter))
        return made

    def _heavy_exits(self) -> list[Routine]:
        guest, name = self.guest, self.qemu.name
        on_intel = self.parts.world["cpu"] == "intel"
        exit_class = kvm_mmio.HeavyKickIntel if on_intel else kvm_mmio.HeavyKickAmd
        woken = qemu_fds.WakeForKick(f"{name}.eventfd_wakeup", FDS, self.qemu, "KICK.4", "its own eventfd")
        write = qemu_fds.WriteEventfd(f"{name}.write_eventfd", FDS, self.qemu.own, woken)
        nic = self.nic.through(guest.tx_driver.memory)
        deliver = self._deliver(f"{guest.rx_name}.deliver_from_vcpu", QEMU_VCPU, nic)
        serve: dict[int, Routine] = {
            RX: qemu_vcpu.ServeRxKickFromVcpu(f"{guest.rx_name}.kicked", QEMU_VCPU, nic, deliver, write),
            TX: qemu_vcpu.ServeTxKickFromVcpu(f"{guest.tx_name}.kicked", QEMU_VCPU, nic, write),
        }
        made: list[Routine] = []
        for queue, queue_name in ((RX, guest.rx_name), (TX, guest.tx_name)):
            mmio = qemu_vcpu.HandleMmio(f"{queue_name}.mmio", QEMU_VCPU, self.qemu, queue_name, serve[queue])
            enter = enter_guest(guest, "KICK.5", f"{guest.vcpu.queues[queue]}_kick", "KVM_RUN is called again.")
            made.append(exit_class(f"{queue_name}.kick_exit", KVM, guest.vcpu, queue_name, queue, mmio, enter))
        return made

    def tap_transmit(self) -> Routine:
        """Make what transmitting on the TAP is, for the host: the way into the guest."""
        wakeup = qemu_fds.WakePoller(
            f"{self.tap.name}.wakeup", tap_place(self.tap.name), self.qemu, "N-IN.10", "the TAP"
        )
        return TapXmit(f"{self.tap.name}.xmit", tap_place(self.tap.name), self.tap, wakeup)

    def wire(self, port: TapPort) -> None:
        """Make everything the main loop does.

        Args:
            port: the switch's port that the TAP is.
        """
        guest, nic, name = self.guest, self.nic, self.qemu.name
        deliver = self._deliver(f"{guest.rx_name}.deliver", QEMU, nic)
        read_tap = TapRead(f"{self.tap.name}.read", tap_place(self.tap.name), self.tap, nic)
        serve_tx = qemu_tx.ServeTxKick(f"{guest.tx_name}.serve_kick", QEMU, nic)
        serve_rx = qemu_rx.ServeRxKick(f"{guest.rx_name}.serve_kick", QEMU, nic, deliver)
        self.thread.start = qemu.MainLoop(
            f"{name}.loop",
            QEMU,
            self.qemu,
            poll_wait=qemu_fds.PpollWait(f"{name}.poll_wait", FDS, self.qemu),
            poll_now=qemu_fds.PpollNow(f"{name}.poll_now", FDS, self.qemu),
            work={
                "bottom half": qemu_tx.SendQueued(
                    f"{guest.tx_name}.send",
                    QEMU,
                    nic,
                    self._writev(port),
                    self._signal_msi(guest.tx_name, TX, "main_loop"),
                ),
                "own eventfd": qemu.ReadOwnEventfd(
                    f"{name}.serve_own", QEMU, self._read("own", self.qemu.own, "Q-TX.12")
                ),
                "transmit kick": qemu_tx.ReadKick(
                    f"{guest.tx_name}.read_kick",
                    QEMU,
                    guest.tx_name,
                    self._read("tx", self.kicks[TX], "Q-TX.2"),
                    serve_tx,
                    "Q-TX.2",
                ),
                "receive kick": qemu_tx.ReadKick(
                    f"{guest.rx_name}.read_kick",
                    QEMU,
                    guest.rx_name,
                    self._read("rx", self.kicks[RX], "Q-RX.3"),
                    serve_rx,
                    "Q-RX.3",
                ),
                "tap": qemu_rx.ReadTap(f"{self.tap.name}.send", QEMU, nic, read_tap, deliver),
            },
            next_out=nic.next_out,
            next_in=nic.next_in,
        )

    # Parts of it

    def _read(self, which: str, eventfd: kvm.EventfdCells, row: str) -> Routine:
        return qemu_fds.ReadEventfd(f"{self.qemu.name}.read_{which}", FDS, eventfd, row)

    def _deliver(self, name: str, place: Place, nic: qemu_nic.Nic) -> Routine:
        who = place.name.replace(".", "_")
        return qemu_deliver.Deliver(name, place, nic, self._signal_msi(self.guest.rx_name, RX, who))

    def _signal_msi(self, queue: str, bit: int, who: str) -> Routine:
        deliver = msi_delivery(self.parts, self.guest, f"{queue}.msi_by_{who}", queue, bit)
        return kvm_msi.SignalMsi(f"{queue}.signal_msi_by_{who}", KVM_VM, deliver)

    def _writev(self, port: TapPort) -> Routine:
        name = f"{self.tap.name}.writev"
        if port.poll is None:
            return TapWrite(name, tap_place(self.tap.name), self.tap, self.nic, port.number, port.receive)
        return TapWriteWithSoftirqs(
            name,
            tap_place(self.tap.name),
            self.tap,
            self.nic,
            port.number,
            port.receive,
            port.poll,
            self.parts.backlogs,
        )
