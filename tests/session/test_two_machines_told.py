"""A lesson about two virtual machines: played, asked about, and told in lines of text."""

from __future__ import annotations

import pytest

from virtviz.lesson.loader import load_text
from virtviz.session.plain import play
from virtviz.session.session import Session

TEXT = """
format_version: 1
id: 9-two
title: From one virtual machine to the other
level: beginner
minutes: 5
objectives: [Say who delivers a packet to the other virtual machine.]
world: {flows: known, vms: 2}
scenario:
  - send: {id: ask, from: vm1, to: vm2, kind: udp, bytes: 18}
  - reply: {to: ask}
script:
  - id: who-delivers
    when: {op: net_xmit, packet: ask}
    say: This is vm2's TAP, and vm1's worker is at it.
    predict: {ask: next-op, text: What does the worker do next?}
  - id: who-is-next
    when: {milestone: at-tap, packet: ask, nth: 2}
    predict: {ask: next-thread, text: Somebody else will take the frame on. Who moves next?}
  - id: what-it-costs
    when: {milestone: received, packet: ask}
    predict: {ask: count, text: How many host system calls will there have been?, counter: host_syscalls, until: end}
  - id: received-by-vm2
    when: {op: copy_to_user, place: vm2.stack}
    say: The program in vm2 has it.
sources: [linux 6.12 drivers/vhost/net.c]
"""


@pytest.fixture
def session():
    return Session.open(load_text(TEXT))


def test_every_question_can_be_asked_and_has_one_right_answer(session):
    asked = []
    while session.go_to(session.length) != session.length or session.question is not None:
        asked.append(session.question)
        verdict = session.answer(0)
        assert 0 <= verdict.right < len(verdict.question.options)
    assert [question.id for question in asked] == ["who-delivers", "who-is-next", "what-it-costs"]
    answers = {verdict.question.id: verdict.question.options[verdict.right] for verdict in session.verdicts}
    assert answers["what-it-costs"] == "0"


def test_moments_are_found_in_the_second_machine(session):
    (moment,) = [moment for moment in session.run.moments if moment.id == "received-by-vm2"]
    assert session.step(moment.position).thread == "vm2.vcpu0"


def test_it_can_be_told_in_lines_of_text(session):
    lines = []
    play(session, lambda _: "", lines.append, auto=True)
    text = "\n".join(lines)
    for thread in ("vm1.vcpu0", "vm2.vcpu0", "vhost-4002", "vhost-4012"):
        assert thread in text
    assert "UDP 10.0.0.2 > 10.0.0.3" in text
    assert session.position == session.length


def test_every_position_can_be_gone_back_to(session):
    while session.go_to(session.length) != session.length or session.question is not None:
        session.answer(None)
    digest = session.trace.machine.digest()
    for position in range(session.length, 0, -7):
        assert session.go_to(position) == position
    session.home()
    session.end()
    assert session.trace.machine.digest() == digest
