"""Names of what is on which host: everything of the second has `host2.` in front, but for its virtual machine's own.

The threads that serve that machine are known by their process, and its TAP by its number, so these need no host's name.
"""

from __future__ import annotations

from typing import Final

SECOND: Final = 2
"""Number of the second host; there are no more."""
SCOPE: Final = f"host{SECOND}."
"""What stands in front of the names of what is on it."""


def host_of(name: str) -> int:
    """Give the number of the host that a name says; 1 if it says none."""
    return SECOND if name.startswith(SCOPE) else 1


def without_host(name: str) -> str:
    """Give a name as it is on its own host."""
    return name.removeprefix(SCOPE)
