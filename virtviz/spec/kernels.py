"""What functions are called in the kernels a world can be set to, where the tables cite another version."""

from __future__ import annotations

from typing import Final

from virtviz.spec.citation import Source, linux

VIRTIO_NET = linux("drivers/net/virtio_net.c", "6.1")
VHOST = linux("drivers/vhost/vhost.c", "6.1")

_BEFORE_TASKS: Final[dict[str, tuple[str, Source]]] = {
    # Before 6.4 the worker is a kernel thread of its own, woken by wake_up_process.
    "vhost_run_work_list": ("vhost_worker", VHOST),
    "vhost_task_wake": ("vhost_work_queue", VHOST),
}
RENAMED: Final[dict[str, dict[str, tuple[str, Source]]]] = {
    "6.12": {},
    "6.4": {
        # The work list has a function of its own since 6.10 only.
        "vhost_run_work_list": ("vhost_worker", linux("drivers/vhost/vhost.c", "6.4")),
        "handle_softirqs": ("__do_softirq", linux("kernel/softirq.c", "6.4")),
    },
    "6.3": {**_BEFORE_TASKS, "handle_softirqs": ("__do_softirq", linux("kernel/softirq.c", "6.3"))},
    "6.1": {
        **_BEFORE_TASKS,
        "free_old_xmit": ("free_old_xmit_skbs", VIRTIO_NET),
        "check_sq_full_and_disable": ("start_xmit", VIRTIO_NET),
        # No byte queue limits in virtio-net: the driver asks netdev_xmit_more itself.
        "__netdev_tx_sent_queue": ("start_xmit", VIRTIO_NET),
        "virtnet_skb_append_frag": ("receive_mergeable", VIRTIO_NET),
        "handle_softirqs": ("__do_softirq", linux("kernel/softirq.c", "6.1")),
    },
}
"""Version -> function of Linux 6.12 -> the one that does the same there."""

TASKS_SINCE: Final = (6, 4)
"""Since then vhost's worker is a vhost_task: a thread of QEMU's process that never leaves the kernel. Before, it is a
kernel thread (kthread) that only uses that process's memory."""


def what_a_worker_is(kernel: str) -> str:
    """Say what vhost's worker is under a kernel of that version."""
    if tuple(map(int, kernel.split("."))) >= TASKS_SINCE:
        return "a thread of QEMU's process that never leaves the kernel (vhost_task)"
    return "a kernel thread of its own (kthread)"
