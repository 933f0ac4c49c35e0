"""vhost-net on a TAP whose send buffer is limited: every packet goes to the TAP by itself.

vhost collects frames only where the TAP takes any number of them, which is QEMU's default (sndbuf=0 stands for
INT_MAX). With a limit each packet is one call of tun_sendmsg, and it is the TAP that copies it. That the buffer can be
full, so that vhost has to wait for the TAP, does not happen here: no world holds so many packets back.

Source: Linux drivers/vhost/net.c (handle_tx_copy, `sock_can_batch`), drivers/net/tun.c (tun_get_user); QEMU 10.0
net/tap-linux.c (tap_set_sndbuf).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.vhost_tx import FlushTx, HandleTx
from virtviz.ring.rings import read_buffer, readable_bytes
from virtviz.spec.citation import TUN, VHOST_NET
from virtviz.spec.frames import ETH_HEADER_BYTES
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.tap import Tap
    from virtviz.paths.vhost import VhostQueue


class HandleTxSingly(HandleTx):
    """Send what the guest put into its transmit queue, packet by packet.

    Args:
        send_one: hands the packet just taken to the TAP.
    """

    def __init__(
        self, name: str, place: Place, queue: VhostQueue, pool: PacketPool, flush: Routine, send_one: Routine
    ) -> None:
        super().__init__(name, place, queue, pool, flush)
        self.send_one = send_one

    @op(
        "V-TX.7",
        "hand the packet to the TAP",
        "handle_tx_copy",
        VHOST_NET,
        spec="5.1.9.2",
        text=(
            "The TAP's send buffer is limited, so nothing is collected: one call of tun_sendmsg for this one packet, "
            "though no system call."
        ),
        to=call("send_one", "remember_head"),
    )
    def copy_packet(self, me: Context) -> None:
        queue = self.q.cells
        queue.length = readable_bytes(self.ring)
        queue.bytes += queue.length - VIRTIO_NET_HDR_BYTES


class SendOne(Routine):
    """One packet comes out of the TAP and goes up the host's stack: tun_get_user.

    Args:
        queue: the transmit queue whose buffer it is.
        port: the switch port the TAP is.
        receive: what takes the frame: the port's rx_handler.
        softirq: what local_bh_enable runs after it; None where no frame can have raised a softirq.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        tap: Tap,
        queue: VhostQueue,
        port: int,
        receive: Routine,
        softirq: Routine | None,
    ) -> None:
        super().__init__(name, place)
        self.tap = tap
        self.q = queue
        self.port = port
        self.receive = receive
        self.softirq = softirq
        if softirq is None:
            self.links = {"softirq": ""}

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the TAP and the length."""
        return {"tap": self.tap.name, "length": self.length(me)}

    @op(
        "V-TX.7",
        "copy the packet out of the guest",
        "tun_get_user",
        TUN,
        spec="5.1.9.2",
        text={
            COPIED: (
                "The TAP itself copies header and frame, {length} bytes, from guest memory into a socket buffer that "
                "counts for its send buffer."
            ),
            DROPPED: "The frame is shorter than an Ethernet header, or longer than anything this network carries.",
        },
        to={COPIED: goto("hand_up"), DROPPED: RETURN},
        size="length",
        cost="tap",
    )
    def copy_packet(self, me: Context) -> str:
        ring, pool = self.q.ring, self.tap.pool
        data = read_buffer(ring)
        frame_bytes = len(data) - VIRTIO_NET_HDR_BYTES
        if frame_bytes < ETH_HEADER_BYTES or len(data) > pool.longest:
            self.tap.cells.rx_errors += 1
            return DROPPED
        me.packet = packet = self.q.guest_pool.packet_at(ring.cells.address[0])
        me.skb = slot = pool.take(packet, frame_bytes)
        pool.memory.write(pool.at[slot] - VIRTIO_NET_HDR_BYTES, data)
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand, header included."""
        return readable_bytes(self.q.ring)

    @op(
        "V-TX.10",
        "hand the frame up",
        "tun_rx_batched",
        TUN,
        text="The frame goes up the host's stack as if {tap} had received it, in the worker's thread.",
        to=call("receive", "softirq"),
        milestone="at-tap",
        private=True,
    )
    def hand_up(self, me: Context) -> None:
        me.port = self.port


class FlushSingly(FlushTx):
    """The end of a round: every packet has gone already, and buffers are to be given back."""

    @op(
        "V-TX.10",
        "end the round",
        "vhost_tx_batch",
        VHOST_NET,
        text="No batch waits to be sent; buffers of packets that went one by one: {count}.",
        to=goto("give_back"),
        private=True,
    )
    def send_batch(self, me: Context) -> None:
        """Go on with giving back."""
