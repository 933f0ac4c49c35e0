"""The table of malformed states: it is complete, and each row says what a learner needs."""

from __future__ import annotations

from typing import get_args

import pytest

from virtviz.ring.verdicts import (
    IGNORED,
    NAMES,
    RESET,
    ROWS,
    BackEnd,
    DriverMalformed,
    Malformed,
    NetMalformed,
    Problem,
    is_malformed,
    judge,
    refused_by,
    tell,
    what_of,
)


def test_every_name_has_a_row_and_every_row_a_name():
    names = {*get_args(Malformed), *get_args(NetMalformed), *get_args(DriverMalformed)}
    assert names == set(ROWS)
    assert len(NAMES) == len(names)


@pytest.mark.parametrize("problem", NAMES)
def test_a_row_explains_itself(problem: Problem):
    row = ROWS[problem]
    assert len(row.why) > 60
    assert row.why.endswith(".")
    assert bool(row.message) or row.qemu != RESET, "QEMU says why it gives up"
    assert row.spec == "" or row.spec[0] in "25"


@pytest.mark.parametrize("problem", NAMES)
def test_a_strict_device_lets_nothing_pass_that_another_refuses(problem: Problem):
    others = {what_of(problem, back_end) for back_end in get_args(BackEnd) if back_end != "strict"}
    assert what_of(problem, "strict") == RESET or others == {IGNORED}
    assert refused_by("strict") >= (refused_by("qemu") | refused_by("vhost"))


def test_qemu_says_what_it_saw():
    verdict = judge("head out of range", "qemu", seen=8)
    assert (verdict.what, verdict.message) == ("needs reset", "Guest says index 8 is available")
    verdict = judge("avail.idx jumped", "qemu", seen=0, expected=1)
    assert (verdict.what, verdict.message) == ("needs reset", "Guest moved used index from 1 to 0")


def test_what_is_let_pass_is_a_verdict_too():
    verdict = judge("avail.idx jumped", "qemu", refused=False)
    assert (verdict.what, verdict.message) == ("ignored", "")
    assert verdict.spec == "2.7.6.1"


def test_vhost_stops_until_the_next_kick():
    assert judge("descriptor loop", "vhost").what == "stops until the next kick"


def test_a_rings_good_answers_are_no_problems():
    assert not any(is_malformed(answer) for answer in ("new", "empty", "head", "next", "last", "indirect", "enough"))


def test_a_verdict_is_told_with_what_is_printed_and_why():
    told = tell(judge("head out of range", "qemu", seen=8))
    assert told.startswith("head out of range. Verdict, needs reset: the device serves no queue until it is reset")
    assert "and prints “Guest says index 8 is available”. The available ring names" in told
    assert "and prints nothing. The available" in tell(judge("head out of range", "vhost"))
    assert tell(judge("zero length", "vhost", refused=False)).startswith(
        "zero length. Verdict, ignored: the device goes on. A desc"
    )
