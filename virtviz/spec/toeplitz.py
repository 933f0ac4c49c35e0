"""The Toeplitz hash, by which receive-side scaling spreads flows.

Each bit of the input that is set adds, by exclusive or, the 32 bits of the key that begin where that bit stands.

Source: virtio 1.4, 5.1.9.4.3 (hash calculation); QEMU ebpf/rss.bpf.c. The key is the one that the hash was published
with, together with values to check it by; Linux makes one at random when it starts (netdev_rss_key_fill).
"""

from __future__ import annotations

from typing import Final

KEY: Final = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
"""40 bytes."""


def toeplitz(data: bytes, key: bytes = KEY) -> int:
    """Hash some bytes; answers 32 bits.

    Args:
        data: at most 36 bytes: addresses and ports, in network order.
        key: 4 bytes longer than the data, or more.
    """
    window = int.from_bytes(key, "big")
    bits, found = 8 * len(key), 0
    for number, byte in enumerate(data):
        for bit in range(8):
            if byte & 0x80 >> bit:
                found ^= window >> bits - 32 - 8 * number - bit & 0xFFFFFFFF
    return found
