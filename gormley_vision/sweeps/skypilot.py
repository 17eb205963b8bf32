"""A sweep as SkyPilot managed jobs: one YAML file per run, on spot machines, recovered after preemption.

The files are written here and launched by `sky jobs launch`: this repository does not talk to a cloud. The run's folder
is in a bucket, from which a recovered machine continues. The bucket is mounted with MOUNT_CACHED, because checkpoints
are renamed folders and metrics.jsonl grows line by line, and a plain bucket mount supports neither. Files are uploaded
in the background; a checkpoint with missing files is detected by its sums, and the one before is used.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError
from gormley_vision.files import write_json
from gormley_vision.sweeps.runs import Run, Sweep

RUNS = "/runs"  # where the bucket is mounted


def job(run: Run, sweep_name: str, *, accelerators: str, bucket: str, mounts: Mapping[str, str]) -> dict[str, Any]:
    """Return one managed job in SkyPilot's task format (docs.skypilot.co, 'SkyPilot YAML').

    Args:
        accelerators: in SkyPilot's notation: 'tpu-v6e-8', 'H100:8'.
        bucket: 'gs://NAME' or 's3://NAME' for the runs' folders; created if it does not exist.
        mounts: {'/data': 'gs://NAME/tfds', ...}: buckets to read data from.
    """
    store, _, name = bucket.partition("://")
    extra = "tpu" if accelerators.startswith("tpu") else "cuda"
    command = ["python", "train.py", *run.flags, f"--workdir={RUNS}/{sweep_name}/{run.name}"]
    return {
        "name": re.sub(r"[^a-z0-9]+", "-", f"{sweep_name}-{run.name}".lower()).strip("-"),
        "workdir": ".",
        "resources": {
            "accelerators": accelerators,
            "use_spot": True,
            # Preemptions are recovered without limit; a run that fails is restarted this often.
            "job_recovery": {"strategy": "EAGER_NEXT_REGION", "max_restarts_on_errors": 3},
        },
        "file_mounts": {
            RUNS: {"name": name, "store": {"gs": "gcs"}.get(store, store), "mode": "MOUNT_CACHED"},
            **{path: {"source": source, "mode": "MOUNT"} for path, source in mounts.items()},
        },
        "setup": f'pip install -e ".[{extra}]"',
        "run": shlex.join(command),
    }


def write_jobs(sweep: Sweep, folder: Path, **options: Any) -> list[Path]:
    """Write one file per run. Every JSON document is YAML, so no YAML library is needed.

    Raises:
        UserError: a run starts from another's weights: jobs are independent.
    """
    if later := [run.name for run in sweep.runs if run.after]:
        raise UserError(f"jobs are independent, and {later[0]} starts from the weights of another run: train it here")
    paths = []
    for run in sweep.runs:
        paths.append(folder / f"{run.name}.yaml")
        write_json(paths[-1], job(run, sweep.name, **options))
    return paths
