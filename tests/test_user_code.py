"""Config and sweep files as people write them: what is wrong in one is a line, which names the file's own."""

import traceback
from pathlib import Path

import pytest

from gormley_vision import config as cfg
from gormley_vision.command_line import load_config_file, override, read
from gormley_vision.errors import UserError
from gormley_vision.sweeps.runs import load_sweep

HEAD = "from gormley_vision.config import default_config\ndef get_config(arg=''):\n"
SWEEP = "from gormley_vision.sweeps.draws import grid, log_uniform, zipped\nBASE = 'base.py'\nMETRIC = 'loss'\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.py").write_text(HEAD + "    return default_config('classification')")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(arg=''):\n    return (", r"x.py, line 2: '\(' was never closed"),
        (HEAD + "    return default_confg('gan')", "x.py, line 3: NameError: name 'default_confg' is not defined"),
        ("\nimport nothing_here", "x.py, line 2: ModuleNotFoundError: No module named 'nothing_here'"),
        ("x = 1", r"x.py has no get_config: write def get_config\(arg="),
        ("\ndef get_config(): pass", r"x.py, line 2: get_config must take one argument: write def get_config\(arg="),
        (HEAD + "    default_config('gan')", "x.py: get_config returns nothing: is `return config` missing?"),
        (HEAD + "    c = default_config('gan')\n    c.generator.widht = 3", 'line 4: AttributeError: .*mean "width"'),
        (HEAD + "    c = default_config('gan')\n    c.seed = 'x'", "x.py, line 4: TypeError: .* field 'seed'"),
        (HEAD + "    return {'seed': 3}", "x.py: get_config returns dict without a task: start from default_config"),
        (HEAD + "    return default_config('gna')", "x.py, line 3: task='gna': there is no module"),
        ("BASE = ''\ndef sweep(): pass", "x.py is a sweep: python scripts/sweep.py --config=x.py"),
        (
            "import ml_collections\ndef get_config(arg): return ml_collections.ConfigDict({'task': 'gan'})",
            r"x.py: the config is wrong:\n  accumulate: missing",
        ),
        (b"# all is well\nx = '\xe9'", "x.py, line 2: not UTF-8 text"),
        ("x = '\0'", "x.py: source code .*null bytes"),
    ],
)
def test_a_faulty_config_file_is_refused_by_its_line(here, text, message):
    (here / "x.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as refusal:
        load_config_file("x.py")
    assert str(refusal.value).count("x.py") == 1 + ("is a sweep" in message)


def test_what_is_no_config_file_is_refused(here):
    (here / "README.md").write_text("# It's a project\n\nand its text")
    (here / "empty").mkdir()
    for spec, message in (
        ("README.md", r"README.md, line 3: .*; a config is a Python file"),
        (str(here), rf"--config={here}: is a folder; one of {here}/base.py"),
        ("bse.py", f"no such file; did you mean 'base.py'.; you are in {here}"),
        ("configs/x.py", f"no such file; there are no .py files in configs; you are in {here}"),
    ):
        with pytest.raises(UserError, match=message):
            load_config_file(spec)


def test_a_fault_of_ours_that_a_file_runs_into_keeps_its_trace(here, monkeypatch):
    def broken(name):
        raise KeyError("ours")

    broken.__code__ = broken.__code__.replace(co_filename=cfg.__file__)
    monkeypatch.setattr(cfg, "default_config", broken)
    with pytest.raises(KeyError) as fault:
        load_config_file("base.py")
    assert traceback.extract_tb(fault.value.__traceback__)[-1].filename == cfg.__file__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def sweep(): yield 3", r"sweep\(\) yields 3: write keys and their values, as in \{"),
        ("def sweep(): return", r"file.py: sweep\(\) returns None: let it yield"),
        ("sweep = [{'seed': 1}]", "sweep is a list; make it a function"),
        ("FIXED = 3\ndef sweep(): yield {}", "FIXED = 3: write keys and their values"),
        ("def sweep(): yield {'seed': None}", "'seed' needs one value"),
        ("def sweep(): yield {'data.flip': 'maybe'}", "needs true or false"),
        (
            "def sweep(): yield from zipped({'seed': [1, 2], 'vit.depth': [1]})",
            r"file.py, line 4: zipped: give the same",
        ),
        ("def sweep():\n    yield from grid({'seed': 3})", "file.py, line 5: grid: 'seed' needs a list of values"),
        (
            "RATE = log_uniform(0, 1)\ndef sweep(): yield {}",
            r"file.py, line 4: log_uniform\(0, 1\): both must be above",
        ),
        ("def sweep():\n    yield {'seed': sed}", "file.py, line 5: NameError"),
        ("BASE = 3\ndef sweep(): yield {}", "BASE = 3 needs a string"),
        ("BASE = 'configs/no.py'\ndef sweep(): yield {}", "--config=configs/no.py: no such file; .* you are in "),
    ],
)
def test_a_faulty_sweep_file_is_refused_by_its_line(here, text, message):
    (here / "file.py").write_text(SWEEP + text)
    with pytest.raises(UserError, match=message):
        load_sweep(here / "file.py", here / "runs")


def test_an_experiment_is_no_sweep(here):
    with pytest.raises(UserError, match=r"not a sweep but an experiment: python train.py --config=base.py"):
        load_sweep(Path("base.py"), here / "runs")


def test_the_words_of_a_command_line_may_come_in_any_order_and_form(here):
    (here / "a:b.py").write_text((here / "base.py").read_text())
    words = ["--config.seed=3", "--config", "a:b.py", "--config.vit.depth", "2", "--config.data.flip", "--workdir=x"]
    experiment, others = read(words)
    assert (experiment.config.seed, experiment.config.vit.depth, experiment.config.data.flip) == (3, 2, True)
    assert (str(experiment.path), experiment.arg, experiment.name) == ("a:b.py", "", "a:b")
    assert experiment.given == ["seed", "vit.depth", "data.flip"]
    assert others == ["--workdir=x"]
    run = experiment.config.to_dict()
    assert override(run, ["--config.data.batch_size", "7"], "data")["data"]["batch_size"] == 7


def test_two_experiments_are_refused(here):
    with pytest.raises(UserError, match=r"--config is given 2 times, base.py and base.py:smoke: name one"):
        read(["--config=base.py", "--config=base.py:smoke"])
    with pytest.raises(UserError, match=rf"name an experiment: .*; the current folder, {here}, has no folder configs"):
        read(["--config="])
