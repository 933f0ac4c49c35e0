"""However a trace file is damaged: it is read back, or it is refused with a line; nothing else happens."""

import random
import re

import pytest

from virtviz.errors import TraceFileError
from virtviz.export.replay import Replay

NUMBERS = ("0", "1", "-1", "7", "65535", "18446744073709551615", "18446744073709551616", "1e3", "1.5", "null", '"00"')


def change_a_number(random_, line):
    spots = list(re.finditer(r"(?<![\w.])\d+(?![\w.])", line))
    spot = random_.choice(spots)
    return line[: spot.start()] + random_.choice(NUMBERS) + line[spot.end() :]


def change_a_text(random_, line):
    spot = random_.choice(list(re.finditer(r'"[^"]*"', line)))
    other = random_.choice(list(re.finditer(r'"[^"]*"', line)))
    return line[: spot.start()] + other.group() + line[spot.end() :]


def take_out_a_stretch(random_, line):
    start = random_.randrange(len(line))
    return line[:start] + line[start + random_.randrange(1, 40) :]


def change_a_byte(random_, line):
    at = random_.randrange(len(line))
    return line[:at] + chr(random_.randrange(256)) + line[at + 1 :]


@pytest.mark.parametrize("tries", [25, pytest.param(2000, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("damage", [change_a_number, change_a_text, take_out_a_stretch, change_a_byte])
def test_a_damaged_trace_is_read_or_refused_with_a_line(ping, damage, tries):
    random_ = random.Random(f"{damage.__name__} {tries}")
    lines = ping.text.splitlines()
    refused = []
    for _ in range(tries):
        at = random_.choice([0, len(lines) - 1, random_.randrange(1, len(lines) - 1)])
        damaged = [*lines[:at], damage(random_, lines[at]), *lines[at + 1 :]]
        try:
            replay = Replay("\n".join([*damaged, ""]).encode("latin-1", "replace"), "t.jsonl")
            replay.cell(replay.length, next(iter(replay.initial.cells)))
            replay.cell(0, next(iter(replay.initial.cells)))
        except TraceFileError as error:
            refused.append(str(error))
    assert refused
    assert all(re.match(r"t\.jsonl:\d+: .", message) for message in refused)
