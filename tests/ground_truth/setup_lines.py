"""Recorded set-ups as lists of lines, and runs from power-on as lists of the same form.

A line says who did what: `qemu` (QEMU's main thread), `vcpu`, `vcpu1` or `vhost` (all workers have one name), and the
system call or the guest's store. What
is left out of a recording stands in `LEFT_OUT`, each with its reason. Addresses are replaced by what they are addresses
of, because two kernels put their rings at different places: `desc of 0` is where the guest said that queue 0's
descriptors are, and `QEMU's desc of 0` is the same in QEMU's memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from virtviz.paths.setup.registers import BAR1, BAR4, COMMON_NAMES

DATA = Path(__file__).parent / "data"
THREADS = {"qemu-system-x86": "qemu", "CPU 0/KVM": "vcpu", "CPU 1/KVM": "vcpu1"}

MACHINE = "concerns the machine as a whole, not its network"
LEFT_OUT = {
    r"QEMU trace:": "says again what the next line says",
    r"KVM_GET_API_VERSION|KVM_ENABLE_CAP|KVM_SET_IDENTITY_MAP_ADDR|KVM_SET_TSS_ADDR|KVM_X86_SET_MSR_FILTER": MACHINE,
    r"KVM_GET_VCPU_MMAP_SIZE|KVM_[GS]ET_CLOCK|KVM_(UN)?REGISTER_COALESCED_MMIO|KVM_(CREATE|SET)_PIT2": MACHINE,
    r"KVM_SET_IRQCHIP": MACHINE,
    r"KVM_IOEVENTFD addr=0x0 ": "a test of how many ioeventfds KVM allows, which later versions of QEMU do not make",
    r"notify region \+0x8 = 2": "commands over the control queue; how many, a guest's own scripts decide",
    r"CPU 1/KVM .* notify region \+0x10 = 4": "the same where the scripts happened to run on the other CPU",
}
"""Pattern of recorded lines -> why no line of a run stands for them."""
MOVED = {"setup-vhost-mq": ("addr=0xc010 len=2", "addr=0xc050 len=2")}
"""Case -> what firmware put elsewhere on that machine than on the others, as recorded and as here: a port."""
USED_BEFORE = {"setup-vhost-mq": {"tap0.netdev.hdr_bytes": 12}}
"""Case -> cells that something earlier had changed: this TAP, made to stay, had been another guest's."""
REPEATED = "KVM_SET_USER_MEMORY_REGION"
"""The map of guest memory changes many times while firmware finds its way; a run maps it once."""
_LINE = re.compile(r"\s*[\d.]+ ms  (?P<thread>\S.{15}) (?P<what>\s*\S.*)")
_TIMES = re.compile(r"\.\.\. the line above (\d+) times in a row")
_SOURCE = re.compile(r"(tun fd|vhost-net fd|kvm vm fd|/dev/kvm fd|guest write|vhost thread):\s+")


@dataclass(frozen=True)
class SetupLine:
    """Who did what."""

    thread: str
    what: str


def recorded(case: str) -> list[SetupLine]:
    """Read a recorded set-up, without what is left out."""
    found: list[SetupLine] = []
    seen_memory = dropped = False
    for text in (DATA / f"{case}.txt").read_text().splitlines():
        if text.startswith("#"):
            continue
        times = _TIMES.search(text)
        if times:
            if found and not dropped:
                found += [found[-1]] * (int(times[1]) - 1)
            continue
        match = _LINE.match(text)
        assert match, text
        what = _SOURCE.sub("", match["what"].strip()).replace(*MOVED.get(case, ("", "")))
        dropped = any(re.search(pattern, text) for pattern in LEFT_OUT)
        if what == REPEATED:
            dropped, seen_memory = seen_memory, True
        if not dropped:
            thread = match["thread"].strip()
            found.append(SetupLine(THREADS.get(thread, "vhost"), what))
    return _by_meaning(found)


_FIELDS = {"queue_desc": "desc", "queue_driver(avail)": "avail", "queue_device(used)": "used"}


def _by_meaning(lines: list[SetupLine]) -> list[SetupLine]:
    """Replace addresses of rings by what they are the addresses of, and QEMU's addresses likewise."""
    queue, meaning = 0, {}
    base = None
    done = []
    for line in lines:
        what = line.what
        if match := re.fullmatch(r"common_cfg\.queue_select = 0x(\d+)", what):
            queue = int(match[1])
        if match := re.fullmatch(r"common_cfg\.(queue_.*)_lo = (0x[0-9a-f]+)", what):
            name = f"{_FIELDS[match[1]]} of {queue}"
            meaning[int(match[2], 16)] = name
            what = f"common_cfg.{match[1]}_lo = {name}"
        if match := re.fullmatch(
            r"VHOST_SET_VRING_ADDR index=(\d) flags=0 desc=(\S+) used=(\S+) avail=(\S+) log=(\S+)", what
        ):
            desc, used, avail, log = (int(match[n], 16) for n in (2, 3, 4, 5))
            if base is None:
                base = desc - next(a for a, n in meaning.items() if n == f"desc of {match[1]}")
            parts = [f"{n}=QEMU's {meaning[a - base]}" for n, a in (("desc", desc), ("used", used), ("avail", avail))]
            what = f"VHOST_SET_VRING_ADDR index={match[1]} {' '.join(parts)} log={meaning[log]}"
        done.append(SetupLine(line.thread, what))
    return done


