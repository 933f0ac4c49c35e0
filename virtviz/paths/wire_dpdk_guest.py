"""Putting a guest together whose program drives the device itself, with DPDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.places import Domain
from virtviz.paths.dpdk_program import WAITING, DpdkProgram
from virtviz.paths.dpdk_receive import BURST, ReceiveBurst, StartPort
from virtviz.paths.dpdk_send import NotifyFromUser, SendBurst
from virtviz.paths.features import MERGEABLE
from virtviz.paths.queues import Fifo
from virtviz.ring.dpdk_driver import PollingDriver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.ops import Routine
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest


def wire_dpdk_guest(parts: Parts, guest: Guest, kick_exits: Sequence[Routine], *_: object) -> None:
    """Make everything a vCPU does that a polling program has to itself.

    Its kernel has set the device up and handed it over (vfio-pci); what it keeps for networking is never used.

    Args:
        parts: the world in the making.
        guest: the virtual machine.
        kick_exits: for each queue, what a store to its notify address leads to.
    """
    world, state, memory, program = parts.world, parts.state, guest.memory, guest.program
    rx, tx = guest.rx_driver, guest.tx_driver
    assert isinstance(program, DpdkProgram)
    assert isinstance(rx, PollingDriver)
    assert isinstance(tx, PollingDriver)
    for driver in (rx, tx):
        driver.begin_polling(memory.region)
    place = guest.place("virtio_pmd", Domain.GUEST_USER, "virtio PMD")
    kick_rx, kick_tx = (
        NotifyFromUser(f"{name}.notify", place, name, kick, row)
        for name, kick, row in zip((guest.rx_name, guest.tx_name), kick_exits, ("P-RX.8", "P-TX.9"), strict=True)
    )
    receive = ReceiveBurst(
        state,
        f"{guest.rx_name}.receive_burst",
        place,
        program,
        rx,
        memory.buffers,
        kick_rx,
        mergeable=world.has(MERGEABLE),
    )
    program.waiting = Fifo(state, f"{guest.name}.received", WAITING + BURST)
    program.buffers = memory.buffers
    program.ready = receive.ready
    program.receive_burst = receive
    program.send_burst = send = SendBurst(
        state, f"{guest.tx_name}.send_burst", place, program, tx, memory.skbs, kick_tx
    )
    parts.drops[f"{guest.name}.virtio_pmd.rx_errors"] = lambda: receive.cells.errors
    parts.drops[f"{guest.name}.program.tx_dropped"] = lambda: send.cells.dropped
    guest.thread.start = StartPort(f"{guest.name}.start", place, receive, program)
