"""What becomes of frames where QEMU has to serve a vhost-user device itself: they go nowhere. Row CP.6.19.

QEMU takes them out of the guest's ring, and gives the buffers back as sent; but the other end of its network back-end
is a socket for messages, which carries no frames. On the other side Open vSwitch has a port without a device.

Source: QEMU 10.0 hw/net/virtio-net.c (virtio_net_flush_tx), net/vhost-user.c (vhost_user_receive: it says that it has
taken the whole frame, and only looks whether that has the length of an announcement after a migration); Open vSwitch
lib/netdev-dpdk.c (netdev_dpdk_vhost_send).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, goto, op
from virtviz.paths.qemu_tx import SendQueued
from virtviz.spec.citation import OVS_NETDEV_DPDK, QEMU_NET
from virtviz.spec.setup_sources import QEMU_NET_VHOST_USER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.pmd import Pmd
    from virtviz.paths.qemu_nic import Nic


@cells
class LostCells(Cells):
    """What went nowhere.

    Attributes:
        frames: how many.
    """

    frames: int = 0


class SendToPeer(SendQueued):
    """The bottom half where what is behind the device is no TAP: it is called, and no system call is made."""

    retold = MappingProxyType(
        {
            "send": {
                "row": "CP.6.19",
                "title": "hand the packet to what is behind the device",
                "function": "qemu_sendv_packet_async",
                "source": QEMU_NET,
                "text": "A function call, and no writev(): behind this device there is no TAP.",
            },
            "write_used": {
                "text": (
                    "QEMU takes the packet for sent. The buffer's head goes into the used ring, with 0 bytes written; "
                    "still invisible."
                )
            },
        }
    )


class TakeAndForget(Routine):
    """The receive function of QEMU's vhost-user back-end.

    Args:
        state: where what is lost is counted.
        nic: the device whose frame it is.
    """

    def __init__(self, state: State, name: str, place: Place, nic: Nic) -> None:
        super().__init__(name, place)
        self.lost = state.add(LostCells, name)
        self.nic = nic

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the length of the frame, without the virtio-net header."""
        return {"length": self.nic.outgoing_length() - self.nic.header_bytes}

    @op(
        "CP.6.19",
        "take the frame, do nothing",
        "vhost_user_receive",
        QEMU_NET_VHOST_USER,
        text={
            DROPPED: (
                "The frame's {length} bytes are said to be taken, and nothing is done with them: the socket carries "
                "messages, no frames. No counter of QEMU's tells."
            )
        },
        to={DROPPED: RETURN},
    )
    def receive(self, me: Context) -> str:
        self.lost.frames += 1
        return DROPPED


class SendToNoDevice(Routine):
    """What the polling thread does with a batch for a port that no guest has come to.

    Args:
        state: where what is lost is counted.
        pmd: the thread.
        pool: the host's packet memory.
        port: number of the switch's port, from 0.
    """

    def __init__(self, state: State, name: str, place: Place, pmd: Pmd, pool: PacketPool, port: int) -> None:
        super().__init__(name, place)
        self.lost = state.add(LostCells, name)
        self.pmd = pmd
        self.pool = pool
        self.port = port

    @op(
        "U-RX.4",
        {DROPPED: "drop what has nowhere to go", "all": "empty the batch"},
        "netdev_dpdk_vhost_send",
        OVS_NETDEV_DPDK,
        text={
            DROPPED: (
                "{port} has no device, for nobody ever told it where rings are: the packet is dropped, and the port's "
                "tx_dropped counts it."
            ),
            "all": "That was the whole batch.",
        },
        to={DROPPED: goto("drop"), "all": RETURN},
    )
    def drop(self, me: Context) -> str:
        batch = self.pmd.output(self.port)
        at = self.pmd.cells.sent
        if at == len(batch):
            self.pmd.cells.sent = self.pmd.cells.waiting[self.port] = 0
            return "all"
        slot = batch[at]
        me.packet = self.pool.cells.packet[slot]
        self.pool.release(slot)
        self.pmd.cells.sent = at + 1
        self.lost.frames += 1
        return DROPPED

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the port."""
        return {"port": self.place.name}
