"""A simulation of the recorded world does what the recorded kernels did: the same functions, in the same order, thread
by thread."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from conformance import CASE_OF, COUNTS, DOCUMENT, compare, document, table
from recorded_lines import (
    DATA,
    GUEST_HARDIRQ,
    GUEST_PROCESS,
    GUEST_SOFTIRQ,
    HANDLER,
    HOST_SOFTIRQ,
    MAIN_LOOP,
    PAIR,
    SECOND,
    VCPU,
    WORKER,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMES = list(CASE_OF)
BURST = "vhost-tap-ovs.txburst"
LOGICAL = {
    "GP": GUEST_PROCESS,
    "GH": GUEST_HARDIRQ,
    "GS": GUEST_SOFTIRQ,
    "KV": VCPU,
    "VW": WORKER,
    "QM": MAIN_LOOP,
    "OH": HANDLER,
    "HS": HOST_SOFTIRQ,
}
SEQUENCES = {
    head.split()[1]: (LOGICAL[head.split()[0]], functions.split())
    for head, functions in (line.split(": ", 1) for line in (DATA / "canonical-sequences.txt").read_text().splitlines())
}
OUT = ("virtio-tx", "kick-vhost", "vhost-tx", "tx-irq", "tx-napi")
IN = ("tap-in", "vhost-rx", "rx-irq", "rx-napi")
PAIRS = {"tap-in": "tap-in-mq"}
ACROSS = ("virtio-tx", "kick-vhost", "vm-to-vm-tx", "tx-irq", "tx-napi")
WITHOUT_NAPI = ("virtio-tx-napi-off", "kick-vhost", "vhost-tx-napi-off")
IN_QEMU = {"kick-vhost": "kick-qemu", "vhost-tx": "qemu-tx", "vhost-rx": "qemu-rx"}
WITHOUT_IOEVENTFD = {"kick-vhost": "kick-noioeventfd", "vhost-tx": "qemu-tx-noioeventfd"}
"""What QEMU's own back-end does in place of vhost-net."""
MISS = ["ovs_dp_upcall", "queue_userspace_packet", "skb_zerocopy"]


def test_every_recording_is_compared():
    recorded = {path.name.removesuffix(".txt") for path in DATA.glob("[ve]*.txt")}
    assert recorded == {*NAMES, BURST}


def test_the_table_of_all_cases_is_printed():
    shown = table()
    print(f"\n{shown}")  # noqa: T201 - to be read, with pytest -s
    assert all(name in shown for name in NAMES)
    assert "NO REASON" not in shown


def test_the_page_for_readers_says_what_is_found():
    assert DOCUMENT.read_text(encoding="utf-8") == document()


@pytest.mark.parametrize("name", NAMES)
def test_functions_come_in_the_recorded_order(name):
    found = compare(name)
    assert found.unmatched == {key: count for key, (count, _) in found.case.unmatched.items()}
    assert found.extra == {key: count for key, (count, _) in found.case.extra.items()}


@pytest.mark.parametrize("name", NAMES)
def test_at_least_80_percent_of_the_recorded_functions_are_matched(name):
    assert compare(name).percent >= 80


@pytest.mark.parametrize("name", NAMES)
def test_traced_functions_return_what_they_returned(name):
    found = compare(name)
    assert found.projection.results == found.recording.results


def function_of(key: str) -> str:
    """Give the function that a count is a count of."""
    section, *_, last = key.split(": ")
    if section == "syscalls" and " " in last:
        return ":".join(last.split())
    if section == "syscalls":
        return f"{last}:ret"
    woken = {
        "thread_wakeups: handler": f"wake {HANDLER}",
        "thread_wakeups: CPU 0/KVM": f"wake {VCPU}",
        "thread_wakeups: qemu": f"wake {MAIN_LOOP}",
    }
    return woken.get(key, last.replace("all packet work", "kvm_exit"))


