"""One task of a SLURM array: ``python -m tests.data_pipelines.executors.array FOLDER COUNT SECONDS [DEADLY_JOB]``.

Without a deadly job there are two tasks, which begin together.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

from data_pipelines.executors.slurm import SlurmExecutor
from tests.data_pipelines.executors.work import jobs, leave_a_file
from tests.waiting import wait_until

if __name__ == "__main__":
    folder, count, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    executor = SlurmExecutor(num_tasks=2, cpus_per_task=2 if sys.argv[4:] else 1, alive_seconds=0.2, dead_seconds=1.5)
    work = jobs(folder, count, seconds=seconds)
    work |= {name: replace(work[name], kills_task=True) for name in sys.argv[4:]}
    if not sys.argv[4:]:
        (folder / f"started-{os.environ['SLURM_ARRAY_TASK_ID']}").touch()
        wait_until(lambda: len(list(folder.glob("started-*"))) == 2, "the other task does not start")
    for name, fault in executor.run(leave_a_file, work, folder / "locks" / "work"):
        print(name, fault, flush=True)
    executor.once(lambda: (folder / "published").touch(exist_ok=False), "publish", folder / "locks")
    print("all done", flush=True)
