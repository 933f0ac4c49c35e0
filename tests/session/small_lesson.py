"""A small lesson that uses everything a script can do.

Run as a program, this writes the transcripts in `goldens/` anew: PYTHONPATH=. python tests/session/small_lesson.py
"""

from pathlib import Path

import msgspec
import yaml

from virtviz.lesson.loader import load, load_text
from virtviz.lesson.model import Lesson
from virtviz.resources import data_folder
from virtviz.session.plain import play
from virtviz.session.session import Session

TEXT = """
format_version: 1
id: small
title: A small lesson
level: beginner
minutes: 5
objectives: [See a packet go out, See its answer come in]
world: {flows: known}
scenario:
  - send: {id: echo}
  - reply: {to: echo, id: answer}
  - pause: until-idle
  - send: {id: echo2}
  - reply: {to: echo2, id: answer2}
script:
  - id: hello
    when: start
    say: A program wants to send.
  - id: next-of-driver
    when: {op: publish_avail_idx, packet: echo}
    say: From here on the device may take the buffer.
    predict: {ask: next-op, text: What comes next?}
  - id: who
    when: {milestone: notified, packet: echo}
    predict: {ask: next-thread, text: Who runs now?, why: The signal woke a worker.}
    hints: [Somebody slept., 'It is called vhost, and a number.']
  - id: field
    when: {milestone: fetched, packet: echo}
    predict: {ask: cell, text: Which field is written next?}
  - id: used
    when: {milestone: in-ring, packet: echo2}
    say: The worker is held up.
    hold: vhost
    predict:
      ask: value
      text: What will used.idx be when this packet's buffer is used?
      field: used.idx
      until: {milestone: used, packet: echo2}
  - id: exits
    when: {op: kick, packet: echo2}
    predict:
      ask: count
      text: How many light exits will there have been when the answer is received?
      counter: light_exits
      until: {milestone: received}
  - id: order
    when: {milestone: notified, packet: echo2}
    predict:
      ask: order
      text: In which order will this happen?
      of:
        the frame is on the wire: {milestone: on-wire}
        the buffer is used: {milestone: used}
        the driver takes it back: {milestone: completed}
  - id: go
    when: end
    release: vhost
    say: Now it may go on.
  - id: copies
    when: {milestone: on-wire, packet: echo2}
    predict:
      ask: choice
      text: How often did the host copy this packet?
      options: [never, once, twice]
      answer: once
      why: vhost-net copies it out of the guest.
  - id: bye
    when: end
    say: That was it.
"""


def open_small(old: str = "", new: str = "") -> Session:
    """Open the lesson, with a part of its text replaced."""
    assert old in TEXT
    return Session.open(load_text(TEXT.replace(old, new) if old else TEXT))


def open_with(script: str) -> Session:
    """Open a lesson of one packet and its answer with a script, without the checks that a lesson file has to pass."""
    values = {
        "format_version": 1,
        "id": "one",
        "title": "One packet",
        "level": "beginner",
        "minutes": 1,
        "objectives": ["Step"],
        "world": {"flows": "known"},
        "scenario": [{"send": {"id": "echo"}}, {"reply": {"to": "echo", "id": "answer"}}],
        "script": yaml.safe_load(script),
    }
    return Session.open(msgspec.convert(values, Lesson))


def answer_all(session: Session) -> None:
    """Go to the end, answering "not sure yet" on the way."""
    session.end()
    while session.question is not None:
        session.answer(None)
        session.end()


def transcript(session: Session) -> str:
    """Give what plain mode says when it runs straight through."""
    lines: list[str] = []
    play(session, input, lines.append, auto=True)
    return "\n".join(lines) + "\n"


def open_vhost() -> Session:
    """Open the first lesson of the course."""
    return Session.open(load(data_folder("lessons") / "3-vhost.yaml"))


GOLDENS = {"small": open_small, "3-vhost": open_vhost}
"""Lessons whose transcripts are kept."""


def golden(name: str) -> Path:
    """Name the file that keeps a transcript."""
    return Path(__file__).parent / "goldens" / f"{name}.txt"


if __name__ == "__main__":
    for lesson, opened in GOLDENS.items():
        golden(lesson).write_text(transcript(opened()), encoding="utf-8")