@pytest.mark.parametrize("name", sorted(set(NAMES) & set(COUNTS)))
def test_counts_of_packet_work_are_equal(name):
    found = compare(name)
    assert len(found.counts) >= 40
    for key, (recorded, simulated) in found.unequal.items():
        # What one of the two has in excess are functions that the case lists, each with its reason.
        function = function_of(key)
        excess = sum(n for (_, named), (n, _) in found.case.unmatched.items() if named.startswith(function))
        excess -= sum(n for (_, named), (n, _) in found.case.extra.items() if named.startswith(function))
        assert recorded - simulated == excess, key


def is_subsequence(functions: Sequence[str], lines: Iterable[str]) -> bool:
    """Say whether functions appear in this order; `f*` may be missing, `f:ret` stands for any value."""
    rest = list(lines)
    for function in functions:
        optional = function.endswith("*")
        woken = {"sched_waking:vhost*": "wake vhost worker", "sched_waking:qemu*": "wake QEMU main loop"}
        wanted = woken.get(function, function.rstrip("*"))
        at = next((i for i, line in enumerate(rest) if line == wanted or line.startswith(f"{wanted}=")), -1)
        if at >= 0:
            rest = rest[at + 1 :]
        elif not optional:
            return False
    return True


def sequences_of(name: str) -> list[tuple[str, list[str]]]:
    """Give the canonical sequences that hold for a case."""
    if "napi-tx-off" in name:
        return [SEQUENCES[key] for key in WITHOUT_NAPI]
    if name.startswith("e1000"):
        return _sequences_of_e1000(name)
    if "vm-to-vm" in name:
        received = [SEQUENCES[key] for key in IN[1:]]
        return [SEQUENCES[key] for key in ACROSS] + [(thread + SECOND, functions) for thread, functions in received]
    if "-mq-" in name:
        pair = PAIR if "q1" in name else ""
        found = [SEQUENCES[PAIRS.get(key, key)] for key in (OUT if "tx1" in name else OUT + IN)]
        return [((WORKER if thread == HOST_SOFTIRQ else thread) + pair, functions) for thread, functions in found]
    keys = OUT if "tx1" in name else IN if "rx1" in name else OUT + IN
    instead = WITHOUT_IOEVENTFD if "noioeventfd" in name else IN_QEMU if "virtio-qemu" in name else {}
    found = []
    for key in (instead.get(key, key) for key in keys):
        thread, functions = SEQUENCES[f"{key}-bridge" if "bridge" in name and f"{key}-bridge" in SEQUENCES else key]
        if key == "tap-in":
            thread = HOST_SOFTIRQ if "rx1" in name or "nic" in name else WORKER
        if "first" in name:
            thread, functions = _after_a_miss(key, thread, functions)
        found.append((thread, functions))
    return [*found, SEQUENCES["upcall"]] if "first" in name else found


def _after_a_miss(key: str, thread: str, functions: list[str]) -> tuple[str, list[str]]:
    """Give what a sequence becomes where the flow is not known yet."""
    if key in ("vhost-tx", "qemu-tx", "e1000-tx"):
        back = functions.index("vhost_add_used_and_signal_n" if key == "vhost-tx" else "writev:ret")
        miss = functions.index("ovs_execute_actions")
        return thread, [*functions[:miss], *MISS, *functions[back:]]
    if key == "tap-in":
        return HANDLER, ["ovs_packet_cmd_execute", *functions[functions.index("ovs_execute_actions") :]]
    return thread, functions


