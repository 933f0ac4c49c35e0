"""What a screen shows of a trace file is what it shows of the live session."""

import io

import pytest

from virtviz.export.headless import recorded_steps, recorded_totals
from virtviz.export.jsonl import header_json, write_jsonl
from virtviz.export.replay import Replay
from virtviz.lesson.loader import load
from virtviz.lesson.shelf import shelf
from virtviz.paths.describe import initial_state
from virtviz.session.session import Session
from virtviz.view.build import make_frame

SETTINGS = [
    {},
    {"flows": "unknown"},
    {"profile": "recorded"},
    {"vcpu": "halted", "features": "none"},
    {"rx_buffer": 128, "queue.start": 65534},
    {"path": "virtio-qemu", "queue.format": "packed", "queue.size": 30, "queue.start": 58},
]

# What a lesson is about cannot always be set otherwise.
CASES = [
    (entry.path, settings)
    for entry in shelf()
    for settings in SETTINGS
    if not {"path", "queue.start"} & {*settings} or entry.id in ("1-first-packet", "3-vhost")
]


def replayed(session):
    run = session.run
    out = io.StringIO()
    header = header_json(run.header, initial_state(run.machine))
    write_jsonl(out, header, recorded_steps(run), lambda: recorded_totals(run).json())
    return Replay(out.getvalue().encode())


@pytest.mark.parametrize(("path", "settings"), CASES, ids=[f"{path.stem}-{settings}" for path, settings in CASES])
def test_every_frame_of_a_replayed_lesson_equals_the_live_one(path, settings):
    session = Session.open(load(path), settings=[settings])
    replay = replayed(session)
    assert replay.length == session.length
    assert replay.header == session.header
    # Of a lesson of thousands of steps not each one in each world.
    stride = 1 if session.length < 1000 or not settings else 5
    for position in range(0, session.length + 1, stride):
        assert make_frame(replay, position) == make_frame(session, position), f"position {position}"
    for position in range(session.length, 0, -7):
        for queue in session.header.queues:
            live = make_frame(session, position, queue.name, slots=16)
            assert make_frame(replay, position, queue.name, slots=16) == live, f"position {position}, {queue.name}"
