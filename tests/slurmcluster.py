"""A real Slurm of Debian's packages on loopback: one controller, two nodes, two make-believe GPUs, no accounting."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "sinfo",
    "scontrol",
    "unshare",
    "nsenter",
    "ip",
)

CONFIG = """\
ClusterName=ci
SlurmctldHost=localhost
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={run}/munge.socket
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmctldPidFile={run}/slurmctld.pid
SlurmctldLogFile={run}/slurmctld.log
SlurmdPidFile={run}/slurmd.%n.pid
SlurmdLogFile={run}/slurmd.%n.log
SlurmdSpoolDir={run}/spool/%n
StateSaveLocation={run}/spool/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
SlurmdParameters=config_overrides
EnforcePartLimits=ALL
GresTypes=gpu
MinJobAge=3600
KillWait=2
SlurmctldTimeout=30
SlurmdTimeout=20
OverTimeLimit=0
JobRequeue=1
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={run}/jobs.log
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=60000 Gres=gpu:2
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=60000
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=24:00:00 State=UP
PartitionName=gpu Nodes=n1 MaxTime=24:00:00 State=UP
"""
# only devices count as GPUs; ordinary files and a bare count do not
GRES = "AutoDetect=off\nNodeName=n1 Name=gpu File=/dev/null\nNodeName=n1 Name=gpu File=/dev/zero\n"


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: `make system-deps` installs Slurm"
    return "" if os.geteuid() == 0 else "only root can start slurmd"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def until(done: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something; fail with its name."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


class Cluster:
    """A running cluster; `prefix` is what every process of it is started with (a network namespace)."""

    def __init__(self, run: Path, prefix: tuple[str, ...] = ()):
        self.run, self.prefix = run, prefix
        path = f"{run / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "SLURM_CONF": str(run / "slurm.conf"), "PATH": path}

    def start(self) -> "Cluster":
        for name in ("state", "n1", "n2"):
            (self.run / "spool" / name).mkdir(parents=True)
        (self.run / "slurm.conf").write_text(CONFIG.format(run=self.run, ports=free_ports(3)))
        (self.run / "gres.conf").write_text(GRES)
        # Snakemake's job step drops SLURM_CONF, and /etc/slurm is not ours to write
        srun = self.run / "bin/srun"
        srun.parent.mkdir()
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.run}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        (self.run / "munge.key").write_bytes(os.urandom(1024))
        (self.run / "munge.key").chmod(0o400)
        paths = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        own = [f"--{option}={self.run}/munge.{ending}" for option, ending in paths.items()]
        self.call("munged", "--force", *own)
        self.start_controller()
        for node in ("n1", "n2"):
            self.start_node(node)
        until(lambda: self.nodes() == {"n1": "idle", "n2": "idle"}, "two idle nodes")
        return self

    def start_controller(self) -> None:
        self.call("slurmctld")
        until(lambda: "is UP" in self.call("scontrol", "ping", check=False), "the controller")

    def start_node(self, node: str) -> None:
        self.call("slurmd", "-N", node)

    def stop_process(self, name: str, kill: signal.Signals = signal.SIGTERM) -> None:
        path = self.run / f"{name}.pid"
        if not path.exists():
            return
        pid = int(path.read_text())
        try:
            os.kill(pid, kill)
            until(lambda: not Path(f"/proc/{pid}").exists(), f"the end of {name}", 30)
        except ProcessLookupError:
            pass

    def stop(self) -> None:
        """Leave nothing running: jobs, daemons, and what the jobs left behind."""
        self.call("scancel", "--user", "root", check=False)
        until(lambda: not self.queue(), "the end of the jobs", 60)
        for name in ("slurmctld", "slurmd.n1", "slurmd.n2", "munge"):
            self.stop_process(name)

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self.prefix, *command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def nodes(self) -> dict[str, str]:
        lines = self.call("sinfo", "--noheader", "--Node", "--format", "%N %t", check=False).splitlines()
        return dict(line.split() for line in lines)

    def queue(self) -> list[dict[str, str]]:
        """Jobs that wait or run."""
        names = ("id", "state", "comment", "folder")
        rows = self.call("squeue", "--noheader", "--format", "%i|%T|%k|%Z", check=False).splitlines()
        return [dict(zip(names, row.split("|"), strict=True)) for row in rows]

    def history(self) -> list[dict[str, str]]:
        """Every job that has ended: JobId, JobState, TimeLimit, NodeList, ReqTRES … as Slurm's log has them."""
        path = self.run / "jobs.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(word.partition("=")[::2] for word in line.split()) for line in lines]


@contextmanager
def namespace() -> Iterator[tuple[str, ...]]:
    """Yield what starts a command in a network namespace that has a loopback and no other interface.

    Nothing, where this machine makes no namespaces: then the jobs see the network.
    """
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        yield ()
        return
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    prefix = ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
    try:
        own, its = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
        until(lambda: its.readlink() != own.readlink(), "a network namespace", 10)
        # Slurm listens nowhere on a machine with no other address than 127.0.0.1
        for change in (["addr", "add", "192.0.2.1/32", "dev", "lo"], ["link", "set", "lo", "up"]):
            subprocess.run([*prefix, "ip", *change], check=True)
        yield prefix
    finally:
        holder.kill()
        holder.wait()
