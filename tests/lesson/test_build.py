"""From a lesson to world and traffic."""

from __future__ import annotations

import pytest
from hostile_lessons import GOOD

from virtviz.errors import CaptureError, KnobError, LessonError
from virtviz.lesson.build import build
from virtviz.lesson.loader import load_text
from virtviz.paths.traffic import POKE, RECEIVE, SEND, Item, Link, Poke, make_traffic


def lesson_of(scenario: str, world: str = "{}"):
    """Make a lesson of a scenario, one event a line."""
    events = "".join(f"  - {line}\n" for line in scenario.split("; "))
    head, rest = GOOD.split("scenario:\n")
    head = head[: head.index("world:")] + f"world: {world}\n"
    return load_text(head + "scenario:\n" + events + "sources:" + rest.split("sources:")[1])


def ids(traffic) -> list[str]:
    """Name the packets."""
    return [item.id for item in traffic.items]


def test_nested_and_dotted_settings_mean_the_same():
    nested, _ = build(lesson_of("send: {id: a}", "{queue: {size: 64, show: 16}, flows: known}"))
    dotted, _ = build(lesson_of("send: {id: a}", "{queue.size: 64, queue.show: 16, flows: known}"))
    assert nested == dotted
    assert (nested["queue.size"], nested["flows"], nested["napi_tx"]) == (64, "known", "on")


def test_off_is_a_word_in_settings():
    world, _ = build(lesson_of("send: {id: a}", "{napi_tx: off}"))
    assert world["napi_tx"] == "off"


def test_a_set_may_be_a_list_or_words():
    for features in ("[event_idx, mergeable]", '"event_idx,mergeable"'):
        world, _ = build(lesson_of("send: {id: a}", f"{{features: {features}}}"))
        assert world["features"] == frozenset({"event_idx", "mergeable"})


def test_further_settings_go_over_those_of_the_lesson():
    lesson = lesson_of("send: {id: a}", "{flows: known, profile: recorded}")
    world, _ = build(lesson, [{"flows": "unknown"}, {"handlers": "3"}])
    assert (world["flows"], world["handlers"], world["cpu"], world.profile) == ("unknown", 3, "amd", "recorded")
    with pytest.raises(KnobError, match="did you mean flows"):
        build(lesson, [{"flow": "known"}])


def test_a_reply_is_named_after_what_it_answers_and_has_its_kind_and_length():
    _, traffic = build(lesson_of("send: {id: a, kind: udp, bytes: 30}; reply: {to: a}; receive: {id: c, bytes: 5}"))
    assert ids(traffic) == ["a", "a-reply", "c"]
    reply = traffic.items[1]
    assert (reply.kind, reply.length, reply.outgoing, reply.answers) == ("udp", 30, False, 0)
    assert traffic.acts[0] == ((SEND, 0), (RECEIVE, 1), (RECEIVE, 2))
    assert traffic.arrivals == ((2, 0),)


def test_several_packets_of_one_event_are_numbered_and_each_is_answered():
    _, traffic = build(lesson_of("send: {id: b, count: 3}; reply: {to: b, id: back}; receive: {id: in, count: 2}"))
    assert ids(traffic) == ["b.1", "b.2", "b.3", "back.1", "back.2", "back.3", "in.1", "in.2"]
    assert [item.answers for item in traffic.items[3:6]] == [0, 1, 2]


def test_a_pause_separates_what_comes_before_from_what_comes_after():
    _, traffic = build(lesson_of("send: {id: a}; pause: until-idle; receive: {id: b}"))
    assert traffic.arrivals == ((1, 1),)


def test_a_change_from_outside_stands_between_what_comes_before_and_after():
    _, traffic = build(
        lesson_of("send: {id: a}; poke: {queue: transmitq1, field: 'desc[3].len', value: 9}; send: {id: b}")
    )
    assert traffic.acts[0] == ((SEND, 0), (POKE, 0), (SEND, 1))
    assert traffic.pokes == (Poke("transmitq1", "desc[3].len", 9),)


