"""Every interleaving of a guest and the thread that polls it: there are no kicks to lose, only calls, and one fence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from test_every_interleaving import DRIVER_BARRIER, DRIVER_BARRIER_IN, EVENT_IDX, FLAGS, search, small

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.paths.wiring import Simulation

FENCE_IN = "vhost-user0.send/mb_before_call_check"


FORMATS = ["split", "packed"]


def polled(
    frames: int, *, outgoing: bool, features: list[str], ring: str = "split", omit: Sequence[str] = ()
) -> Simulation:
    """Make a small world whose rings a thread of OVS-DPDK polls."""
    knobs = {"path": "vhost-user", "far_port": "nic", "queue.format": ring}
    return small(frames, outgoing=outgoing, features=features, omit=omit, **knobs)


@pytest.mark.parametrize("ring", FORMATS)
@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize("omit", [[], [DRIVER_BARRIER]])
def test_no_interleaving_leaves_a_buffer_behind_with_or_without_the_drivers_barrier(
    features: list[str], omit: list[str], ring: str
):
    found = search(polled(2, outgoing=True, features=features, ring=ring, omit=omit))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 1_000


def with_a_frame_in_the_card(features: list[str], ring: str, omit: Sequence[str] = ()) -> Simulation:
    """Make a small world in which one frame is in the card's receive ring, and another can come at any moment."""
    simulation = polled(2, outgoing=False, features=features, ring=ring, omit=omit)
    machine = simulation.machine
    card = next(thread.me.index for thread in machine.threads if thread.name == "dpdk0")
    others = {thread.me.index for thread in machine.threads} - {card}
    assert machine.run(1, held=others) == 1
    return simulation


@pytest.mark.parametrize("ring", FORMATS)
@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
def test_no_interleaving_loses_a_call(features: list[str], ring: str):
    found = search(with_a_frame_in_the_card(features, ring))
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 1_000


@pytest.mark.parametrize("ring", FORMATS)
@pytest.mark.parametrize("features", [EVENT_IDX, FLAGS])
@pytest.mark.parametrize("omit", [FENCE_IN, DRIVER_BARRIER_IN])
def test_without_a_barrier_a_call_is_lost(omit: str, features: list[str], ring: str):
    found = search(with_a_frame_in_the_card(features, ring, omit=[omit]))
    assert found.bad.endswith("frame(s) are never seen by the guest")
