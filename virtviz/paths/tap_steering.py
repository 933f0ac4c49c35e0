"""A TAP with several queues whose choice is a program's: QEMU has one for VIRTIO_NET_F_RSS, loaded into the kernel.

With it a frame's flow is hashed as receive-side scaling does it, and a table that the driver has filled names the
queue. The TAP then remembers no flows: an answer goes where its hash says, not where the question came from.

The driver's table has 128 places, filled with the pairs in turn, as Linux does; its key is random on Linux, and here
the one that the hash was published with.

Source: Linux 6.12 drivers/net/tun.c (tun_ebpf_select_queue, tun_get_user), drivers/net/virtio_net.c
(virtnet_init_default_rss); QEMU 10.0 tools/ebpf/rss.bpf.c (calculate_rss_hash).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import Routine, call_any, op
from virtviz.paths.tap_queues import PROTO_TCP
from virtviz.spec.citation import TUN
from virtviz.spec.frames import ETH_HEADER_BYTES, ETHERTYPE_IPV4, IPV4_HEADER_BYTES, PROTO_UDP
from virtviz.spec.toeplitz import toeplitz

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool

TABLE: Final = 128
"""Places of the indirection table (VIRTIO_NET_RSS_MAX_TABLE_LEN of QEMU)."""
ADDRESSES_BYTES: Final = 8
"""Source and destination of an IPv4 packet; ports come behind them."""
_FRAGMENTED: Final = 0x3FFF
"""In an IPv4 header's flags and offset: more fragments follow, or some came before."""


def rss_input(frame: bytes | bytearray) -> bytes:
    """Give what is hashed of a frame: addresses, and ports of whole TCP and UDP packets; nothing if it is not IPv4."""
    network, transport = ETH_HEADER_BYTES, ETH_HEADER_BYTES + IPV4_HEADER_BYTES
    if int.from_bytes(frame[12:14], "big") != ETHERTYPE_IPV4 or len(frame) < transport:
        return b""
    addresses = bytes(frame[network + 12 : network + 20])
    is_part = int.from_bytes(frame[network + 6 : network + 8], "big") & _FRAGMENTED
    has_ports = frame[network + 9] in (PROTO_TCP, PROTO_UDP) and not is_part
    return addresses + bytes(frame[transport : transport + 4]) if has_ports else addresses


class TapSelectQueueByProgram(Routine):
    """Choose the queue that a frame for the guest goes into by the loaded program, row 8 of N-IN.

    Args:
        tap: the device's name.
        queues: name of each queue, such as `queue 1`, -> transmission on it.
    """

    def __init__(self, name: str, place: Place, tap: str, pool: PacketPool, queues: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.tap = tap
        self.pool = pool
        self.queues = queues
        self._names = list(queues)

    def _choose(self, slot: int) -> tuple[int, int]:
        """Give a frame's hash, and the number of the queue that its place in the table names, from 0."""
        hashed = toeplitz(self._input(slot))
        # What is not hashed goes into the default queue, the first.
        return hashed, hashed % TABLE % len(self._names)

    def _input(self, slot: int) -> bytes:
        return rss_input(self.pool.data(slot))

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what is hashed, the hash, its place in the table, and the queue."""
        hashed, queue = self._choose(me.skb)
        return {
            "tap": self.tap,
            "what": "addresses and ports" if len(self._input(me.skb)) > ADDRESSES_BYTES else "the addresses",
            "hash": f"{hashed:#010x}",
            "entry": hashed % TABLE,
            "number": queue + 1,
        }

    @op(
        "N-IN.8",
        "have a program choose the TAP's queue",
        "tun_ebpf_select_queue",
        TUN,
        text=(
            "QEMU has loaded a program for {tap}: it hashes {what} to {hash}, and place {entry} of the driver's table "
            "names queue {number}."
        ),
        to=call_any("queues", None),
    )
    def select_queue(self, me: Context) -> str:
        return self._names[self._choose(me.skb)[1]]
