"""The real trackers, where they are installed: killed twice, a run is in each under one id, and without the network.

pip install -e ".[test,wandb,mlflow,trackio]" && pytest -m slow tests/training/test_trackers.py
"""

import collections
import importlib.util
import json
import signal
import sqlite3
import struct

import pytest

# They warn of one another while what they wrote is read back here.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::DeprecationWarning", "default::PendingDeprecationWarning"),
]

STEPS = 24
RUN = {"duration": f"{STEPS} steps", "checkpoint__every": "5 steps", "log__samples_every": "6 steps"}
# In every Python process: notes each address beyond this machine. (wandb has a process in Go besides, out of reach.)
WATCH = """
import socket, sys

def note(event, args):
    away = event == "socket.connect" and args[0].family != socket.AF_UNIX and args[1][0] not in ("127.0.0.1", "::1")
    if away or event == "socket.getaddrinfo" and args[0] not in ("localhost", "127.0.0.1", None):
        with open({path!r}, "a") as file:
            print(event, args, file=file)

sys.addaudithook(note)
"""


def read_wandb(workdir):
    """(ids, config keys, [(step, {name: value})]) of the offline files, oldest first."""
    from wandb.proto import wandb_internal_pb2

    ids, config, rows = set(), set(), []
    for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for content in leveldb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
                config |= {item.key for item in record.run.config.update}
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                rows.append((items["_step"], items))
    return ids, config, rows


def leveldb_records(content):
    """wandb's files are LevelDB logs behind a header of seven bytes; a kill may cut the last record short."""
    at, parts = 7, []
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if not kind or at + 7 + length > len(content):
            return
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield b"".join(parts)
            parts = []


def read_mlflow(workdir):
    """The same, of the database in the run's folder."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workdir.absolute()}/mlflow/mlflow.db")
    runs = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    rows = []
    for run in runs:
        for name in run.data.metrics:
            rows += [(m.step, {name: m.value}) for m in client.get_metric_history(run.info.run_id, name)]
        names = {
            artifact.path.partition("+timestamp")[0] for artifact in client.list_artifacts(run.info.run_id, "images")
        }
        rows += [(int(name.rpartition("+")[2]), {"samples": name}) for name in names]
    assert [run.info.status for run in runs] == ["FINISHED"]
    return {run.data.tags["gormley_vision_id"] for run in runs}, set(runs[0].data.params), rows


def read_trackio(workdir):
    """The same, of its database under TRACKIO_DIR."""
    with sqlite3.connect(workdir.parent / "trackio" / "gormley_vision.db") as database:
        found = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
        ((config,),) = database.execute("select config from configs").fetchall()
    ids = {name.rpartition("-")[2] for name, _, _ in found}
    return ids, set(json.loads(config)), [(step, json.loads(metrics)) for _, step, metrics in found]


READERS = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}


@pytest.mark.parametrize("name", READERS)
def test_killed_twice_a_run_is_one_run_there_and_nothing_leaves_the_machine(name, programs, tmp_path, monkeypatch):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    workdir, away = tmp_path / "run", tmp_path / "away"
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(path=str(away)))
    own = {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": f"{programs.environment['PYTHONPATH']}:{tmp_path}"}
    for variable, value in own.items():
        monkeypatch.setitem(programs.environment, variable, value)
    command = programs.command(workdir, **RUN, log__tracker=name)
    sent = 0
    for step in (8, 17):
        process = programs.start(command)
        programs.wait_for_step(process, workdir, step)
        process.kill()
        assert programs.finish(process)[0] == -signal.SIGKILL
        entries = [json.loads(line) for line in (workdir / "trackers" / f"{name}.jsonl").read_text().splitlines()]
        sent = max(sent, *(entry.get("scalars", 0) for entry in entries))
    status, errors = programs.finish(programs.start(command))
    assert status == 0, errors
    assert "failed" not in errors

    ids, config, rows = READERS[name](workdir)
    assert ids == {entries[0]["run_id"]}
    assert {"data.batch_size", "generator.width"} <= config
    points = collections.Counter((step, key) for step, row in rows for key in row if not key.startswith("_"))
    assert set(points.values()) == {1}, "a step is there twice"
    lines = {line["step"]: line for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())}
    assert list(lines) == list(range(1, STEPS + 1))
    for step, row in rows:
        for key in row.keys() & lines[step].keys():
            assert row[key] == pytest.approx(lines[step][key])
    there = {step for step, key in points if key == "loss/generator"}
    assert set(range(sent + 1, STEPS + 1)) <= there, "what the last process sent is all there"
    assert name != "mlflow" or len(there) >= STEPS - 2, "it has no queue in which a kill would catch more than a step"
    assert (STEPS, "samples") in points
    assert not away.exists(), away.read_text()
