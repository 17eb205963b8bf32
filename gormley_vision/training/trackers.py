"""Weights & Biases, MLflow and Trackio, each behind the same three methods; none is imported before it is asked for.

None of them reaches for the network unless it was told where to: by an API key, or by a variable of its own. A run has
one id of ours in all of them, so that a process that continues it finds what an earlier one began.
"""

import contextlib
import importlib.util
import io
import netrc
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from gormley_vision.errors import UserError

PROJECT = "gormley_vision"  # where the tracker's own variable names no other


class Tracker(Protocol):
    """Opened anew, or where the run of this id was left. Whatever it raises is kept from the run (`Tracked`)."""

    package: ClassVar[str]
    where: str  # to find the run, for people

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""

    def picture(self, step: int, image: np.ndarray) -> None:
        """One picture, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Hand over what is left, and end."""


class Wandb:
    """Weights & Biases: online where there is a key, else into the run's folder, for `wandb sync`."""

    package: ClassVar[str] = "wandb"

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # of its own crashes, to its makers
        os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "1")  # for 15 s, which a kill would lose
        import wandb

        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            name=workdir.name,
            dir=os.environ.get("WANDB_DIR", workdir),
            config=dict(config),
            resume="allow",
            mode=None if "WANDB_MODE" in os.environ or _has_wandb_key() else "offline",
            settings=wandb.Settings(console="off", silent=True),  # standard output is the run's own
        )
        files = Path(self._run.dir).parent
        self.where = f"offline; to upload it, wandb sync {files}" if self._run.offline else str(self._run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One row of the history."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: np.ndarray) -> None:
        """Into the row of the step."""
        self._run.log({"samples": self._image(image)}, step=step)

    def close(self) -> None:
        """Upload the rest, where there is a server."""
        self._run.finish()


def _has_wandb_key() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    try:
        return "WANDB_API_KEY" in os.environ or netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):  # `wandb login` has never been here
        return False


class MLflow:
    """MLflow: the store that MLFLOW_TRACKING_URI names, else a database in the run's folder."""

    package: ClassVar[str] = "mlflow"

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is down stalls training once
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow
        from mlflow.entities import Metric, Param

        self._metric = Metric
        folder, store, artifacts = workdir.absolute() / "mlflow", None, None
        if not mlflow.is_tracking_uri_set():
            folder.mkdir(exist_ok=True)
            store, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client = mlflow.MlflowClient(store)
        self.where = f"mlflow ui --backend-store-uri {self._client.tracking_uri}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name, artifacts)
        # MLflow gives runs ids of its own; ours is a tag.
        found = self._client.search_runs([experiment], f"tags.{PROJECT}_id = '{run_id}'")
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
        run = found[0] if found else self._client.create_run(experiment, None, {f"{PROJECT}_id": run_id}, workdir.name)
        self._id = run.info.run_id
        # Written once: MLflow refuses another value of the same parameter, and some keys may change on resume.
        params = [Param(key, str(value)) for key, value in config.items() if key not in run.data.params]
        for first in range(0, len(params), 100):  # as many as it takes at a time
            self._client.log_batch(self._id, params=params[first : first + 100])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """All of a step in one request."""
        now = int(1000 * time.time())
        self._client.log_batch(self._id, [self._metric(name, value, now, step) for name, value in values.items()])

    def picture(self, step: int, image: np.ndarray) -> None:
        """Among the run's images."""
        self._client.log_image(self._id, image, key="samples", step=step)

    def close(self) -> None:
        """The run is over, until it is continued."""
        self._client.set_terminated(self._id)


class Trackio:
    """Trackio: its own database under TRACKIO_DIR, or the Space or server that its variables name."""

    package: ClassVar[str] = "trackio"

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        if not any(name in os.environ for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")):
            os.environ.setdefault("HF_HUB_OFFLINE", "1")  # it would ask Hugging Face for the name of the user
        import trackio

        # Its own `finish`, as after the run's it would end the run at exit once more.
        self._image, self._finish = trackio.Image, trackio.finish
        with contextlib.redirect_stdout(io.StringIO()):  # that output is the run's own; `where` says what is needed
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=f"{workdir.name}-{run_id}",  # it continues runs by their names
                config=dict(config),
                resume="allow",
                embed=False,
            )
        self.where = f"trackio show --project {self._run.project}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One row."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: np.ndarray) -> None:
        """One row of its own."""
        self._run.log({"samples": self._image(image)}, step=step)

    def close(self) -> None:
        """Write the rest."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._finish()


TRACKERS: dict[str, type[Tracker]] = {"wandb": Wandb, "mlflow": MLflow, "trackio": Trackio}


def refuse_missing(name: str) -> None:
    """Refuse a tracker that is not installed, before anything long begins."""
    if name != "none" and importlib.util.find_spec(TRACKERS[name].package) is None:
        raise UserError(
            f'log.tracker={name} needs a package that is not installed: pip install -e ".[{name}]", '
            "or pass --config.log.tracker=none"
        )
