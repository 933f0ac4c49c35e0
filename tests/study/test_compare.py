"""Worlds side by side: what belongs to which milestone, what is paired, and where a difference comes from."""

from __future__ import annotations

import io
import json

import jsonschema
import pytest

from virtviz.engine.counters import COUNTERS
from virtviz.engine.trace import Trace
from virtviz.errors import KnobError, LearnerError
from virtviz.export.compared import comparison_json, comparison_schema
from virtviz.export.compared_table import write_comparison
from virtviz.lesson.loader import load
from virtviz.lesson.shelf import find
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate
from virtviz.study import compare as study
from virtviz.study.subjects import Frames, Subject, read_subject, world_and_traffic

VHOST, QEMU, HEAVY = "vhost-net", "virtio-qemu", "virtio-qemu,ioeventfd=off"


def compared(*names, frames=None, common=()):
    return study.compare([read_subject(name) for name in names], frames or Frames(), common)


@pytest.fixture(scope="module")
def both():
    return compared(VHOST, QEMU)


# Worlds as they are written


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("vhost-net", {"path": "vhost-net"}),
        ("path=virtio-qemu", {"path": "virtio-qemu"}),
        ("path=virtio-qemu,ioeventfd=off", {"path": "virtio-qemu", "ioeventfd": "off"}),
        ("virtio-qemu, ioeventfd=off", {"path": "virtio-qemu", "ioeventfd": "off"}),
        ("features=event_idx,indirect,queue.size=64", {"features": "event_idx,indirect", "queue.size": "64"}),
        ("profile=recorded", {"profile": "recorded"}),
    ],
)
def test_a_world_is_a_path_or_settings_or_both(text, settings):
    assert read_subject(text).settings == settings


@pytest.mark.parametrize("text", ["vhost", "", "ioeventfd=off,virtio-qemu", "=on", "vhost-net,x"])
def test_what_is_no_world_is_refused_with_what_is(text):
    with pytest.raises(
        KnobError, match=r"neither a data path \(vhost-net, .*\) nor a setting; write such as vhost-net"
    ):
        read_subject(text)


def test_without_a_lesson_an_echo_leaves_and_its_answer_comes_in():
    world, traffic = world_and_traffic(Frames(), (), {})
    assert world["flows"] == "known"
    assert [(item.outgoing, item.answers) for item in traffic.items] == [(True, -1), (False, 0)]


def test_the_worlds_settings_go_over_the_common_ones_and_those_over_the_lessons():
    frames = Frames(lesson=load(find("3-vhost")))
    world, traffic = world_and_traffic(frames, [{"vcpu": "halted", "cpu": "intel"}], {"vcpu": "running"})
    assert (world["vcpu"], world["queue.show"], traffic.packets) == ("running", 8, 5)


# By milestone


def test_everything_that_is_counted_stands_in_exactly_one_row(both):
    for number, account in enumerate(both.accounts):
        total = dict.fromkeys(COUNTERS, 0)
        steps = []
        for way in both.ways:
            for section in way.sections:
                for row in section.rows:
                    if row[number] is not None:
                        steps.append((row[number].step, row[number].kind))
                        for name, more in row[number].counts.items():
                            total[name] += more
        assert total == account.counters
        assert len(steps) == len(set(steps))


def test_each_milestone_of_a_packets_way_is_a_section_in_the_packets_order(both):
    out, back = both.ways
    assert [section.milestone for section in out.sections] == list(study.OUT)
    assert [section.milestone for section in back.sections] == list(study.IN)
    assert all(all(section.reached) for way in both.ways for section in way.sections)


def test_what_a_woken_thread_does_belongs_to_what_woke_it(both):
    sections = {section.milestone: section for section in both.ways[0].sections}
    only_qemu = [[row[1].cause for row in section.rows if row[0] is None] for section in sections.values()]
    assert dict(zip(sections, only_qemu, strict=True)) == {name: [] for name in study.OUT} | {
        "notified": ["return from the system call"],
        "backend-awake": [
            "read the kick's eventfd",
            "return from the system call",
            "call ppoll() without waiting",
            "return from the system call",
        ],
        "fetched": ["write the packet to the TAP"],
        "at-switch": ["return from the system call"],
        "used": ["ask KVM for the interrupt", "return from the system call", "wait in ppoll()"],
    }
    assert [row[0].cause for row in sections["used"].rows if row[1] is None] == ["signal the call eventfd"]


def test_the_exit_of_a_kick_stands_with_its_cause_in_both(both):
    section = next(section for section in both.ways[0].sections if section.milestone == "in-ring")
    exits = [row for row in section.rows if row[0] is not None and row[0].kind == "vm-exit"]
    assert [[entry.cause for entry in row] for row in exits] == [["store to the notify address"] * 2]


