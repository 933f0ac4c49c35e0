"""Putting the queues of a TAP together: what it remembers of flows, and what chooses among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.paths.parts import tap_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.ops import Routine
    from virtviz.paths.parts import Parts
    from virtviz.paths.tap import Tap
    from virtviz.paths.tap_queues import TapFlows


def remembered_flows(parts: Parts, tap: Tap, queues: int) -> TapFlows | None:
    """Make what a TAP remembers of flows: nothing if it has one queue, or a program chooses."""
    if queues == 1 or parts.world["steering"] != "flow":
        return None
    from virtviz.paths.tap_queues import TapFlows  # noqa: PLC0415 - where a TAP has several queues only

    return TapFlows(parts.state, tap.name, queues)


def choose_queue(tap: Tap, flows: TapFlows | None, xmits: Sequence[Routine]) -> Routine:
    """Make what transmitting on a TAP is: on its one queue, or on the one that is chosen.

    Args:
        tap: its first queue.
        flows: what it remembers of flows; None if that is nothing.
        xmits: transmission on each queue.
    """
    if len(xmits) == 1:
        return xmits[0]
    name, place, pool = tap.name, tap_place(tap.name), tap.pool
    queues = {f"queue {number}": xmit for number, xmit in enumerate(xmits, 1)}
    if flows is not None:
        from virtviz.paths.tap_queues import TapSelectQueue  # noqa: PLC0415

        return TapSelectQueue(f"{name}.select_queue", place, name, pool, flows, queues)
    from virtviz.paths.tap_steering import TapSelectQueueByProgram  # noqa: PLC0415 - where a program is loaded only

    return TapSelectQueueByProgram(f"{name}.select_queue", place, name, pool, queues)
