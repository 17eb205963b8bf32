import json
from pathlib import Path

import pytest

from gormley_vision.command_line import read
from gormley_vision.config import validate
from gormley_vision.errors import UserError
from gormley_vision.sweeps.draws import run_of
from gormley_vision.sweeps.runs import is_done, load_sweep, metrics_of, run_name, steps_of

ROOT = Path(__file__).parents[2]
BASE = f'BASE = "{ROOT}/configs/vit_mnist.py"\nMETRIC = "loss/classifier"\n'


@pytest.fixture
def sweep_of(tmp_path):
    """Loads a sweep file with this body."""

    def load(body, base=BASE):
        (tmp_path / "file.py").write_text(base + body)
        return load_sweep(tmp_path / "file.py", tmp_path / "runs")

    return load


def test_runs_have_configs_flags_folders_and_names(sweep_of, tmp_path):
    sweep = sweep_of(
        'FIXED = {"duration": "3 epochs"}\n'
        'def sweep(): yield {"seed": 1, "optimizer.learning_rate": 1, "data.flip": True}\n'
    )
    (run,) = sweep.runs
    assert run.name == "data.flip=true,optimizer.learning_rate=1,seed=1"
    assert run.folder == tmp_path / "runs" / run.name
    assert run.flags[1:] == (
        "--config.duration=3 epochs",
        "--config.seed=1",
        "--config.optimizer.learning_rate=1",
        "--config.data.flip=true",
    )
    assert run.config["duration"] == "3 epochs"
    assert run.config["optimizer"]["learning_rate"] == 1.0
    assert isinstance(run.config["optimizer"]["learning_rate"], float)
    assert run.config["data"]["flip"] is True


def test_a_run_may_start_from_another_of_the_sweep(sweep_of, tmp_path):
    body = (
        "from gormley_vision.sweeps.draws import run_of\n"
        'short = {"seed": 1, "data.flip": True}\n'
        'def sweep():\n    yield {"seed": 2, "init_from": run_of(short)}\n'
    )
    first, second = sweep_of(body + "    yield short").runs
    assert (first.after, second.after) == ((second.name,), ())
    assert first.config["init_from"] == str(tmp_path / "runs" / second.name) == str(second.folder)
    assert f"--config.init_from={second.folder}" in first.flags
    assert sweep_of(
        body.replace("run_of(short)", "run_of(short), 'data.cache_dir': run_of(short) + '/cache'") + "    yield short"
    ).runs[0].config["data"]["cache_dir"] == str(second.folder / "cache")
    with pytest.raises(UserError, match=r"start from these, which it does not yield: \['data.flip=true,seed=1'\]"):
        sweep_of(body)


def test_all_runs_that_a_run_reads_come_before_it(sweep_of):
    names = "from gormley_vision.sweeps.draws import run_of\none, two = {'seed': 1}, {'seed': 2}\n"
    both = "yield {'init_from': run_of(one), 'data.cache_dir': run_of(two) + '/x'}"
    last = sweep_of(f"{names}def sweep():\n    yield one\n    yield two\n    {both}").runs[-1]
    assert sorted(last.after) == ["seed=1", "seed=2"]
    with pytest.raises(UserError, match=r"does not yield: \['seed=1'\]"):
        sweep_of(f"{names}def sweep():\n    yield two\n    {both}")
    with pytest.raises(UserError, match="start from themselves or from each other: seed=1, seed=2"):
        sweep_of(f"{names}FIXED = {{'init_from': run_of(one)}}\ndef sweep():\n    yield one\n    yield two")
    with pytest.raises(UserError, match=r"init_from='run of x': write run_of\(OVERRIDES\)"):
        sweep_of("def sweep():\n    yield {'init_from': 'run of x'}")
    with pytest.raises(UserError, match=r"run_of\('seed=1'\): pass the overrides"):
        run_of("seed=1")
    with pytest.raises(UserError, match=r"file.py: sweep\(\) yields \{'Base': 'x'\}: (.|\n)*no such key"):
        sweep_of("def sweep():\n    yield {'Base': 'x'}")


def test_a_run_may_have_another_config_than_the_others(sweep_of):
    body = f'def sweep():\n    yield {{"seed": 1}}\n    yield {{"BASE": "{ROOT}/configs/dcgan_mnist.py", "seed": 2}}'
    first, second = sweep_of(body).runs
    assert (first.config["task"], second.config["task"]) == ("classification", "gan")
    assert second.flags == (f"--config={ROOT}/configs/dcgan_mnist.py", "--config.seed=2")
    assert second.name != first.name
    (named,) = sweep_of('def sweep():\n    yield {"seed": 1, "NAME": "from scratch"}').runs
    assert named.name.startswith("from_scratch,seed=1")
    assert named.flags == first.flags


