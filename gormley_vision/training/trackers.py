"""Weights & Biases, MLflow and Trackio, each behind the same three methods. None is imported before it is needed.

None of them uses the network unless the user configured it: by an API key, or by one of the tracker's own environment
variables. A run has one id of ours in all of them, so that a process that continues it finds the earlier one's run.
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

PROJECT = "gormley_vision"  # unless the tracker's own environment variable names another


class Tracker(Protocol):
    """Creates the run with this id, or continues it. `Tracked` catches whatever it raises."""

    package: ClassVar[str]
    where: str  # for the user: where to find the run

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send one point of each curve."""

    def picture(self, step: int, image: np.ndarray) -> None:
        """Send one picture, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Send what is left, and end."""


class Wandb:
    """Weights & Biases: online if there is an API key, else into the run's folder, for `wandb sync`."""

    package: ClassVar[str] = "wandb"

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no reports of its crashes to its makers
        os.environ.setdefault(
            "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "1"
        )  # the default, 15 s of data, is lost in a kill
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
            settings=wandb.Settings(console="off", silent=True),  # keep its output out of the run's
        )
        files = Path(self._run.dir).parent
        self.where = f"offline; to upload it, wandb sync {files}" if self._run.offline else str(self._run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row to the history."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: np.ndarray) -> None:
        """Add a picture to the row of the step."""
        self._run.log({"samples": self._image(image)}, step=step)

    def close(self) -> None:
        """Upload the rest, if there is a server."""
        self._run.finish()


def _has_wandb_key() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    try:
        return "WANDB_API_KEY" in os.environ or netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):  # no `wandb login` on this machine
        return False


class MLflow:
    """MLflow: the store that MLFLOW_TRACKING_URI names, else a database in the run's folder."""

    package: ClassVar[str] = "mlflow"

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is down stalls training only once
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
        # MLflow assigns its own ids to runs; ours is a tag.
        found = self._client.search_runs([experiment], f"tags.{PROJECT}_id = '{run_id}'")
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
        run = found[0] if found else self._client.create_run(experiment, None, {f"{PROJECT}_id": run_id}, workdir.name)
        self._id = run.info.run_id
        # Written once: MLflow refuses another value of the same parameter, and some keys may change on resume.
        params = [Param(key, str(value)) for key, value in config.items() if key not in run.data.params]
        for first in range(0, len(params), 100):  # its limit for one request
            self._client.log_batch(self._id, params=params[first : first + 100])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send all metrics of a step in one request."""
        now = int(1000 * time.time())
        self._client.log_batch(self._id, [self._metric(name, value, now, step) for name, value in values.items()])

    def picture(self, step: int, image: np.ndarray) -> None:
        """Add a picture to the run's images."""
        self._client.log_image(self._id, image, key="samples", step=step)

    def close(self) -> None:
        """Mark the run as finished, until it is continued."""
        self._client.set_terminated(self._id)


class Trackio:
    """Trackio: its own database under TRACKIO_DIR, or the Space or server that its variables name."""

    package: ClassVar[str] = "trackio"

    def __init__(self, workdir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        if not any(name in os.environ for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")):
            os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else it asks Hugging Face for the user's name
        import trackio

        # The module's `finish`: after the run object's own, trackio would end the run again at exit.
        self._image, self._finish = trackio.Image, trackio.finish
        with contextlib.redirect_stdout(io.StringIO()):  # its output; `where` has what is needed of it
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=f"{workdir.name}-{run_id}",  # trackio identifies runs by their names
                config=dict(config),
                resume="allow",
                embed=False,
            )
        self.where = f"trackio show --project {self._run.project}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: np.ndarray) -> None:
        """Add a picture as its own row."""
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
