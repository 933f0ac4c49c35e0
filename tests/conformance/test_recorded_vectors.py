"""Rings made by hand and put to a real QEMU: our device must do to memory, network and interrupts what QEMU did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ring_device import Device

if TYPE_CHECKING:
    from virtviz.engine.state import State


DOCUMENT = json.loads((Path(__file__).parent / "data" / "qemu-ring-vectors.json").read_text("utf-8"))
VECTORS = DOCUMENT["vectors"]
MALFORMED = [vector for vector in VECTORS if vector["name"].startswith(("bad-", "edge-"))]
WELL_FORMED = [vector for vector in VECTORS if vector not in MALFORMED]
BASE, LENGTH = int(DOCUMENT["arena"]["start"], 16), DOCUMENT["arena"]["length"]


def name_of(vector: dict[str, Any]) -> str:
    name: str = vector["name"]
    return name


def put(memory: bytearray, content: dict[str, str]) -> None:
    for address, digits in content.items():
        data = bytes.fromhex(digits)
        at = int(address, 16) - BASE
        memory[at : at + len(data)] = data


def queues_of(vector: dict[str, Any]) -> list[dict[str, Any]]:
    areas = ("desc", "driver", "device")
    return [{k: int(v, 16) if k in areas else v for k, v in queue.items()} for queue in vector["queues"]]


def make_device(vector: dict[str, Any], memory: bytearray, **more: Any) -> Device:
    device = Device(memory, BASE, int(vector["features_hex"], 16), queues_of(vector), **more)
    for queue, index in vector.get("start_index", {}).items():
        device.start_at(int(queue), index)
    return device


def act(device: Device, action: dict[str, Any]) -> None:
    if "kick" in action:
        device.kick(action["kick"])
    else:
        device.inject(bytes.fromhex(action["inject"]))


def hints_of(vector: dict[str, Any]) -> set[int]:
    """Addresses at which a device merely says when it wants kicks, each in its own legal way."""
    hints = (hint for queue in vector["queues"] for hint in queue["notify_hints"])
    return {int(at, 16) - BASE + i for at, length in hints for i in range(length)}


def differences(
    vector: dict[str, Any], step: dict[str, Any], memory: bytearray, wanted: bytearray, before: bytes
) -> set[int]:
    """Addresses that differ, but for hints and for what QEMU does otherwise than the specification says."""
    allowed = hints_of(vector)
    if "start_index" in vector and step is vector["steps"][0]:
        # The used ring's older elements are those of the buffers by which QEMU was brought to that index.
        for queue in queues_of(vector):
            ring = range(queue["device"] - BASE, queue["device"] - BASE + 6 + 8 * queue["size"])
            allowed |= {at for at in ring if wanted[at] and not before[at] and memory[at] == 0}
    for address, digits in step.get("spec_says", {}).items():
        at, data = int(address, 16) - BASE, bytes.fromhex(digits)
        if memory[at : at + len(data)] == data:
            allowed |= set(range(at, at + len(data)))
    return {BASE + at for at in range(LENGTH) if memory[at] != wanted[at]} - {BASE + at for at in allowed}


def replay(vector: dict[str, Any], device: Device, memory: bytearray) -> None:
    for step in vector["steps"]:
        put(memory, step["load"])
        before = bytes(memory)
        wanted = bytearray(memory)
        put(wanted, step["after"])
        act(device, step["action"])
        assert not differences(vector, step, memory, wanted, before)
        assert [frame.hex() for frame in device.frames()] == step["frames_out"]
        assert device.broken() == step["needs_reset"]
        isr, status = device.net.read_isr(), device.net.cells.status
        if not step["needs_reset"] or step["message"]:
            assert isr in (step["isr"], step.get("spec_isr"))
        assert status & 0x40 == int(step["device_status"], 16) & 0x40
        if "config_mac" in step:
            assert device.net.config()[:6].hex() == step["config_mac"]
        if step["message"]:
            verdict = device.verdict()
            assert verdict is not None
            assert (verdict.what, verdict.message) == ("needs reset", step["message"])
        memory[:] = wanted


@pytest.mark.parametrize(
    ("size", "features", "last"),
    [
        (3, 1 << 32, 0x2000),
        (0, 1 << 32, 0x2000),
        (0, 5 << 32, 0x2000),
        (65536, 5 << 32, 0x2000),
        (8, 5 << 32, 0x2002),
        (8, 1 << 32, LENGTH - 8),
        (8, 1 << 32, -BASE),
    ],
)
def test_a_queue_that_cannot_be_is_left_alone(size: int, features: int, last: int):
    queue = {"index": 1, "size": size, "desc": BASE, "driver": BASE + 0x1000, "device": BASE + last}
    device = Device(bytearray(LENGTH), BASE, features, [queue])
    device.kick(1)
    verdict = device.verdict()
    assert verdict is not None
    assert (verdict.problem, verdict.what) == ("queue not allowed", "stops until the next kick")
    assert device.frames() == []


def test_all_44_vectors_are_here():
    assert (len(WELL_FORMED), len(MALFORMED)) == (27, 17)


@pytest.mark.parametrize("vector", WELL_FORMED, ids=name_of)
def test_a_well_formed_ring_is_served_as_qemu_serves_it(vector):
    memory = bytearray(LENGTH)
    replay(vector, make_device(vector, memory), memory)


@pytest.mark.parametrize("vector", MALFORMED, ids=name_of)
def test_a_malformed_ring_comes_to_what_qemu_made_of_it(vector):
    memory = bytearray(LENGTH)
    device = make_device(vector, memory)
    replay(vector, device, memory)
    if not device.broken():
        verdict = device.verdict()
        assert verdict is not None, "what QEMU lets pass is not passed over in silence"
        assert (verdict.what, verdict.message) == ("ignored", "")


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_hints_are_given_as_qemu_gives_them(vector):
    memory = bytearray(LENGTH)
    device = make_device(vector, memory)
    for step in vector["steps"]:
        put(memory, step["load"])
        wanted = bytearray(memory)
        put(wanted, step["after"])
        act(device, step["action"])
        hints = hints_of(vector)
        assert {at: memory[at] for at in hints} == {at: wanted[at] for at in hints}
        memory[:] = wanted


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_a_reset_device_starts_anew(vector):
    memory = bytearray(LENGTH)
    device = make_device(vector, memory)
    replay(vector, device, memory)
    device.net.set_status(0)
    assert not device.broken()
    assert device.net.cells.status == 0
    device.net.set_status(4)
    for queue, index in vector.get("start_index", {}).items():
        device.net.rings[int(queue)].cells.last_avail_idx = index
        device.net.rings[int(queue)].cells.avail_idx = index
        device.net.rings[int(queue)].cells.last_used_idx = index
    memory[:] = bytes(LENGTH)
    device._backlog.clear()
    replay(vector, device, memory)


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_every_step_can_be_taken_back(vector):
    memory = bytearray(LENGTH)
    device = make_device(vector, memory, recording=True)
    for step in vector["steps"]:
        put(memory, step["load"])
        assert device.state.journal is not None
        device.state.journal.clear()
        before = bytes(memory), values(device.state)
        act(device, step["action"])
        after = bytes(memory), values(device.state)
        snapshot = device.state.snapshot()
        take_back(device.state)
        assert (bytes(memory), values(device.state)) == before
        device.state.load_snapshot(snapshot)
        assert (bytes(memory), values(device.state)) == after


@pytest.mark.parametrize("vector", MALFORMED, ids=name_of)
def test_a_strict_device_lets_none_of_them_pass(vector):
    memory = bytearray(LENGTH)
    device = make_device(vector, memory, back_end="strict")
    for step in vector["steps"]:
        put(memory, step["load"])
        act(device, step["action"])
        put(memory, step["after"])
    assert device.broken()
    verdict = device.verdict()
    assert verdict is not None
    assert verdict.what == "needs reset"
    assert verdict.why


def values(state: State) -> list[int]:
    return [state.value(number) for number in range(len(state.names))]


def take_back(state: State) -> None:
    """Undo all that was journaled."""
    journal = state.journal
    assert journal is not None
    state.undo(journal.tail, journal.blobs, len(journal.blobs))
