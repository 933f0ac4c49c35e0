"""Project a simulated run to the functions that a tracer would have seen on the recorded kernels (Linux 6.1, AMD).

One row of `LINES` an op: what is traced while the op runs. An op without a row has no line of its own: it is inlined, a
plain access to memory, or outside the tracer's list. `thread_of` says which logical thread it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recorded_lines import (
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

from virtviz.engine.program import BLOCK, KIND_MASK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from virtviz.engine.trace import Step, Trace

XMIT = ["{virtio}dev_hard_start_xmit", "{virtio}start_xmit"]
WAKEUP = ["vhost_poll_wakeup", "vhost_work_queue"]
CLEAN = ["virtqueue_disable_cb", "free_old_xmit_skbs"]
OUTPUT = ["ovs_execute_actions", "do_output", "ovs_vport_send", "__dev_queue_xmit"]
TAP = ["sch_direct_xmit", "dev_hard_start_xmit", "tun_net_xmit"]
UPCALL = ["queue_userspace_packet", "skb_zerocopy"]
INJECT = ["svm_inject_irq", "kvm_inj_virq", "kvm_entry"]
READ_TAP = ["tun_chr_read_iter", "tun_do_read"]
TO_QEMU = ["kvm_userspace_exit", "ioctl:ret=0", "QEMU kvm_run_exit"]
RECEIVE = ["skb_copy_datagram_iter", "recvmsg:ret=data"]

LINES: dict[str, list[str] | dict[str, list[str]]] = {
    # G-TX
    "Sendmsg.enqueue": {"bypass": XMIT},
    "RunQueue.dequeue": {"next": XMIT},
    "StartXmit.disable_callbacks": CLEAN,
    "StartXmitWithoutNapi.begin": ["free_old_xmit_skbs"],
    "Reclaim.read_used_idx": ["virtqueue_get_buf"],
    "StartXmit.enable_callbacks_delayed": {"asked": ["virtqueue_enable_cb_delayed"]},
    "AddBuffer.write_desc": ["virtqueue_add_outbuf"],
    "Xmit.check_kick": ["virtqueue_kick_prepare"],
    "Notify.kick": ["virtqueue_notify", "vp_notify"],
    # KICK
    "HandleKickAmd.exit_npf": ["kvm_exit:npf"],
    "HandleKickAmd.emulate": ["x86_emulate_instruction", "kvm_mmio"],
    "HandleKickAmd.find_ioeventfd": ["kvm_io_bus_write"],
    "HandleKick.signal_eventfd": ["ioeventfd_write", "eventfd_signal"],
    "PollWakeup.queue_work": WAKEUP,
    "PollWakeup.wake_worker": {"woke": ["wake vhost worker"]},
    "ServeTap.wake_worker": {"woke": ["wake vhost worker"]},
    "EnterGuest.vm_entry": {"entered": ["kvm_entry"], "injected": INJECT, "window": ["kvm_entry"]},
    # KICK without ioeventfd, and what QEMU's vCPU thread does then
    "HeavyKickAmd.exit_npf": ["kvm_exit:npf"],
    "HeavyKick.emulate": ["x86_emulate_instruction", "kvm_mmio"],
    "HeavyKick.find_nobody": ["kvm_io_bus_write"],
    "HeavyKick.return_to_qemu": ["kvm_userspace_exit", "ioctl:ret=0", "QEMU kvm_run_exit"],
    "HandleMmio.find_queue": ["QEMU virtio_pci_notify_write"],
    "TellsMainLoop.notify": {"asleep": ["write:eventfd"]},
    "WriteEventfd.write": ["eventfd_write"],
    "WriteEventfd.finish": ["write:ret=data"],
    "HandleMmio.release_lock": ["ioctl:KVM_RUN"],
    # (a) e1000: KVM, QEMU's vCPU thread, the interrupt line, the guest
    "LeaveForDeviceAmd.exit_npf": ["kvm_exit:npf"],
    "LeaveForDevice.emulate": ["x86_emulate_instruction", "kvm_mmio"],
    "StoreInQemu.find_nobody": ["kvm_io_bus_write"],
    "StoreInQemu.return_to_qemu": TO_QEMU,
    "LoadInQemu.return_to_qemu": TO_QEMU,
    "LoadInQemu.complete": ["x86_emulate_instruction", "kvm_mmio"],
    "StoreLater.park": ["kvm_io_bus_write"],
    "ServeAccess.catch_up": {"parked": ["QEMU memory_region_ops_write"]},
    "ServeAccess.dispatch": ["QEMU memory_region_ops_write"],
    "ServeAccess.release_lock": ["ioctl:KVM_RUN"],
    "ServeLoad.dispatch": [],
    "ServeLoad.release_lock": ["QEMU memory_region_ops_read", "ioctl:KVM_RUN"],
    "SendRing.send": ["writev:tap"],
    "UpdateLine.notify": {"asleep": ["write:eventfd"]},
    "TellKvm.tell": ["ioctl:KVM_IRQ_LINE_STATUS"],
    "TellKvmQ35.tell_pic": ["ioctl:KVM_IRQ_LINE_STATUS"],
    "TellKvmQ35.tell_ioapic": ["ioctl:KVM_IRQ_LINE_STATUS"],
    "IrqLine.take_level": ["kvm_vm_ioctl_irq_line", "kvm_set_irq"],
    "IrqLine.finish": ["kvm_ioapic_set_irq", "ioctl:ret=0"],
    "OtherIrqLine.take_level": ["kvm_vm_ioctl_irq_line", "kvm_set_irq"],
    "OtherIrqLine.finish": ["kvm_ioapic_set_irq", "ioctl:ret=0"],
    "ReadTmr.exit_msr": ["kvm_exit:msr", "kvm_msr"],
    "LevelEoiByMsr.exit_msr": ["kvm_exit:msr"],
    "LevelEoi.update_pin": ["kvm_ack_irq", "kvm_msr"],
    "PpollUntil.wait": {
        "ready": ["ppoll:ret=1"],
        "frame": ["ppoll:ret=1"],
        "both": ["ppoll:ret=data"],
        "timeout": ["ppoll:ret=0"],
    },
    "PpollAtOnce.look": {"nothing": ["ppoll:ret=0"], "ready": ["ppoll:ret=1"], "both": ["ppoll:ret=data"]},
    "XmitFrame.pad": ["e1000_xmit_frame"],
    "Interrupt.read_icr": ["irq_handler_entry", "e1000_intr"],
    "Poll.begin": ["e1000_clean"],
    "Poll.end_of_sent": ["e1000_clean_rx_irq"],
    "RefillRing.begin": {"buffers": ["e1000_alloc_rx_buffers"]},
    "Poll.finish": {"complete": ["napi_complete_done"]},
    # Q-TX
    "WakePoller.wake_main_loop": {"woke": ["wake QEMU main loop"]},
    "PpollWait.wait": {"ready": ["ppoll:ret=1"], "frame": ["ppoll:ret=1"]},
    "PpollNow.look": {"nothing": ["ppoll:ret=0"], "ready": ["ppoll:ret=1"]},
    "MainLoop.next_handler": {
        "sleep": ["ppoll:enter"],
        "sleep, TAP empty": ["ppoll:enter"],
        "no time to wait": ["ppoll:enter"],
    },
    "ReadKick.read_kick": ["read:eventfd"],
    "ReadOwnEventfd.read_own": ["read:eventfd"],
    "ReadEventfd.read": ["eventfd_read", "read:ret=data"],
    "ServeTxKick.note_kick": ["QEMU virtio_queue_notify"],
    "SendQueued.read_desc": {"last": ["QEMU virtqueue_pop"]},
    "SendQueued.send": ["writev:tap"],
    "TapWrite.copy_packet": {"copied": ["tun_chr_write_iter", "tun_get_user"]},
    "TapWrite.hand_up": ["netif_receive_skb"],
    "TapWrite.finish": ["writev:ret=data"],
    "SendQueued.write_used": ["QEMU virtqueue_fill"],
    "SendQueued.publish_used_idx": ["QEMU virtqueue_flush"],
    "SendQueued.signal": ["QEMU virtio_notify", "ioctl:KVM_SIGNAL_MSI"],
    "SignalMsi.send_msi": ["kvm_send_userspace_msi", "kvm_set_msi", "kvm_msi_set_irq"],
    "SignalMsi.finish": ["ioctl:ret=1"],
    # Q-RX
    "ReadTap.begin": ["read:tap"],
    "ReadTap.count": {"more": ["read:tap"]},
    "TapRead.read": {
        "copied": [*READ_TAP, "skb_copy_datagram_iter", "read:ret=data"],
        "EAGAIN": [*READ_TAP, "read:ret=-11"],
    },
    "Deliver.read_desc": {"last": ["QEMU virtqueue_pop"]},
    "Deliver.write_used": ["QEMU virtqueue_fill"],
    "Deliver.publish_used_idx": ["QEMU virtqueue_flush"],
    "Deliver.signal": ["QEMU virtio_notify", "ioctl:KVM_SIGNAL_MSI"],
    # V-TX
    "WorkerLoop.next_work": {
        "handle_tx_kick": ["handle_tx_kick", "handle_tx"],
        "handle_rx_kick": ["handle_rx_kick", "handle_rx"],
        "handle_rx_net": ["handle_rx_net", "handle_rx"],
    },
    "HandleTx.disable_kicks": ["vhost_disable_notify"],
    "HandleTx.stop_watching_tap": ["vhost_poll_stop", "handle_tx_copy"],
    "HandleTx.read_avail_idx": ["vhost_get_vq_desc"],
    "HandleTx.enable_kicks": ["vhost_enable_notify"],
    "HandleTx.disable_again": ["vhost_disable_notify"],
    "FlushTx.send_batch": {"batch": ["tun_sendmsg"]},
    "TapSendmsg.next_frame": {"frame": ["netif_receive_skb"], "last frame": ["netif_receive_skb"]},
    "TapSendmsgOnQueue.update_flow": ["tun_flow_update"],
    "ReturnBuffers.write_used": {"written": ["vhost_add_used_and_signal_n", "vhost_add_used_n"]},
    "ReturnBuffers.signal_call": ["eventfd_signal"],
    # IRQ
    "Irqfd.irqfd_wakeup": ["irqfd_wakeup"],
    "Irqfd.route_msi": ["kvm_arch_set_irq_inatomic", "kvm_msi_set_irq"],
    "KickedMsi.deliver": ["kvm_apic_accept_irq", "svm_deliver_interrupt"],
    "KickedMsi.kick_vcpu": ["kvm_vcpu_kick"],
    "KickedMsi.kick_again": ["kvm_vcpu_kick"],
    "MsiDelivery.wake_vcpu": {"woke": ["wake vCPU thread"]},
    "LeaveForInterrupt.leave_guest": {"ipi": ["kvm_exit:interrupt"], "window": ["kvm_exit:vintr"]},
    "EoiExit.exit_msr": ["kvm_exit:msr", "kvm_msr"],
    "HaltVcpu.exit_hlt": ["kvm_exit:hlt"],
    "HaltVcpu.sleep": {
        "sleep": ["kvm_vcpu_halt", "kvm_vcpu_block"],
        "pending": ["kvm_vcpu_halt", "kvm_vcpu_block", "kvm_vcpu_wakeup"],
    },
    "TransmitDone.vring_interrupt": ["irq_handler_entry", "vring_interrupt"],
    "ReceiveDone.vring_interrupt": ["irq_handler_entry", "vring_interrupt"],
    "TakeInterrupt.irq_exit": {"softirq": ["softirq_entry"]},
    "Sendmsg.return_to_user": {"softirq": ["softirq_entry"]},
    # G-TXC
    "TransmitDone.schedule_poll": {
        "scheduled": ["skb_xmit_done", "virtqueue_disable_cb", "virtqueue_disable_cb"],
        "scheduled already": ["skb_xmit_done", "virtqueue_disable_cb"],
    },
    "PollTransmit.disable_again": ["virtqueue_disable_cb"],
    "PollTransmit.disable_callbacks": ["virtnet_poll_tx", *CLEAN],
    "PollTransmit.enable_callbacks": ["virtqueue_enable_cb_prepare"],
    "PollTransmit.leave_poll_list": ["napi_complete_done"],
    "PollTransmit.last_look": ["virtqueue_poll"],
    # O-FWD, with Open vSwitch and with a bridge, O-MISS
    "Receive.enter": ["netdev_frame_hook"],
    "Receive.extract_key": ["ovs_vport_receive"],
    "Receive.look_up": ["ovs_dp_process_packet", "ovs_flow_tbl_lookup_stats"],
    "Execute.next_action": OUTPUT,
    "Upcall.begin": ["ovs_dp_upcall"],
    "Upcall.copy_packet": UPCALL,
    "WakeHandler.wake_handler": {"woke": ["wake OVS handler"]},
    "PollWait.wait": {"ready": ["poll:ret=1"]},
    "PollNow.answer": ["poll:ret=0"],
    "HandlerLoop.sleep": ["poll:enter"],
    "HandlerLoop.check_latch": ["poll:enter"],
    "HandlerLoop.first_receive": ["recvmsg:enter"],
    "HandlerLoop.next_receive": {"again": ["recvmsg:enter"], "sleep": ["poll:enter"]},
    "NetlinkReceive.receive": {"copied": RECEIVE, "EAGAIN": ["recvmsg:ret=-11"]},
    "HandlerLoop.queue_operations": {"stale": ["sendmsg:enter"]},
    "AskFlowCount.ask": ["sendmsg:ret=data"],
    "HandlerLoop.read_flow_count": ["recvmsg:enter"],
    "ReadFlowCount.read": RECEIVE,
    "HandlerLoop.send_operations": ["sendmsg:enter"],
    "Operate.install_flow": {
        "installed": ["ovs_flow_cmd_new"],
        "message done": ["sendmsg:ret=data"],
        "done": ["sendmsg:ret=data"],
    },
    "Operate.rebuild_packet": ["ovs_packet_cmd_execute"],
    "HandlerLoop.check_errors": ["recvmsg:enter"],
    "DrainErrors.drain": ["recvmsg:ret=-11"],
    "HandlerLoop.look_again": {"round": ["poll:enter"], "more operations": ["sendmsg:enter"]},
    "BridgeFrame.enter": {"frame": ["br_handle_frame"]},
    "BridgeFrame.learn": ["br_handle_frame_finish", "br_fdb_update"],
    "BridgeFrame.forward": ["br_forward"],
    "BridgeFrame.push_xmit": ["br_dev_queue_push_xmit", "__dev_queue_xmit"],
    # NIC-TX, N-IN
    "VethXmit.veth_xmit": ["dev_hard_start_xmit", "veth_xmit"],
    "NicXmit.queue_xmit": {"direct": ["sch_direct_xmit", "dev_hard_start_xmit", "e1000_xmit_frame"]},
    "VethXmitBack.veth_xmit": [],
    "ProcessBacklog.begin": ["softirq_entry", "process_backlog"],
    "NicPoll.hard_interrupt": ["irq_handler_entry", "e1000_intr"],
    "NicPoll.clean_tx": ["softirq_entry", "e1000_clean"],
    "NicPoll.complete": {"frame": ["netif_receive_skb_list_internal"]},
    "TapSelectQueue.select_queue": ["tun_select_queue"],
    "TapXmit.net_xmit": TAP,
    # V-RX
    "HandleRx.disable_kicks": ["vhost_disable_notify"],
    "HandleRx.stop_watching_tap": ["vhost_poll_stop"],
    "HandleRx.read_avail_idx": ["vhost_get_vq_desc"],
    "HandleRx.copy_packet": ["tun_recvmsg", "tun_do_read", "skb_copy_datagram_iter"],
    "HandleRx.watch_tap": ["vhost_poll_start"],
    "HandleRx.enable_kicks": ["vhost_enable_notify"],
    # G-RX
    "ReceiveDone.schedule_poll": {
        "scheduled": ["skb_recv_done", "virtqueue_disable_cb"],
        "scheduled already": ["skb_recv_done"],
    },
    "PollReceive.disable_again": ["virtqueue_disable_cb"],
    "CleanTransmit.disable_callbacks": ["virtnet_poll", *CLEAN],
    "CleanTransmit.enable_callbacks_delayed": ["virtqueue_enable_cb_delayed"],
    "PollReceive.read_used_idx": {
        "more": ["virtqueue_get_buf_ctx"],
        "none": ["virtqueue_get_buf_ctx"],
        "refill": ["virtqueue_get_buf_ctx", "try_fill_recv"],
    },
    "PollReceive.build_skb": ["receive_buf"],
    "Refill.post_buffer": {"written": ["virtqueue_add_inbuf_ctx"]},
    "Refill.check_kick": ["virtqueue_kick_prepare"],
    "PollReceive.enable_callbacks": ["virtqueue_enable_cb_prepare"],
    "PollReceive.complete": ["napi_complete_done"],
    "Deliver.next_packet": {"packet": ["{protocol}_rcv"]},
    "Deliver.queue_on_socket": ["{socket}"],
    "PollReceive.last_look": ["virtqueue_poll"],
}
"""`Routine.op` -> the lines of the op, or of each outcome that has some."""

RESULTS: dict[str, dict[str, tuple[str, str]]] = {
    "HandleTx.read_avail_idx": {"known": ("vgd", "head"), "new": ("vgd", "head"), "empty": ("vgd", "empty")},
    "HandleRx.read_avail_idx": {"known": ("vgd", "head"), "new": ("vgd", "head"), "empty": ("vgd", "empty")},
    "HandleTx.recheck_avail_idx": {"still empty": ("ven", "0"), "more": ("ven", "1")},
    "Xmit.check_kick": {"kick": ("kp_prep", "1"), "no kick": ("kp_prep", "0")},
    "StartXmit.recheck_used_idx": {"enough": ("cbdelayed", "1"), "too late": ("cbdelayed", "0")},
    "CleanTransmit.recheck": {
        "enough": ("cbdelayed", "1"),
        "opened": ("cbdelayed", "1"),
        "too late": ("cbdelayed", "0"),
    },
    "PollTransmit.last_look": {"nothing": ("vqpoll", "0"), "more": ("vqpoll", "1")},
    "PollReceive.last_look": {"nothing": ("vqpoll", "0"), "more": ("vqpoll", "1")},
    "PollReceive.read_used_idx": {"more": ("getbuf", "buffer"), "none": ("getbuf", "0"), "refill": ("getbuf", "0")},
    "Irqfd.route_msi": {"done": ("inatomic", "1")},
}
"""What a traced function returned, by outcome."""

NOT_TRACED = "-"
HOST_ROUTINES_OF_THE_VCPU = ("HandleKick", "EnterGuest", "LeaveForInterrupt", "EoiExit", "HaltVcpu", "PollWakeup")


@dataclass(slots=True)
class Projection:
    """A projected run: functions by logical thread, values by result name, and the lines of all threads in the order of
    the steps."""

    threads: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)

    def count(self, function: str) -> int:
        """Count a function over all threads."""
        return sum(name == function for _, name in self.lines)


def project(trace: Trace, begin: int, protocol: str, begins_with: str, *, qemu_events: bool = False) -> Projection:
    """Project a run that has happened.

    Args:
        trace: its steps.
        begin: the position at which the recorded packet set out.
        protocol: `udp` or `icmp`: the name of the handler that a received packet comes to.
        begins_with: the line at which the recorded window begins; what a simulation did before it is left out.
        qemu_events: QEMU's own events were recorded too.
    """
    projection = Projection()
    hidden = NOT_TRACED if qemu_events else (NOT_TRACED, "QEMU ")
    switches = _Switches(thread.name for thread in trace.machine.threads if thread.kind != "vcpu")
    # What a ping's packet is queued by is traced; UDP's counterpart is not.
    words = {"protocol": protocol, "socket": "ping_rcv" if protocol == "icmp" else ""}
    # Not traced where the driver is another one.
    has_virtio = any(type(op.routine).__name__.startswith("StartXmit") for op in trace.machine.program.ops)
    words["virtio"] = "" if has_virtio else NOT_TRACED
    began = False
    for n in range(1, len(trace) + 1):
        step, arc = trace.step(n), trace.machine.arc_at(n - 1)
        where = thread_of(step, type(arc.op.routine).__name__)
        woken = next((second(effect.target) for effect in step.effects if effect.target), "")
        lines = [name.format_map(words) + woken * name.startswith("wake ") for name in _lines(arc.op.routine, step)]
        lines = switches.around(step, where, lines, sleeps=arc.kind & KIND_MASK == BLOCK)
        if not began and n > begin and begins_with in lines:
            began = True
            lines = lines[lines.index(begins_with) :]
        if began:
            wanted = [name for name in lines if name and not name.startswith(hidden)]
            projection.lines += [(where, name) for name in wanted]
            for name, value in _results(arc.op.routine, step):
                projection.results.setdefault(name, []).append(value)
    for where, name in projection.lines:
        projection.threads.setdefault(where, []).append(name)
    return projection


class _Switches:
    """Adds what the scheduler's tracepoints say when a host thread goes to sleep and runs again."""

    def __init__(self, asleep: Iterable[str]) -> None:
        self.asleep = set(asleep)

    def around(self, step: Step, where: str, lines: list[str], *, sleeps: bool) -> list[str]:
        """Put the switches before and after a step's lines."""
        wakes = step.thread in self.asleep
        self.asleep.discard(step.thread)
        if sleeps:
            self.asleep.add(step.thread)
        if where == HOST_SOFTIRQ:
            return lines
        before = ["switch in"] if wakes else []
        if wakes and where.startswith(VCPU):
            before.append("kvm_vcpu_wakeup")
        return [*before, *lines, *(["switch out"] if sleeps else [])]


