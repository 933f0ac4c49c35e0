"""Cost profiles: every figure has a source, every key that is used is there, and the proportions are kept."""

from __future__ import annotations

import pytest
from driving import KNOWN, OUT, Driven, Item

from virtviz.engine.effects import EFFECT_OF_OUTCOME
from virtviz.engine.places import CrossingKind
from virtviz.errors import KnobError
from virtviz.paths.costs import BASE, CONFIDENCE, load_costs, profile_names
from virtviz.paths.knobs import make_world

COSTS = load_costs(BASE)
NS = COSTS.nanoseconds
WORLDS = [
    {},
    {"profile": "recorded"},
    {"far_port": "dummy", "napi_tx": "off"},
    {"switch": "bridge"},
    {"vcpu": "halted"},
    {"path": "virtio-qemu"},
    {"path": "virtio-qemu", "ioeventfd": "off"},
    {"tunnel": "vxlan"},
    {"path": "vhost-user", "switch": "ovs-dpdk", "far_port": "nic"},
]


@pytest.mark.parametrize("name", profile_names())
def test_every_figure_says_how_far_it_can_be_trusted_and_where_it_comes_from(name):
    profile = load_costs(name)
    assert profile.title
    assert profile.about
    assert set(profile.costs) == set(NS)
    for cost in profile.costs.values():
        assert cost.confidence in CONFIDENCE
        assert cost.source


def test_what_is_called_measured_or_read_is_never_without_a_named_source():
    for name in profile_names():
        profile = load_costs(name)
        for key in profile.own:
            cost = profile.costs[key]
            assert cost.confidence == "E" or "no source" not in cost.source, (name, key)


def test_the_estimates_come_first_and_the_others_begin_with_them():
    assert profile_names()[0] == BASE
    for name in profile_names()[1:]:
        profile = load_costs(name)
        assert 0 < len(profile.own) < len(NS)
        assert {key: cost for key, cost in profile.costs.items() if key not in profile.own} == {
            key: cost for key, cost in COSTS.costs.items() if key not in profile.own
        }


def test_measured_cycles_are_turned_into_nanoseconds_at_the_clock_that_is_named():
    splitx = load_costs("splitx-2011").nanoseconds
    assert splitx["vm-exit"] + splitx["vm-entry"] == round(2000 / 2.93)
    svm = load_costs("svm-2020").nanoseconds
    assert svm["vm-exit"] + svm["vm-entry"] == round(1360 / 3)
    assert (svm["kvm-run-return"], svm["kvm-run-enter"]) == (round(590 / 3), round(576 / 3))


def test_a_profile_changes_simulated_time_and_no_count():
    worlds = [Driven([OUT], KNOWN, {"costs": name}).run() for name in profile_names()]
    assert len({tuple(world.counters().values()) for world in worlds}) == 1
    assert len({max(step.t_ns for step in world.steps()) for world in worlds}) == len(worlds)


# A profile of one's own


def own(tmp_path, text):
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_of_ones_own_is_laid_over_a_profile(tmp_path):
    path = own(
        tmp_path, 'base = "svm-2020"\n[cost]\nvm-exit = 1000\n"ring cold" = {ns = 9, confidence = "M", source = "me"}\n'
    )
    profile = load_costs(path)
    assert make_world({"costs": path})["costs"] == path
    assert (profile.title, profile.own) == ("my", frozenset(("vm-exit", "ring cold")))
    assert (profile.costs["vm-exit"].ns, profile.costs["vm-exit"].confidence) == (1000, "E")
    assert (profile.costs["ring cold"].ns, profile.costs["ring cold"].source) == (9, "me")
    assert profile.costs["kvm-run-return"] == load_costs("svm-2020").costs["kvm-run-return"]


WRONG = [
    ("[cost]\nvm-exit = -1\n", ":2: vm-exit: ns is a whole number of nanoseconds from 0 to 1000000000, not -1"),
    ("[cost]\n\nvm-exit = 1.5\n", ":3: vm-exit: ns is a whole number"),
    ("[cost]\nvm-exit = true\n", ":2: vm-exit: ns is a whole number"),
    ("[cost]\nvmexit = 1\n", ":2: nothing costs 'vmexit'; did you mean vm-exit?"),
    ('[cost]\n"ring hot" = 1\n', ":2: nothing costs 'ring hot'; did you mean ring cold?"),
    ('[cost]\nstep = {ns = 1, confidence = "Z"}\n', ":2: step: confidence is one of A, B, C, M, E, not 'Z'"),
    ('[cost]\nstep = {ns = 1, source = ""}\n', ":2: step: source is a line of text"),
    ("[cost]\nstep = {nanoseconds = 1}\n", ":2: step: unknown key 'nanoseconds'"),
    ("[cost]\n[cost.step]\nns = -3\n", ": step: ns is a whole number"),
    ("title = 3\n", ":1: title is a line of text"),
    ('title = "\\u001b[31m"\n', ":1: title is a line of text"),
    ('base = "fast"\n', ":1: base is one of estimates, "),
    ('base = "../../etc/passwd"\n', ":1: base is one of estimates, "),
    ("costs = 3\n", ":1: unknown key 'costs'; there are title, about, base and cost"),
    ("cost = 3\n", ":1: cost is a table"),
    ("title = \n", ":1: not TOML: "),
    ("a = 1\na = 2\n", ":2: not TOML: "),
    ("#" * 200_000, ": a cost profile has at most 100000 bytes"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path, text, said):
    path = own(tmp_path, text)
    with pytest.raises(KnobError) as caught:
        make_world({"costs": path})
    assert str(caught.value).startswith(path)
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path):
    path = tmp_path / "my.toml"
    with pytest.raises(KnobError, match="No such file or directory; costs is a profile that `virtviz costs` lists"):
        make_world({"costs": str(path)})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(KnobError, match="not text in UTF-8"):
        make_world({"costs": str(path)})
    with pytest.raises(KnobError, match="Is a directory"):
        make_world({"costs": str(path.parent) + "/.toml" if (path.parent / ".toml").mkdir() is None else ""})


# What is in the estimates


def test_every_key_that_an_op_uses_is_in_it():
    used = {op.spec.cost for world in WORLDS for op in Driven([OUT], world).machine.program.ops}
    assert used <= set(NS)


def test_every_key_in_it_is_used():
    ops = {op.spec.cost for world in WORLDS for op in Driven([OUT], world).machine.program.ops}
    effects = {kind for kind, _ in EFFECT_OF_OUTCOME.values()} | {how for _, how in EFFECT_OF_OUTCOME.values() if how}
    known = ops | {*CrossingKind} | effects
    assert {key for key in NS if key.removesuffix("-latency").removesuffix("-per-kib") not in known} == set()


def test_a_heavy_exit_costs_about_seven_light_ones():
    light = NS["vm-exit"] + NS["vm-entry"]
    assert 6 <= (light + NS["kvm-run-return"] + NS["kvm-run-enter"]) / light <= 8


def test_wake_ups_dominate_the_way_of_a_single_packet():
    steps = Driven([Item(), Item(outgoing=False, answers=0)], KNOWN).run().steps()
    whole = max(step.t_ns for step in steps)
    assert NS["wakeup-latency"] * 2 > whole / 3


def test_packets_of_a_burst_cost_less_each_than_a_lone_one():
    def per_packet(n):
        steps = Driven([Item(kind="udp", length=18)] * n, KNOWN).run().steps()
        return max(step.t_ns for step in steps) / n

    assert per_packet(32) * 2 < per_packet(1)
