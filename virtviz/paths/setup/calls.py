"""All system calls of a set-up, made once and shared by the threads that make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from virtviz.paths.setup import kvm_calls, tun_calls, vhost_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.setup.kernel_calls import KernelCall
    from virtviz.paths.setup.state import SetUp


class Calls(Struct):
    """What the kernel does in each system call, by its name."""

    open_tun: Routine
    tun_features: Routine
    set_iff: Routine
    get_iff: Routine
    get_header: Routine
    set_header: Routine
    set_offload: Routine
    set_sndbuf: Routine
    set_queue: Routine
    set_steering: Routine
    create_vm: Routine
    create_irqchip: Routine
    create_vcpu: Routine
    set_memory: Routine
    set_routing: Routine
    irqfd: Routine
    ioeventfd: Routine
    port_eventfd: Routine
    vhost: VhostCalls | None


class VhostCalls(Struct):
    """The same for /dev/vhost-net."""

    open: Routine
    set_owner: Routine
    get_features: Routine
    set_call: Routine
    set_err: Routine
    set_features: Routine
    get_backend_features: Routine
    set_backend_features: Routine
    set_mem_table: Routine
    set_num: Routine
    set_base: Routine
    set_addr: Routine
    set_kick: Routine
    set_backend: Routine
    get_base: Routine


def make_calls(setup: SetUp, tap: Place, kvm: Place, vhost: VhostCalls | None) -> Calls:
    """Make the system calls.

    Args:
        setup: what they are about.
        tap: the TUN/TAP driver.
        kvm: KVM as a program calls it.
        vhost: those of vhost-net.
    """
    name = setup.process_name

    def tun(cls: type[KernelCall], what: str) -> Routine:
        return cls(f"{name}.tun.{what}", tap, setup)

    def vm(cls: type[kvm_calls.VmCall], what: str) -> Routine:
        return cls(f"{name}.kvm.{what}", kvm, setup)

    return Calls(
        open_tun=tun(tun_calls.OpenTun, "open"),
        tun_features=tun(tun_calls.GetTunFeatures, "features"),
        set_iff=tun(tun_calls.SetIff, "set_iff"),
        get_iff=tun(tun_calls.GetIff, "get_iff"),
        get_header=tun(tun_calls.GetHeaderLength, "get_header"),
        set_header=tun(tun_calls.SetHeaderLength, "set_header"),
        set_offload=tun(tun_calls.SetOffload, "set_offload"),
        set_sndbuf=tun(tun_calls.SetSndbuf, "set_sndbuf"),
        set_queue=tun(tun_calls.SetQueue, "set_queue"),
        set_steering=tun(tun_calls.SetSteering, "set_steering"),
        create_vm=vm(kvm_calls.CreateVm, "create_vm"),
        create_irqchip=vm(kvm_calls.CreateIrqchip, "create_irqchip"),
        create_vcpu=vm(kvm_calls.CreateVcpu, "create_vcpu"),
        set_memory=vm(kvm_calls.SetMemory, "set_memory"),
        set_routing=vm(kvm_calls.SetRouting, "set_routing"),
        irqfd=vm(kvm_calls.Irqfd, "irqfd"),
        ioeventfd=vm(kvm_calls.Ioeventfd, "ioeventfd"),
        port_eventfd=vm(kvm_calls.PortEventfd, "port_eventfd"),
        vhost=vhost,
    )


def make_vhost_calls(setup: SetUp, place: Place, wakeups: Sequence[Routine]) -> VhostCalls:
    """Make those of vhost-net.

    Args:
        setup: what they are about.
        place: vhost-net.
        wakeups: the callback on the eventfd of each data queue's kick.
    """
    name = f"{setup.process_name}.vhost"
    return VhostCalls(
        open=vhost_calls.OpenVhost(f"{name}.open", place, setup),
        set_owner=vhost_calls.SetOwner(f"{name}.set_owner", place, setup),
        get_features=vhost_calls.GetFeatures(f"{name}.get_features", place, setup),
        set_call=vhost_calls.SetCall(f"{name}.set_call", place, setup),
        set_err=vhost_calls.SetErr(f"{name}.set_err", place, setup),
        set_features=vhost_calls.SetFeatures(f"{name}.set_features", place, setup),
        get_backend_features=vhost_calls.GetBackendFeatures(f"{name}.get_backend_features", place, setup),
        set_backend_features=vhost_calls.SetBackendFeatures(f"{name}.set_backend_features", place, setup),
        set_mem_table=vhost_calls.SetMemTable(f"{name}.set_mem_table", place, setup),
        set_num=vhost_calls.SetNum(f"{name}.set_num", place, setup),
        set_base=vhost_calls.SetBase(f"{name}.set_base", place, setup),
        set_addr=vhost_calls.SetAddr(f"{name}.set_addr", place, setup),
        set_kick=vhost_calls.SetKick(f"{name}.set_kick", place, setup, wakeups),
        set_backend=vhost_calls.SetBackend(f"{name}.set_backend", place, setup),
        get_base=vhost_calls.GetBase(f"{name}.get_base", place, setup),
    )