def second(thread: str) -> str:
    """Give what stands behind a logical thread of the second virtual machine, or of the second queue pair."""
    if thread.startswith("vm2.") or thread.endswith("-4012"):
        return SECOND
    return PAIR if thread.endswith((".vcpu1", ".q2")) else ""


def thread_of(step: Step, routine: str) -> str:
    """Say which logical thread a step belongs to: guest lines by what the CPU is doing, host lines by the thread."""
    return _thread_of(step, routine) + second(step.thread)


def _thread_of(step: Step, routine: str) -> str:
    if step.thread.startswith("vhost-"):
        return WORKER
    if step.thread.startswith("qemu-"):
        return MAIN_LOOP
    if step.thread.startswith("handler"):
        return HANDLER
    if ".vcpu" not in step.thread:
        return HOST_SOFTIRQ
    if step.domain.startswith("host") or routine == "LeaveForInterrupt":
        return VCPU
    if routine.removesuffix("ThenWork").startswith(("Take", "Sendmsg")) and step.outcome == "softirq":
        return GUEST_SOFTIRQ
    return {"process": GUEST_PROCESS, "softirq": GUEST_SOFTIRQ, "hardirq": GUEST_HARDIRQ}[step.context]


def _lines(routine: object, step: Step) -> list[str]:
    for base in type(routine).__mro__:
        found = LINES.get(f"{base.__name__}.{step.op}")
        if found is not None:
            return found.get(step.outcome, []) if isinstance(found, dict) else found
    return []


def _results(routine: object, step: Step) -> list[tuple[str, str]]:
    for base in type(routine).__mro__:
        found = RESULTS.get(f"{base.__name__}.{step.op}")
        if found is not None:
            return [found[step.outcome]] if step.outcome in found else []
    return []