def test_a_smaller_queue_that_has_no_such_slot_is_refused():
    lesson = lesson_of("send: {id: a}; poke: {queue: transmitq1, field: 'avail.ring[99]', value: 9}")
    with pytest.raises(KnobError, match=r"`avail.ring\[99\]`: slot 99 is behind the end of a queue of 64") as caught:
        build(lesson, [{"queue.size": 64}])
    assert caught.value.knob == "queue.size"


def test_fragments_reach_the_packet():
    _, traffic = build(lesson_of("send: {id: a, fragments: 3, bytes: 900}"))
    assert (traffic.items[0].fragments, traffic.items[0].length) == (3, 900)


def test_a_packet_for_the_other_machine_is_awaited_and_answered_there():
    _, traffic = build(lesson_of("send: {id: a, to: vm2}; reply: {to: a}; send: {id: b, from: vm2}", "{vms: 2}"))
    assert [(item.vm, item.to_vm, item.outgoing) for item in traffic.items] == [
        (0, 1, True),
        (1, 0, True),
        (1, -1, True),
    ]
    assert traffic.acts == (((SEND, 0), (RECEIVE, 1)), ((RECEIVE, 0), (SEND, 1), (SEND, 2)))
    assert traffic.items[1].answers == 0


def test_a_scenario_about_two_machines_needs_two():
    lesson = lesson_of("send: {id: a, to: vm2}", "{vms: 2}")
    with pytest.raises(KnobError, match="about vm2, and vms is 1; set vms=2"):
        build(lesson, [{"vms": 1}])


@pytest.mark.parametrize(
    ("send", "world", "said"),
    [
        ("{id: a, to: vm2}", "{}", "there is no virtual machine `vm2`; there is vm1; for that one, set `vms: 2`"),
        ("{id: a, to: vm3}", "{vms: 2}", "there is no virtual machine `vm3`; there is vm1, vm2"),
        ("{id: a, from: vm2, to: vm2}", "{vms: 2}", "vm2 sends to itself"),
    ],
)
def test_a_machine_that_is_not_there_is_named(send, world, said):
    with pytest.raises(LessonError) as caught:
        lesson_of(f"send: {send}", world)
    assert said in str(caught.value)


def test_a_program_on_another_vcpu_has_its_own_part_and_its_own_port():
    scenario = "send: {id: a, vcpu: 1, kind: udp}; send: {id: b}; reply: {to: a}; receive: {id: c, vcpu: 1}"
    _, traffic = build(lesson_of(scenario, "{queues: 2}"))
    assert [item.vcpu for item in traffic.items] == [1, 0, 1, 1]
    assert traffic.acts_on(0, 0) == ((SEND, 1),)
    assert traffic.acts_on(0, 1) == ((SEND, 0), (RECEIVE, 2), (RECEIVE, 3))
    assert traffic.acts_on(0, 3) == ()
    ports = {int.from_bytes(traffic.frame(n)[at : at + 2], "big") for n, at in ((1, 34), (3, 36), (4, 36))}
    assert ports == {40001}


def test_a_scenario_about_further_vcpus_needs_as_many_queue_pairs():
    lesson = lesson_of("send: {id: a, vcpu: 2}", "{queues: 3}")
    with pytest.raises(KnobError, match="about vCPU 2, and with queues=2 there are 2; set queues=3") as caught:
        build(lesson, [{"queues": 2}])
    assert caught.value.knob == "queues"


@pytest.mark.parametrize(
    ("event", "world", "said"),
    [
        (
            "send: {id: a, vcpu: 1}",
            "{}",
            "there is no vCPU 1; with `queues: 1` there is only vCPU 0; for that one, set",
        ),
        (
            "receive: {id: a, vcpu: 3}",
            "{queues: 2}",
            "with `queues: 2` there is vCPU 0 to 1; for that one, set `queues: 4`",
        ),
        ("send: {id: a, vcpu: 4}", "{queues: 4}", "`4` is not a whole number from 0 to 3"),
    ],
)
def test_a_vcpu_that_is_not_there_is_named(event, world, said):
    with pytest.raises(LessonError) as caught:
        lesson_of(event, world)
    assert said in str(caught.value)


