"""Packets that are still to be finished or cut, on their way out of the guest: vhost-net, the TAP and QEMU's writev().

vhost-net collects only what fits into a page together with its own room; a longer packet goes to the TAP by itself.
The TAP takes from the virtio-net header what is left to do, and hands the packet on as one.

Source: Linux 6.12 drivers/vhost/net.c (handle_tx_copy, vhost_net_build_xdp), drivers/net/tun.c (tun_xdp_one,
tun_get_user), include/linux/virtio_net.h (virtio_net_hdr_to_skb).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import call, goto, op
from virtviz.paths.offloads import OffloadPool
from virtviz.paths.tap import TapSendmsg
from virtviz.paths.tap_chr import TapWrite, TapWriteWithSoftirqs
from virtviz.paths.vhost_single import SendOne
from virtviz.paths.vhost_tx import FlushTx, HandleTx
from virtviz.ring.rings import readable_bytes
from virtviz.spec.citation import VHOST_NET
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.tap import Tap
    from virtviz.paths.vhost import VhostQueue

COLLECTED_MAX: Final = 4096 - 320 - 128
"""Bytes, header included, that vhost-net puts into a page: less skb_shared_info, and less the room in front, each
rounded up to cache lines (64-bit x86)."""
ALONE: Final = (1 << 31) - 1
"""In the list of collected frames, instead of a slot: this buffer's packet has gone by itself."""


def _noted(tap: Tap, me: Context) -> bool:
    """Note what a packet's header asks for; a packet whose header makes no sense is dropped."""
    pool = tap.pool
    assert isinstance(pool, OffloadPool)
    if pool.note_header(me.skb):
        return True
    tap.cells.rx_errors += 1
    pool.release(me.skb)
    me.skb = 0
    return False


class HandleTxMixed(HandleTx):
    """Send what the guest put into its transmit queue: short packets in batches, long ones by themselves.

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
        {COPIED: "copy the packet out of the guest", "": "find the packet too long for a page"},
        "vhost_net_build_xdp",
        VHOST_NET,
        spec="5.1.9.2",
        text={
            COPIED: (
                "Header and frame, {length} bytes, are copied from guest memory into a page of the host. With the "
                "flow known, it is the host's only copy."
            ),
            "alone": "{length} bytes do not fit into a page: the packet goes to the TAP by itself.",
            "batch first": "{length} bytes do not fit into a page. What was collected goes first, to keep the order.",
        },
        to={
            COPIED: goto("remember_head"),
            "alone": goto("send_alone"),
            "batch first": call("flush", "send_alone"),
        },
        size="length",
    )
    def copy_packet(self, me: Context) -> str:
        queue = self.q.cells
        length = readable_bytes(self.ring)
        if length <= COLLECTED_MAX:
            return super().copy_packet(me) or ""
        queue.length = length
        queue.bytes += length - VIRTIO_NET_HDR_BYTES
        collected = any(queue.frames[i] != ALONE for i in range(queue.done))
        return "batch first" if collected else "alone"

    @op(
        "V-TX.7",
        "hand the packet to the TAP",
        "handle_tx_copy",
        VHOST_NET,
        text="One call of tun_sendmsg for this one packet, though no system call. It is the TAP that copies it.",
        to=call("send_one", "remember_head"),
        private=True,
    )
    def send_alone(self, me: Context) -> None:
        self.q.cells.frames[self.q.cells.done] = ALONE
        if me.observed:
            # What was sent before it has been in hand meanwhile.
            me.packet = self.q.guest_pool.packet_at(self.mine.address[0])

    @op(
        "V-TX.8",
        "remember the head",
        "handle_tx_copy",
        VHOST_NET,
        text={
            "gone": "This packet has gone by itself. Its buffer is given back with the others, {count} by now.",
            "more": "Frame {count} of at most {batch} is in the batch; nothing is sent yet. On to the next entry.",
            "batch full": "{batch} buffers are done with: what is collected is sent before the next entry is taken.",
            "weight": (
                "{weight} packets, or 512 KiB, in one go: the worker queues itself again and lets other work have "
                "a turn."
            ),
        },
        to={
            "gone": goto("read_avail_idx"),
            "more": goto("read_avail_idx"),
            "batch full": call("flush", "read_avail_idx"),
            "weight": goto("requeue"),
        },
        private=True,
    )
    def remember_head(self, me: Context) -> str:
        is_alone = self.q.cells.frames[self.q.cells.done] == ALONE
        answer = super().remember_head(me) or ""
        return "gone" if is_alone and answer == "more" else answer


class SendAlone(SendOne):
    """A long packet comes out of the TAP, as one packet of the host's stack."""

    def copy_packet(self, me: Context) -> str:
        """Copy it, and note what its header asks for."""
        answer = super().copy_packet(me) or ""
        return DROPPED if answer == COPIED and not _noted(self.tap, me) else answer


class FlushMixed(FlushTx):
    """Hand the collected frames to the TAP, if any, then return all buffers."""

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the number of frames."""
        return {**super().words(me), "count": self._collected()}

    def _collected(self) -> int:
        queue = self.q.cells
        return sum(queue.frames[i] != ALONE for i in range(queue.done))

    def send_batch(self, me: Context) -> str:
        """Say whether any was collected."""
        return "batch" if self._collected() else "nothing"


class TapSendmsgMixed(TapSendmsg):
    """Frames of a batch come out of the TAP; each header is looked at."""

    def next_frame(self, me: Context) -> str:
        """Go past buffers whose packets have gone by themselves, and take the next frame."""
        queue, mine = self.q.cells, self.tap.cells
        while mine.sent < queue.done and queue.frames[mine.sent] == ALONE:
            mine.sent += 1
        answer = super().next_frame(me) or ""
        if answer not in ("frame", "last frame") or _noted(self.tap, me):
            return answer
        if answer == "last frame":
            mine.sent = queue.done
        return DROPPED


class TapWriteMixed(TapWrite):
    """writev() of a packet that may be long or unfinished."""

    def copy_packet(self, me: Context) -> str:
        """Copy it, and note what its header asks for."""
        answer = super().copy_packet(me) or ""
        return DROPPED if answer == COPIED and not _noted(self.tap, me) else answer


class TapWriteMixedWithSoftirqs(TapWriteMixed, TapWriteWithSoftirqs):
    """The same where the frame may raise a softirq."""
