"""Every interleaving of a guest's polling program and its device: a kick can be lost only where one is needed."""

from __future__ import annotations

import pytest
from test_every_interleaving import DEVICE_BARRIER, RECHECK, search, small

DRIVER_BARRIER = "vm1.transmitq1.send_burst/mb_before_kick_check"
DPDK: dict[str, object] = {"guest": "dpdk", "features": [], "napi_tx": "on"}


@pytest.mark.parametrize(
    ("path", "far_port"), [("vhost-net", "dummy"), ("virtio-qemu", "dummy"), ("vhost-user", "nic")]
)
def test_no_interleaving_leaves_a_buffer_behind(path: str, far_port: str):
    found = search(small(2, outgoing=True, path=path, far_port=far_port, **DPDK))
    assert (found.bad, found.complete) == ("", True)


@pytest.mark.parametrize("omit", [RECHECK, DRIVER_BARRIER, DEVICE_BARRIER])
def test_without_the_second_look_or_a_barrier_vhost_net_is_not_told(omit: str):
    found = search(small(2, outgoing=True, omit=[omit], **DPDK))
    assert found.bad == "1 published buffer(s) are never served"


def test_without_its_barrier_the_program_loses_nothing_to_a_device_that_polls():
    found = search(small(2, outgoing=True, path="vhost-user", far_port="nic", omit=[DRIVER_BARRIER], **DPDK))
    assert (found.bad, found.complete) == ("", True)


@pytest.mark.parametrize("path", ["vhost-user", "vhost-net"])
def test_no_interleaving_hides_a_frame_from_a_program_that_polls(path: str):
    found = search(small(1, outgoing=False, path=path, far_port="nic", **DPDK))
    assert (found.bad, found.complete) == ("", True)
