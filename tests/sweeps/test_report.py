import csv
import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gormley_vision.errors import UserError
from gormley_vision.sweeps.report import find_metric, write_report
from gormley_vision.sweeps.runs import load_sweep
from gormley_vision.sweeps.skypilot import write_jobs

ROOT = Path(__file__).parents[2]
FILE = f"""
BASE = "{ROOT}/configs/vit_mnist.py"
METRIC = "eval/accuracy"
FIXED = {{"eval.split": "train"}}
def sweep():
    for rate in (0.001, 0.002):
        for seed in (0, 1):
            yield {{"optimizer.learning_rate": rate, "seed": seed}}
"""
FIGURES = {(0.001, 0): 0.5, (0.001, 1): 0.7, (0.002, 0): 0.9}  # the fourth was not begun


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "a<b.py").write_text(FILE)
    sweep = load_sweep(tmp_path / "a<b.py", tmp_path / "runs")
    for run in sweep.runs:
        key = run.overrides["optimizer.learning_rate"], run.overrides["seed"]
        if key not in FIGURES:
            continue
        (run.folder / "samples").mkdir(parents=True)
        lines = [
            {"step": 1, "loss": 2.0, "eval/accuracy": 0.1},
            {"step": 2, "loss": 1.0, "eval/accuracy": FIGURES[key]},
        ]
        lines.append({"step": 3, "loss": 0.5})  # later than the last evaluation
        (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for step in (1, 3):
            Image.fromarray(np.full((4, 4), step, np.uint8)).save(run.folder / "samples" / f"{step:08d}.png")
    return sweep


class Page(HTMLParser):
    """Text and tags of a page, and whether every tag is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_leaderboard_has_the_best_first_and_those_without_a_figure_last(sweep):
    write_report(sweep, ["done", "done", "running", "waiting"])
    rows = list(csv.DictReader((sweep.folder / "leaderboard.csv").read_text().splitlines()))
    assert [(row["rank"], row["eval/accuracy"], row["step"], row["loss"], row["state"]) for row in rows] == [
        ("1", "0.9", "2", "1.0", "running"),
        ("2", "0.7", "2", "1.0", "done"),
        ("3", "0.5", "2", "1.0", "done"),
        ("", "", "", "", "waiting"),
    ]
    assert rows[0]["optimizer.learning_rate"] == "0.002"


def test_a_verdict_that_was_undone_by_a_roll_back_is_still_told(sweep):
    first, second = sweep.runs[:2]
    with (first.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0.4, "verdict/D_fooled": 1.0}\n')
    undone = [
        {"why": "step 900: D overpowering: D rates 99.9 % of real images above fake ones", "step": 900, "to": 750},
        {"why": "step 40: loss/generator is not finite (2 of 8 losses): see below", "step": 40, "to": 0},
    ]
    (second.folder / "rollbacks.json").write_text(json.dumps(undone))
    rows = {row.name: row.verdicts for row in write_report(sweep, ["done", "done", "running", "waiting"])}
    assert rows[first.name] == "D fooled at 4"
    told = "back from 900 to 750 (D overpowering), back from 40 to 0 (loss/generator is not finite)"
    assert rows[second.name] == told
    assert told in Page((sweep.folder / "sweep.html").read_text()).texts
    table = csv.DictReader((sweep.folder / "leaderboard.csv").read_text().splitlines())
    assert told in [row["health"] for row in table]


def test_a_metric_that_no_run_will_log_is_refused_as_soon_as_that_shows(sweep):
    states = ["running", "waiting", "waiting", "waiting"]
    assert find_metric(sweep, states)
    for metric in ("eval/acuracy", "los"):
        wrong = dataclasses.replace(sweep, metric=metric)
        for complain in (find_metric, write_report):
            with pytest.raises(UserError, match=rf"METRIC = '{metric}' .*: one of eval/accuracy, loss$"):
                complain(wrong, states)
    for run in sweep.runs:  # before the first evaluation
        if run.folder.exists():
            (run.folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert not find_metric(sweep, states)
    with pytest.raises(UserError, match="one of loss"):
        find_metric(dataclasses.replace(sweep, metric="los"), states)
    with pytest.raises(UserError, match="one of loss"):
        find_metric(sweep, ["done", "waiting", "waiting", "waiting"])


def test_a_run_that_others_start_from_need_not_have_the_metric(sweep):
    first, *others = sweep.runs
    (first.folder / "metrics.jsonl").write_text('{"step": 1, "eval/loss": 2.0}\n')
    first = dataclasses.replace(first, config=first.config | {"task": "masked_patches"})
    others = [dataclasses.replace(run, after=(first.name,), folder=run.folder / "not yet") for run in others]
    staged = dataclasses.replace(sweep, runs=(first, *others))
    assert not find_metric(staged, ["done", "waiting", "waiting", "waiting"])


def test_a_figure_of_another_task_has_no_rank(sweep):
    first, *others = sweep.runs
    (first.folder / "metrics.jsonl").write_text('{"step": 1, "eval/accuracy": 2.0}\n')
    first = dataclasses.replace(first, config=first.config | {"task": "masked_language_modeling"})
    others = [dataclasses.replace(run, after=(first.name,)) for run in others]
    rows = write_report(dataclasses.replace(sweep, runs=(first, *others)), ["done"] * 4)
    assert rows[-1].name == first.name or not rows[-1].final
    assert [row.name for row in rows if row.final] == [row.name for row in rows if row.name != first.name and row.final]


def test_the_page_is_well_formed_and_asks_for_nothing_outside_itself(sweep):
    write_report(sweep, ["done", "done", "running", "waiting"])
    page = Page((sweep.folder / "sweep.html").read_text())
    assert "a<b" in page.texts
    sources = [attributes[key] for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in "".join(map(str, page.tags))
    curves = [attributes["d"] for tag, attributes in page.tags if tag == "path"]
    assert len(curves) == 2 * 3  # two figures of three runs
    assert {len(curve.split()) for curve in curves} <= {3, 4}
    assert "0.6000" in page.texts  # mean over seeds of the arm that is done
    assert "0.1414" in page.texts


def test_a_curve_lies_where_its_figures_say(sweep):
    write_report(sweep, ["done"] * 4)
    page = Page((sweep.folder / "sweep.html").read_text())
    best = next(
        attributes["d"] for tag, attributes in page.tags if tag == "path"
    )  # eval/accuracy: 0.1 to 0.9, the whole
    points = [tuple(map(float, point.split(","))) for point in best.removeprefix("M").split()]
    assert points[0][0] < points[1][0]
    assert points[0][1] > points[1][1]  # SVG's y points down
    assert (points[0][1], points[1][1]) == (240 - 24, 12)


def test_tensorboards_hparams_hold_the_settings_and_the_figure(sweep):
    import grain
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    write_report(sweep, ["done"] * 4)
    write_report(sweep, ["done"] * 4)  # once only, however often it is renewed
    (file,) = (sweep.runs[1].folder / "tensorboard").glob("*tfevents*")
    values = {}
    for record in grain.experimental.TFRecordIterDataset(str(file)):
        for value in Event.FromString(record).summary.value:
            data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
            values |= {k: v.number_value for k, v in data.session_start_info.hparams.items()}
            metrics = [info.name.tag for info in data.experiment.metric_infos]
            values |= {"metrics": metrics} if metrics else {}
    assert values == {"optimizer.learning_rate": 0.001, "seed": 1.0, "metrics": ["eval/accuracy"]}


def test_skypilots_jobs_continue_in_the_bucket_what_a_machine_began(sweep, tmp_path):
    paths = write_jobs(
        sweep, tmp_path / "jobs", accelerators="tpu-v6e-8", bucket="gs://mine", mounts={"/data": "gs://data/tfds"}
    )
    assert len(paths) == 4
    job = json.loads(paths[0].read_text())
    assert job["run"].endswith(f"'--workdir=/runs/a<b/{sweep.runs[0].name}'")
    assert "--config.optimizer.learning_rate=0.001" in job["run"]
    assert job["resources"]["use_spot"] is True
    assert job["file_mounts"]["/runs"] == {"name": "mine", "store": "gcs", "mode": "MOUNT_CACHED"}
    sky = pytest.importorskip("sky", reason="SkyPilot's own parser: pip install skypilot", exc_type=ImportError)
    task = sky.Task.from_yaml(str(paths[0]))
    (resources,) = task.resources
    assert resources.use_spot
    assert resources.accelerators == {"tpu-v6e-8": 1}
    assert set(task.storage_mounts) == {"/runs", "/data"}