def test_a_name_depends_on_the_overrides_alone_and_fits_a_file_system():
    assert run_name({"b": "1", "a": "2"}) == run_name({"a": "2", "b": "1"}) == "a=2,b=1"
    odd, other = run_name({"data.path": "x/y z"}), run_name({"data.path": "x_y_z"})
    assert "/" not in odd
    assert odd != other
    long = [run_name({f"key{i}": "v" * 30 for i in range(9)} | {"last": end}) for end in "ab"]
    assert long[0] != long[1]
    assert max(map(len, long)) < 120
    assert run_name({}) == "base"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('def sweep(): yield {"optimizer.learning_rat": 1.0}', "did you mean 'optimizer.learning_rate'"),
        ('def sweep(): yield {"vit.depth": 2.5}', "needs an integer"),
        ('def sweep(): yield from [{"seed": 1}, {"seed": 1}]', "twice: seed=1"),
        ("def sweep(): yield from []", "yields nothing"),
        ("", "does not define sweep"),
    ],
)
def test_a_wrong_sweep_is_refused(sweep_of, body, message):
    with pytest.raises(UserError, match=message):
        sweep_of(body)


def test_a_run_begun_with_another_config_is_refused(sweep_of):
    body = 'FIXED = {"vit.depth": %d}\ndef sweep(): yield {"seed": 1}'
    (run,) = sweep_of(body % 2).runs
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.config))
    sweep_of(body % 2)
    with pytest.raises(UserError, match=r"started with another config:\n  vit.depth: 2 -> 3"):
        sweep_of(body % 3)


def test_how_far_a_run_has_come_is_told_by_its_newest_checkpoint(sweep_of):
    body = 'FIXED = {"duration": "2 epochs", "data.batch_size": 10, "stop_after": "%s"}\ndef sweep(): yield {"seed": 1}'
    (run,) = sweep_of(body % "").runs
    assert steps_of(run) == (0, 0)
    assert not is_done(run)
    for step, done in ((9, False), (20, True)):
        folder = run.folder / "checkpoints" / str(step)
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(json.dumps({"data": {"length": 100}}))
        assert steps_of(run) == (step, 20)
        assert is_done(run) is done
    (run.folder / "checkpoints" / "30.partial").mkdir()
    assert steps_of(sweep_of(body % "5 steps").runs[0]) == (20, 5)


def test_damaged_files_of_a_run_are_no_trace(sweep_of):
    (run,) = sweep_of('FIXED = {"duration": "20 steps"}\ndef sweep(): yield {"seed": 1}').runs
    for step in (10, 20):
        (run.folder / "checkpoints" / str(step)).mkdir(parents=True)
    (run.folder / "checkpoints" / "10" / "meta.json").write_text(json.dumps({"data": {"length": 100}}))
    assert steps_of(run) == (10, 20)  # as train.py, which goes on from the newest complete one
    (run.folder / "checkpoints" / "20" / "meta.json").write_text("{")
    assert not is_done(run)
    for text in ("{", "[]", '{"seed": 3}', "\xff"):
        (run.folder / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"config\.json is damaged: "):
            sweep_of('FIXED = {"duration": "20 steps"}\ndef sweep(): yield {"seed": 1}')


def test_a_metric_of_evaluation_needs_one(sweep_of):
    with pytest.raises(UserError, match=r"METRIC = 'eval/accuracy', and the runs evaluate nothing: set eval\.split"):
        sweep_of('METRIC = "eval/accuracy"\ndef sweep(): yield {"seed": 1}')


def test_a_line_of_metrics_that_a_kill_cut_short_is_left_out(tmp_path):
    assert metrics_of(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert metrics_of(tmp_path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.py")), ids=lambda path: path.stem)
def test_every_sweep_of_the_repository_is_whole(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    from gormley_vision.config import validate

    sweep = load_sweep(path, tmp_path)
    assert sweep.runs
    for run in sweep.runs:
        validate(run.config)


def test_a_smoke_sweep_shrinks_what_it_sets_and_keeps_the_rest(monkeypatch):
    """configs/sweeps/fashion_recipe.py:smoke: its 3 epochs of npz files become 8 steps on made-up images."""
    monkeypatch.chdir(ROOT)
    sweep = load_sweep(ROOT / "configs" / "sweeps" / "fashion_recipe.py", Path("nowhere"), "smoke")
    assert len(sweep.runs) == 12
    assert {run.config["duration"] for run in sweep.runs} == {"8 steps"}
    assert {run.config["data"]["source"] for run in sweep.runs} == {"fake"}
    assert {run.config["optimizer"]["name"] for run in sweep.runs} == {"muon", "adam"}
    for run in sweep.runs:
        assert run.flags[0].endswith(":smoke")
        read(run.flags)
        validate(run.config)