def _sequences_of_e1000(name: str) -> list[tuple[str, list[str]]]:
    """Give the same for an emulated card."""
    if "ping-hit" in name:
        # The answer comes inside the writev(), and raises no line of its own.
        return [SEQUENCES["e1000-tx"], (VCPU, SEQUENCES["tap-in"][1]), SEQUENCES["e1000-rx-napi"]]
    keys = ["e1000-tx"] if "tx1" in name else ["tap-in", "e1000-rx", "e1000-rx-napi"]
    if name.endswith("ping-first"):
        # The line is raised by the timer, when the TAP has been emptied.
        keys.remove("e1000-rx")
    if "ping" in name:
        keys.insert(0, "e1000-tx")
    found = [(key, *SEQUENCES[key]) for key in keys]
    if "first" not in name:
        return [(HOST_SOFTIRQ if key == "tap-in" else thread, functions) for key, thread, functions in found]
    return [*(_after_a_miss(*sequence) for sequence in found), SEQUENCES["upcall"]]


@pytest.mark.parametrize("name", NAMES)
def test_canonical_sequences_are_subsequences(name):
    found = compare(name)
    for thread, functions in sequences_of(name):
        assert is_subsequence(functions, found.recording.threads[thread]), ("recorded", thread, functions)
        assert is_subsequence(functions, found.projection.threads[thread]), ("simulated", thread, functions)


BETWEEN_THREADS = (
    ("vp_notify", "kvm_exit:npf", "ioeventfd_write", "handle_tx_kick"),
    ("vp_notify", "kvm_exit:npf", "ioeventfd_write", "read:eventfd"),
    ("kvm_userspace_exit", "write:eventfd", "read:eventfd"),
    ("tun_net_xmit", "handle_rx_net"),
    ("tun_net_xmit", "read:tap"),
    ("kvm_vcpu_kick", "kvm_inj_virq", "irq_handler_entry"),
    ("kvm_userspace_exit", "writev:tap"),
    ("e1000_intr", "e1000_clean"),
    ("skb_xmit_done", "virtnet_poll_tx"),
    ("skb_recv_done", "virtnet_poll"),
    ("queue_userspace_packet", "poll:ret=1", "recvmsg:ret=data", "ovs_packet_cmd_execute"),
)


def without_answers(lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out what a handler reads in answer to a question of its own: it is no upcall."""
    kept, before = [], ""
    for thread, function in lines:
        if thread == HANDLER and ":ret" in function:
            if (before, function) == ("sendmsg:ret=data", "recvmsg:ret=data"):
                continue
            before = function
        kept.append((thread, function))
    return kept


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", BETWEEN_THREADS, ids=" < ".join)
def test_what_one_thread_causes_in_another_comes_later(name, order):
    found = compare(name)
    for lines in (found.recording.lines, found.projection.lines):
        guest_side = (
            {GUEST_HARDIRQ, GUEST_HARDIRQ + SECOND, GUEST_HARDIRQ + PAIR} if "irq_handler_entry" in order else set()
        )
        names = [f for thread, f in without_answers(lines) if f != "irq_handler_entry" or thread in guest_side]
        present = [f for f in order if f in names]
        for before, after in itertools.pairwise(present):
            causes, consequences = ([i for i, f in enumerate(names) if f == wanted] for wanted in (before, after))
            # The n-th consequence has n causes before it; two causes may have one consequence.
            assert all(causes[n] < at for n, at in enumerate(consequences) if n < len(causes)), (before, after)


@pytest.mark.parametrize("name", [n for n in NAMES if "rx1" not in n and "napi-tx-off" not in n and "e1000" not in n])
def test_a_buffer_is_taken_back_only_after_it_was_returned(name):
    found = compare(name)
    for lines in (found.recording.lines, found.projection.lines):
        wanted = {thread + pair for thread in (WORKER, MAIN_LOOP, GUEST_SOFTIRQ) for pair in ("", PAIR)}
        names = [f for thread, f in lines if thread in wanted]
        # QEMU returns it in memory alone; that it has is seen from the interrupt it asks for.
        returned = "ioctl:KVM_SIGNAL_MSI" if "virtio-qemu" in name else "vhost_add_used_n"
        assert names.index(returned) < names.index("virtqueue_get_buf")
