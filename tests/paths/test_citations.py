"""What a step cites: a function of the real system has one home, and so has the file that is named for it."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections import defaultdict

import pytest
from driving import OUT, Driven

import virtviz.paths
from virtviz.engine.ops import Routine, _specs_of

NOT_FUNCTIONS = {"(hardware)", "(outside)", "main"}
STATIC_IN_TWO_FILES = {("qemu", "receive_filter")}
"""QEMU's e1000 and its virtio-net device each have one of that name."""


def routines():
    for module in pkgutil.walk_packages(virtviz.paths.__path__, "virtviz.paths."):
        importlib.import_module(module.name)
    found, todo = set(), [Routine]
    while todo:
        found.update(more := todo.pop().__subclasses__())
        todo += more
    return found


def test_a_function_is_cited_in_one_file():
    files = defaultdict(set)
    for routine in routines():
        for spec in _specs_of(routine):
            files[spec.source.project, spec.function].add(spec.source.path)
    in_several = {of for of, paths in files.items() if len(paths) > 1 and of[1] not in NOT_FUNCTIONS}
    assert in_several == STATIC_IN_TWO_FILES


@pytest.mark.parametrize(
    ("cpu", "leaves", "port"),
    [("intel", "vmx_handle_exit", "handle_io"), ("amd", "svm_handle_exit", "io_interception")],
)
def test_an_access_to_a_port_is_not_decoded(cpu, leaves, port):
    """The processor itself says which port it was; only of a store to memory KVM reads the instruction."""
    steps = Driven([OUT], {"begin": "power-on", "cpu": cpu} | ({"apicv": "off"} if cpu == "amd" else {})).run().steps()
    after = {
        (step.outcome, following.function) for step, following in itertools.pairwise(steps) if step.function == leaves
    }
    assert after == {("port", "kvm_fast_pio"), ("memory", "x86_emulate_instruction")}
    assert port in {step.function for step in steps}
    stores = {step.function for step in steps if step.title == "store into the configuration space"}
    assert stores == {"pci_data_write"}
