"""What can be wrong with a buffer of virtio-net that the ring itself has nothing against.

Source: virtio 1.4, 5.1.9.2 and 5.1.9.3; QEMU hw/net/virtio-net.c (virtio_net_flush_tx, virtio_net_receive_rcu); Linux
drivers/vhost/net.c (get_tx_bufs, get_rx_bufs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.ring.rings import readable_bytes

if TYPE_CHECKING:
    from virtviz.ring.rings import DeviceRing
    from virtviz.ring.verdicts import BackEnd, Problem


def wrong_to_send(ring: DeviceRing, back_end: BackEnd, header_bytes: int, *, vnet_hdr: bool) -> Problem | None:
    """Say what is wrong with the buffer just taken to be sent, if the back-end minds anything.

    Args:
        ring: the device's side of the queue.
        back_end: who reads it.
        header_bytes: length of the virtio-net header.
        vnet_hdr: what frames go to understands virtio-net headers, as a TAP does.
    """
    length = readable_bytes(ring)
    if not ring.cells.readable:
        return "no header"
    if ring.cells.writable and back_end != "qemu":
        return "writable while sending"
    # QEMU looks at the header's length only if it has a use for the header; else it misses what should follow it.
    if length < header_bytes and (vnet_hdr or back_end != "qemu"):
        return "header incomplete"
    if length <= header_bytes and not (vnet_hdr and back_end == "qemu"):
        return "nothing to send"
    return None


def wrong_to_receive(ring: DeviceRing, back_end: BackEnd) -> Problem | None:
    """Say what is wrong with the buffer just taken to receive into, if the back-end minds anything."""
    if not ring.cells.writable:
        return "nothing writable"
    if ring.cells.readable and back_end != "qemu":
        return "readable while receiving"
    return None
