"""What holds of every run on one host holds of every run on two, with a cable between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from simulated import Habits, habits, traffics_of_two, worlds
from test_every_frame import follow
from test_order import order_holds
from test_two_machines_fates import counted_do_what_recorded_do, they_go_back_to_where_they_were

if TYPE_CHECKING:
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic

WORLDS = worlds(hosts=2, vms=2, far_port="nic")
TRAFFICS = traffics_of_two(only_across=True)


@given(WORLDS, TRAFFICS, habits())
def test_every_frame_between_two_hosts_has_one_fate(world: World, traffic: Traffic, schedule: Habits):
    follow(world, traffic, schedule)


@given(WORLDS, TRAFFICS, habits())
def test_order_holds_between_two_hosts(world: World, traffic: Traffic, schedule: Habits):
    order_holds(world, traffic, schedule)


@given(WORLDS, TRAFFICS, habits())
@settings(max_examples=20)
def test_two_hosts_go_back_to_where_they_were(world: World, traffic: Traffic, schedule: Habits):
    they_go_back_to_where_they_were(world, traffic, schedule, steps=600, stretch=61)


@given(WORLDS, TRAFFICS)
@settings(max_examples=30)
def test_two_hosts_counted_do_what_two_recorded_do(world: World, traffic: Traffic):
    counted_do_what_recorded_do(world, traffic)
