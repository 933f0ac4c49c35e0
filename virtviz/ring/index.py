"""Arithmetic on ring indices: free-running 16-bit counters that wrap at 65536.

An index is never a position. It is compared only with the functions here, and becomes a slot only where the ring is
touched.
"""

from __future__ import annotations

from typing import Final

U16: Final = 0xFFFF


def pending(newer: int, older: int) -> int:
    """Count the entries from `older` up to `newer`, 0..65535.

    Source:
        virtio 1.4, 2.7.6 and 2.7.8: both idx fields are free-running.
    """
    return (newer - older) & U16


def need_event(event: int, new: int, old: int) -> bool:
    """Say whether moving an index from `old` to `new` passes the index the other side asked about.

    All three are free-running u16 counters; the comparison is modular, so wrapping past 65535 is ordinary. The entry
    numbered `event` is the one whose publication the other side wants to hear of.

    Args:
        event: the other side's `used_event` or `avail_event`.
        new: the index just published.
        old: the index when this was last asked.

    Source:
        virtio 1.4, 2.7.7.2 and 2.7.10; Linux include/uapi/linux/virtio_ring.h, vring_need_event().
    """
    return (new - event - 1) & U16 < (new - old) & U16