def test_captured_frames_go_from_machine_to_machine_by_their_addresses():
    events = [Item("x", to_vm=1), Item("y", outgoing=False, vm=1), Item("z", vm=1)]
    frames = [make_traffic(events).frame(n) for n in (1, 2, 3)]
    _, traffic = build(lesson_of("send: {id: a}", "{vms: 2}"), frames=frames)
    ends = [(item.vm, item.to_vm, item.outgoing) for item in traffic.items]
    assert ends == [(0, 1, True), (1, -1, False), (1, -1, True)]


@pytest.mark.parametrize(("packets", "rounds"), [(None, 1), (1, 1), (2, 1), (3, 2), (1_000_000, 500_000)])
def test_the_scenario_is_repeated_until_there_are_enough_packets(packets, rounds):
    _, traffic = build(lesson_of("send: {id: a}; reply: {to: a}"), packets=packets)
    assert traffic.rounds == rounds


def test_frames_of_a_capture_take_the_place_of_the_scenario():
    out, back = (make_traffic([Item("x"), Item("y", outgoing=False)]).frame(n) for n in (1, 2))
    _, traffic = build(lesson_of("send: {id: a}"), frames=[out, back, out])
    assert ids(traffic) == ["frame-1", "frame-2", "frame-3"]
    assert [item.outgoing for item in traffic.items] == [True, False, True]
    assert [traffic.frame(n) for n in (1, 2, 3)] == [out, back, out]


@pytest.mark.parametrize(
    ("frames", "what"),
    [([], "holds no frame"), ([b"x" * 13], "frame 1 .* has 13 bytes"), ([b"x" * 60, b"x" * 1515], "frame 2 .* 1515")],
)
def test_frames_that_no_card_would_take_are_refused(frames, what):
    with pytest.raises(CaptureError, match=what):
        build(lesson_of("send: {id: a}"), frames=frames)


def test_a_ring_of_the_other_machine_can_be_changed():
    _, traffic = build(
        lesson_of("send: {id: a}; poke: {vm: vm2, queue: receiveq1, field: used_event, value: 9}", "{vms: 2}")
    )
    assert traffic.acts == (((SEND, 0),), ((POKE, 0),))
    assert traffic.pokes == (Poke("receiveq1", "used_event", 9, 1),)


def test_a_ring_of_a_machine_that_is_not_there_is_refused():
    lesson = lesson_of("send: {id: a}; poke: {vm: vm2, queue: receiveq1, field: used_event, value: 9}", "{vms: 2}")
    with pytest.raises(KnobError, match="the scenario is about vm2, and vms is 1"):
        build(lesson, [{"vms": 1}])


def test_a_link_is_changed_between_what_comes_before_and_after():
    _, traffic = build(lesson_of("send: {id: a}; link: {state: down}; link: {vm: vm1, state: up}; send: {id: b}"))
    assert traffic.acts[0] == ((SEND, 0), (POKE, 0), (POKE, 1), (SEND, 1))
    assert traffic.pokes == (Link(up=False), Link(up=True))
    assert traffic.has_links


def test_a_link_goes_together_with_one_queue_pair():
    with pytest.raises(KnobError, match="set queues=1"):
        build(lesson_of("send: {id: a}; link: {state: down}"), [{"queues": 2}])


def test_a_link_of_a_machine_that_is_not_there_is_refused():
    lesson = lesson_of("send: {id: a}; link: {vm: vm2, state: down}", "{vms: 2}")
    with pytest.raises(KnobError, match="the scenario is about vm2, and vms is 1"):
        build(lesson, [{"vms": 1}])
