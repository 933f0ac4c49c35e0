"""Recorded vhost-user messages as lines, and those of a run from power-on in the same form.

Addresses are replaced by how they lie to each other, because two kernels put their rings at different places. Of the
used ring not even that is compared: Linux begins it at a cache line, a run at the next multiple of 4, as virtio asks.
"""

from __future__ import annotations

import re
from pathlib import Path

from virtviz.paths.setup.vhost_user_socket import WITH_FD, Request, payload_bytes

RECORDING = Path(__file__).parent / "data" / "setup-vhost-user.txt"
ONE_PAIR, PACKED, TWO_PAIRS = "A. split rings, one queue pair", "B. packed rings, one queue pair", "C. two queue pairs"
OLD = "D. a backend that does not offer VHOST_USER_F_PROTOCOL_FEATURES"
POWER_OFF = "the guest powers off: the device stops"
_LINE = re.compile(r"\s*[\d.]+ ms  (?P<way>->|<-) (?P<name>\w+)\s+(?P<rest>.*)")
_HEADER = re.compile(r"flags=(?P<flags>0x\w+) size=(?P<size>\d+)\s+fds=(?P<fds>\d)\s*(?P<what>.*)")


def parts():
    """Give the recording by its parts: title -> lines."""
    found, section = {}, ""
    for line in RECORDING.read_text().splitlines():
        if line.startswith("== "):
            section = title = line[3:]
        elif "---" in line and section:
            title = f"{section} / {line.split('---')[1].strip()}"
            found[title] = []
        elif section and _LINE.match(line):
            found[title].append(line)
    return found


def recorded(section):
    """Give the recorded messages of a start, one after the other."""
    found = parts().items()
    wanted = [line for title, lines in found if title.startswith(section) and POWER_OFF not in title for line in lines]
    return [_told(line) for line in wanted]


def recorded_stop(section):
    """Give the recorded messages of a stop, without how far the rings had come: that was the doing of other packets."""
    (lines,) = (lines for title, lines in parts().items() if title.startswith(section) and POWER_OFF in title)
    return [without_base(_told(line)) for line in lines]


def without_places(lines):
    """Leave out how the areas of a ring lie to each other: Linux allocates those of a packed one each by itself."""
    return [line.split(" avail=")[0] for line in lines]


def without_base(line):
    """Leave out how far a ring had come, of a message or an answer."""
    if line.startswith("<- GET_VRING_BASE"):
        return "<- GET_VRING_BASE"
    return line.split(" -> base")[0]


def _told(line):
    match = _LINE.match(line)
    if match["way"] == "<-":
        return f"<- {match['name']} {match['rest'].strip()}"
    header = _HEADER.match(match["rest"])
    start = f"-> {match['name']} flags={header['flags']} size={header['size']} fds={header['fds']}"
    return f"{start} {_by_meaning(header['what'])}".rstrip()


def _by_meaning(what):
    if "desc=" in what:
        desc, avail = (int(re.search(rf"{part}=(0x\w+)", what)[1], 16) for part in ("desc", "avail"))
        return f"{what.split(' flags')[0]} avail={avail - desc:#x}"
    return "guest memory" if what.startswith("region") else what.strip()


def of_run(world):
    """Run to the end; answers the messages."""
    machine, found = world.machine, []
    while machine.run(1):
        op = machine.arc_at(machine.position - 1).op
        if op.routine.name.endswith(".sendmsg") and op.name == "put":
            found.append(_sent(lambda word: world.cell(f"vhost-user0.draft.{word}")))
        elif op.name == "put_answer":
            name = Request(world.cell("vhost-user0.received.request")).name
            found.append(f"<- {name} {world.cell('vhost-user0.socket.answer'):#x}")
    return found


def _sent(word):
    request, value, queue = Request(word("request")), word("value"), f"queue {word('index')}"
    what = {
        Request.SET_PROTOCOL_FEATURES: f"{value:#x}",
        Request.SET_FEATURES: f"{value:#x}",
        Request.SET_MEM_TABLE: "guest memory",
        Request.SET_VRING_ENABLE: f"{queue} {'on' if value else 'off'}",
        Request.SET_VRING_NUM: f"{queue} num {value}",
        Request.SET_VRING_BASE: f"{queue} base {value:#x}",
        Request.GET_VRING_BASE: queue,
        Request.SET_VRING_ADDR: f"{queue} avail={word('avail') - word('desc'):#x}",
    }.get(request, f"{queue} eventfd" if request in WITH_FD else "")
    fds = int(bool(word("fd")))
    start = f"-> {request.name} flags={word('flags'):#x} size={payload_bytes(request)} fds={fds}"
    return f"{start} {what}".rstrip()