class Watcher:
    """Turns the steps of a run from power-on into lines."""

    def __init__(self, world):
        self.machine = world.machine
        self.state = world.machine.state
        self.cell = world.cell
        self.queues = 2 * len(world.vm.pairs) + 1

    def argument(self, name):
        """Read an argument of the ioctl that was just done."""
        return self.cell(f"host.ioctl.{name}")

    def run(self, scheduler=None):
        """Run to the end; answers the lines."""
        machine, found = self.machine, []
        while machine.run(1, scheduler=scheduler):
            name = machine.threads[machine.current].name
            thread = "qemu" if "qemu" in name else "vcpu1" if "vcpu1" in name else "vcpu" if "vcpu" in name else "vhost"
            arc = machine.arc_at(machine.position - 1)
            found += [SetupLine(thread, what) for what in self.lines_of(arc.op.name, arc.outcome)]
        return _by_meaning(found)

    def lines_of(self, op, outcome):
        """Give what a recording would have said of a step."""
        index, value = self.argument("index"), self.argument("value")
        fd = f"index={index} fd={value}"
        polls = "vhost_poll_start (vhost starts to poll a file)"
        lines = {
            "tun_get_features": ["TUNGETFEATURES"],
            "tun_set_hdr_size": [f"TUNSETVNETHDRSZ {value}"],
            "tun_get_hdr_size": ["TUNGETVNETHDRSZ"],
            "tun_set_iff": [f"TUNSETIFF name=tap0 flags={value:#x}"],
            "tun_set_offload": ["TUNSETOFFLOAD"],
            "tun_set_sndbuf": [f"TUNSETSNDBUF {value}"],
            "tun_set_queue": [f"TUNSETQUEUE IFF_{'DETACH' if outcome == 'off' else 'ATTACH'}_QUEUE"],
            "tun_set_ebpf": ["TUNSETSTEERINGEBPF"],
            "kvm_create_vm": ["KVM_CREATE_VM"],
            "kvm_create_irqchip": ["KVM_CREATE_IRQCHIP"],
            "kvm_create_vcpu": ["KVM_CREATE_VCPU"],
            "kvm_set_memory": ["KVM_SET_USER_MEMORY_REGION"],
            "kvm_set_routing": ["KVM_SET_GSI_ROUTING"],
            "kvm_irqfd": [
                f"KVM_IRQFD fd={value} gsi={self.cell(f'qemu-4002.process.gsi[{index % self.queues}]')} ASSIGN"
            ],
            "kvm_ioeventfd": [
                f"KVM_IOEVENTFD addr={0xFEBFF000 + 4 * index:#x} len=0 fd={value} flags=0x0 (no datamatch) MMIO"
            ],
            "kvm_ioeventfd_port": [f"KVM_IOEVENTFD addr=0xc050 len=2 fd={value} flags=0x3 DATAMATCH({index:#x}) PIO"],
            "vhost_set_owner": ["VHOST_SET_OWNER"],
            "vhost_get_features": ["VHOST_GET_FEATURES"],
            "vhost_set_vring_call": [f"VHOST_SET_VRING_CALL {fd}"],
            "vhost_set_vring_err": [f"VHOST_SET_VRING_ERR {fd}"],
            "vhost_set_features": [f"VHOST_SET_FEATURES {value:#x}"],
            "vhost_get_backend_features": ["VHOST_GET_BACKEND_FEATURES"],
            "vhost_set_backend_features": [f"VHOST_SET_BACKEND_FEATURES {value:#x}"],
            "vhost_set_mem_table": [f"VHOST_SET_MEM_TABLE nregions={value}"],
            "vhost_set_vring_num": [f"VHOST_SET_VRING_NUM index={index} num={value}"],
            "vhost_set_vring_base": [f"VHOST_SET_VRING_BASE index={index} num={value}"],
            "vhost_set_vring_kick": [f"VHOST_SET_VRING_KICK {fd}", polls],
            "vhost_net_set_backend": [f"VHOST_NET_SET_BACKEND {fd}", polls],
        }
        if op == "next_work":
            return [outcome] if outcome in ("handle_rx_kick", "handle_tx_kick") else []
        if op == "watch_tap":
            return [polls]
        if (op, outcome) == ("carry_out", "pairs"):
            control = self.queues - 1
            return [f"notify region +{4 * control:#x} = {control} (went out to QEMU)"]
        made = {
            "store_register": self._register,
            "store_msix": self._message,
            "vhost_set_vring_addr": self._addresses,
        }.get(op)
        return [made()] if made else lines.get(op, [])

    def _register(self):
        address, data = self.cell("vm1.kvm_run.address"), self.cell("vm1.kvm_run.data")
        return f"common_cfg.{COMMON_NAMES[address - BAR4]} = {data:#x}"

    def _message(self):
        address, data = self.cell("vm1.kvm_run.address"), self.cell("vm1.kvm_run.data")
        return f"MSI-X table +{address - BAR1:#x} = {data:#x}"

    def _addresses(self):
        index = self.argument("index")
        desc, avail, used = (self.argument(part) for part in ("desc", "avail", "used"))
        pair = self.cell("qemu-4002.sequence.argument") if self.queues > 3 else 0
        log = self.cell(f"vm1.virtio_pci.used[{2 * pair + index}]")
        addresses = f"desc={desc:#x} used={used:#x} avail={avail:#x} log={log:#x}"
        return f"VHOST_SET_VRING_ADDR index={index} flags=0 {addresses}"
