"""The same properties with thousands of new examples each time, and longer scenarios: `make campaign`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import test_every_frame
import test_every_position
import test_order
import test_ring_accounts
import test_store_buffers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from simulated import habits, traffics, traffics_of_two, worlds

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = settings(settings.get_profile("campaign"))
LONG = traffics(longest=30)
PROPERTIES: dict[str, tuple[Callable[..., None], list[st.SearchStrategy[Any]]]] = {
    "every frame has its fate": (test_every_frame.follow, [worlds(), LONG, habits()]),
    "every frame has its fate without napi": (test_every_frame.follow, [worlds(napi_tx="off"), LONG, habits()]),
    "every frame between two machines has its fate": (
        test_every_frame.follow,
        [worlds(vms=2), traffics_of_two(longest=20), habits()],
    ),
    "every frame between two hosts has its fate": (
        test_every_frame.follow,
        [worlds(hosts=2, vms=2, far_port="nic"), traffics_of_two(longest=20, only_across=True), habits()],
    ),
    "order": (test_order.order_holds, [worlds(far_port="nic"), LONG, habits()]),
    "accounts": (test_ring_accounts.accounts_hold, [worlds(store_buffer="off"), traffics(), habits()]),
    "jumps": (test_every_position.jump_equals_a_fresh_run, [worlds(), LONG, habits(), st.floats(0, 1)]),
    "counting": (test_every_position.counting_takes_the_same_arcs, [worlds(), LONG, habits()]),
    "store buffers": (test_store_buffers.only_draining_is_added, [worlds(store_buffer="off"), LONG]),
}


@pytest.mark.campaign
@pytest.mark.parametrize("name", PROPERTIES)
def test_campaign(name: str):
    holds, strategies = PROPERTIES[name]

    @MANY
    @given(st.tuples(*strategies))
    def search(drawn: tuple[Any, ...]) -> None:
        holds(*drawn)

    search()


@pytest.mark.campaign
def test_campaign_walks():
    run_state_machine_as_test(test_every_position.Travel, settings=settings(MANY, max_examples=500))
