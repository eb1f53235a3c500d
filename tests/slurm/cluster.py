"""A private SLURM on this machine: a controller and two nodes, with folders and ports of its own."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "scontrol", "sbatch", "salloc", "srun", "squeue", "scancel")
NODES = ("node0", "node1")
_SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where daemons are, which is not on every user's PATH."""

_CONFIGURATION = """
ClusterName=vdm-tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=100000,sched_interval=1,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
JobRequeue=1
KillWait=10
OverTimeLimit=0
MinJobAge=600
SlurmdParameters=config_overrides
NodeName=node0 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports[0]} CPUs=8 State=UNKNOWN
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports[1]} CPUs=8 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9
"""


def missing_programs() -> list[str]:
    """Return what must be installed before a cluster can be started."""
    return [name for name in PROGRAMS if shutil.which(name, path=_search_path()) is None]


@dataclass(frozen=True)
class Cluster:
    """A running SLURM."""

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """Environment for SLURM's commands to find it."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return outside | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _search_path()}

    def run(self, *command: str) -> str:
        """Run a command of SLURM's and return what it prints."""
        return subprocess.run(command, env=self.variables, check=True, capture_output=True, text=True).stdout

    def state(self, job: str) -> dict[str, str]:
        """Return what SLURM knows of a job, such as JobState, Restarts and ExitCode."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 60, restarts: int = 0) -> dict[str, str]:
        """Wait until a job is in one of some states, and has been started again at least so often.

        Raises:
            TimeoutError: If that takes longer; the message has the job's state and the controller's last words.
        """
        deadline = time.monotonic() + seconds
        while True:
            state = self.state(job)
            if state["JobState"] in states and int(state["Restarts"]) >= restarts:
                return state
            if time.monotonic() > deadline:
                log = (self.folder / "slurmctld.log").read_text().splitlines()[-20:]
                raise TimeoutError(f"job {job} is not {' or '.join(states)}: {state}\n" + "\n".join(log))
            time.sleep(0.1)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start SLURM with everything it writes in ``folder``, and end it and all of its jobs afterwards."""
    controller, *nodes = _free_ports(1 + len(NODES))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir()
    for node in NODES:
        (folder / f"spool-{node}").mkdir()
    text = _CONFIGURATION.format(
        folder=folder, host=socket.gethostname(), user=getpass.getuser(), controller_port=controller, node_ports=nodes
    )
    (folder / "slurm.conf").write_text(text)
    started = Cluster(folder)
    with ExitStack() as daemons:
        daemons.enter_context(_daemon(started, "slurmctld", "-D", "-c"))
        for node in NODES:
            daemons.enter_context(_daemon(started, "slurmd", "-D", "-c", "-N", node))
        daemons.callback(_end_jobs, started)
        _wait_for_nodes(started)
        yield started


@contextmanager
def _daemon(started: Cluster, *command: str) -> Iterator[None]:
    with (started.folder / f"{command[0]}.out").open("a") as log:
        process = subprocess.Popen(command, env=started.variables, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs(started: Cluster) -> None:
    """Kill what still runs, and wait for it: steps outlive slurmd."""
    subprocess.run(["scancel", "--full", "--signal=KILL", "--user", getpass.getuser()], env=started.variables)
    subprocess.run(["scancel", "--user", getpass.getuser()], env=started.variables)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and started.run("squeue", "--noheader").strip():
        time.sleep(0.2)


def _wait_for_nodes(started: Cluster) -> None:
    deadline = time.monotonic() + 30
    while True:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%T", "--Node"], env=started.variables, capture_output=True, text=True
        )
        if answer.stdout.split().count("idle") >= len(NODES):
            return
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-2000:] for path in sorted(started.folder.glob("*.log")))
            raise TimeoutError(f"SLURM's nodes are not there: {answer.stdout}{answer.stderr}\n{logs}")
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _search_path() -> str:
    programs = Path(sys.executable).parent  # ``vdm`` among them, also where the environment is not activated
    return f"{programs}:{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