def test_between_two_machines_the_receivers_milestones_are_told_from_the_senders():
    simulation = simulate(
        make_world({"flows": "known", "vms": 2}), make_traffic([Item(kind="udp", length=18, to_vm=1)])
    )
    simulation.machine.run()
    trace = Trace(simulation.machine)
    parts = study.sort_by_cause(map(trace.step, range(1, len(trace) + 1)))
    assert {key for key in parts[1] if key[1] == 2} == {("at-tap", 2), ("backend-awake", 2), ("used", 2)}
    used = [[entry.target for entry in parts[1]["used", nth].entries if entry.target] for nth in (1, 2)]
    assert [[name for name in names if "vcpu" in name] for names in used] == [["vm1.vcpu0"], ["vm2.vcpu0"]]


# Differences


def test_differences_are_those_of_the_counters_and_each_has_causes_that_add_up_to_it(both):
    vhost, qemu = both.accounts
    found = dict.fromkeys(COUNTERS, 0)
    for way in both.ways:
        for difference in way.differences:
            assert sum(cause.by for cause in difference.causes) == difference.by
            found[difference.counter] += difference.by
    assert found == {name: qemu.counters[name] - vhost.counters[name] for name in COUNTERS}


def test_a_world_does_not_differ_from_itself():
    same = compared(VHOST, VHOST)
    assert not [difference for way in same.ways for difference in way.differences]
    assert all(None not in row for way in same.ways for section in way.sections for row in section.rows)


def test_without_ioeventfd_the_way_to_qemu_is_the_cause():
    (out, _) = compared(QEMU, HEAVY).ways
    causes = {
        difference.counter: [(cause.entry.cause, cause.by) for cause in difference.causes]
        for difference in out.differences
    }
    assert causes["heavy_exits"] == [("KVM_RUN returns: KVM_EXIT_MMIO", 1)]
    assert causes["light_exits"] == [("KVM_RUN returns: KVM_EXIT_MMIO", -1)]


def test_four_worlds_are_laid_beside_each_other():
    four = compared(VHOST, QEMU, HEAVY, "vhost-net,vcpu=halted")
    assert all(len(row) == 4 for way in four.ways for section in way.sections for row in section.rows)
    assert {difference.world for way in four.ways for difference in way.differences} == {1, 2, 3}


def test_too_many_packets_are_refused_with_what_to_do():
    with pytest.raises(LearnerError, match=r"1002 packets are too many to be laid beside each other; .* --sweep"):
        compared(VHOST, QEMU, frames=Frames(packets=1001))


# How it is written


def written(comparison, width=None):
    out = io.StringIO()
    write_comparison(out, comparison, width)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("names", [(VHOST, QEMU), (VHOST, QEMU, HEAVY), (VHOST, QEMU, HEAVY, "vcpu=halted")])
def test_no_line_is_wider_than_the_terminal(width, names):
    assert max(map(len, written(compared(*names), width))) <= width


def test_in_80_columns_two_worlds_have_their_causes_and_four_have_them_below(both):
    two = "\n".join(written(both, 80))
    assert "vm-exit: store to the notify" in two
    four = written(compared(VHOST, QEMU, HEAVY, "vhost-net,vcpu=halted"), 80)
    assert "vm-exit: store" not in "\n".join(four)
    assert any(line.startswith("  +1 heavy VM exits (back to QEMU): KVM_RUN returns") for line in four)


def test_lines_in_which_worlds_differ_are_marked(both):
    lines = written(both, 120)
    marked = [line for line in lines if line.startswith("*")]
    assert len(marked) == sum(None in row for way in both.ways for section in way.sections for row in section.rows)
    assert any(line.endswith("9 *") and line.startswith("system calls on the host") for line in lines)


def test_no_name_is_obeyed_by_the_terminal():
    named = study.compare([Subject("a\x1b[31m", {}), Subject("b", {})], Frames(), ())
    assert "\x1b" not in "\n".join(written(named))


def test_the_json_fits_its_schema_and_says_the_same(both):
    document = json.loads(comparison_json(both))
    jsonschema.validate(document, comparison_schema())
    assert [world["counters"] for world in document["worlds"]] == [account.counters for account in both.accounts]
    assert document["worlds"][0]["difference"] == {}
    assert document["worlds"][1]["difference"] == {
        "user_kernel.host": 18, "host_syscalls": 9, "host_copies": 1, "eventfd_signals": -2
    }  # fmt: skip
    assert len(document["packets"]) == len(both.ways)


def test_the_same_comparison_is_the_same_bytes():
    assert comparison_json(compared(VHOST, HEAVY)) == comparison_json(compared(VHOST, HEAVY))


def test_on_the_way_to_another_host_milestones_stand_in_the_order_of_the_way():
    comparison = compared("vhost-net,hosts=2,tunnel=vxlan", "virtio-qemu,hosts=2,tunnel=vxlan")
    asked = next(way for way in comparison.ways if way.packet == 1)
    order = [(section.milestone, section.nth) for section in asked.sections]
    assert order.index(("on-wire", 1)) < order.index(("from-wire", 1)) < order.index(("at-tap", 2))
    assert order[0] == ("sent", 1)
    assert order[-1] == ("received", 1)
    assert any(line.startswith("  backend-awake 2 ") for line in written(comparison))
