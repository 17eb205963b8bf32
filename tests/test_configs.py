"""Every config file builds at full size, trains small and samples, some resume; every key can be overridden."""

import json
import re
import shlex
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from gormley_vision import config as cfg
from gormley_vision import experiment, fields, task_modules
from gormley_vision.command_line import load_config_file, read
from gormley_vision.errors import UserError
from gormley_vision.files import read_json
from gormley_vision.run import run
from gormley_vision.samples import Pictures
from gormley_vision.training import checkpoints
from gormley_vision.training.task import Previewed, Sampled, first_state

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
NAMES = [path.stem for path in FILES]
# What every config must do is tested of each with the slow tests, and of one for each task with the fast ones.
# Those that are also interrupted: each task, and states with more than weights (spectral vectors, ADA's controller).
INTERRUPTED = (
    *(
        "dcgan_mnist",
        "ring2d",
        "r3gan_cifar",
        "sngan_projection_cifar",
        "vitgan_cifar",
        "vit_mnist",
        "vit_fashion_mnist",
    ),
    *("lm_docs", "mlm_text", "finetune_text", "masked_patches_fashion", "pix2pix_camvid", "sr_edsr_x2"),
    *("style_gatys", "style_feedforward"),
)
AT_ONCE = ("dcgan_mnist", "vit_mnist", "lm_docs", "mlm_text", "finetune_text")
EACH = [pytest.param(path, id=path.stem, marks=() if path.stem in AT_ONCE else pytest.mark.slow) for path in FILES]


def train_py(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_config_builds_and_is_plain_data(path):
    config = load_config_file(str(path))
    cfg.validate(config)
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert len(cfg.describe(config).splitlines()) == len(cfg.fields_of(config))
    with pytest.raises(UserError, match="smoke"):
        load_config_file(f"{path}:smok")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_command_in_a_config_header_is_a_command(path):
    """The header's first indented line runs this very file, with flags that exist."""
    text = path.read_text()
    command = re.search(r"^    (python train\.py .*?)$", text.replace("\\\n", " "), re.MULTILINE)
    assert command, "no command"
    words = shlex.split(command.group(1))[2:]
    assert f"--config=configs/{path.name}" in words
    _, others = read([word.replace("configs/", f"{ROOT}/configs/") for word in words])
    assert [word for word in others if not word.startswith("--workdir")] == []
    for part in ("Source:", "Deviations:", "Reached here:"):
        assert part in text, f"the header lacks '{part}'"


@pytest.mark.parametrize("path", EACH)
def test_the_full_size_step_traces(path):
    config = load_config_file(str(path)).to_dict()
    data = experiment.described(config, tuple("0123456789"), 50_000)
    task, key = experiment.make_task(config, data), jax.random.key(0)
    k, m = task_modules.find(config["task"]).minibatches(config), config["data"]["batch_size"]
    batch = {name: jax.ShapeDtypeStruct((k, m, *f.shape), f.dtype) for name, f in data.features.items()}
    state = jax.eval_shape(partial(first_state, task), key)
    after, metrics, checks = jax.eval_shape(task.train_step, state, batch, key)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert all(value.shape == () for value in [*metrics.values(), *checks.values()])
    if isinstance(task, Previewed):
        assert jax.eval_shape(task.preview, state, key).ndim in (2, 3, 4)  # texts, texts with guesses, or pictures


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_smoke_version_trains_checkpoints_and_samples_and_some_resume(path, tmp_path):
    config = load_config_file(f"{path}:smoke")
    config.mesh.data = 1
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(config.to_dict(), whole) == 0
    assert checkpoints.steps_of(whole / "checkpoints") == [6, 8]
    assert read_json(whole / "config.json") == config.to_dict()
    if path.stem in INTERRUPTED:
        equals_one_in_parts(config, whole, parts)

    from gormley_vision.sampling import restore, sample

    restored = restore(whole)
    assert restored.step == 8
    if isinstance(restored.task, Sampled):
        samples = sample(restored, num=3)
        assert len(samples) == (1 if path.stem == "style_gatys" else 3)  # that run is one picture
        if isinstance(samples, Pictures):
            assert np.isfinite(samples.images).all()
            assert np.abs(samples.images).max() <= 1
    else:
        with pytest.raises(UserError, match="cannot be sampled"):
            sample(restored, num=3)


def equals_one_in_parts(config, whole, parts):
    """Train the run again with a stop at step 5: checkpoints, samples and records are those of `whole`."""
    config.stop_after = "5 steps"
    assert run(config.to_dict(), parts) == 0
    assert checkpoints.steps_of(parts / "checkpoints") == [3, 5]
    config.stop_after = ""
    assert run(config.to_dict(), parts) == 0
    digests = [checkpoints.digest(folder / "checkpoints" / "8") for folder in (whole, parts)]
    assert digests[0] == digests[1]
    assert [p.read_bytes() for p in sorted(whole.glob("samples/*"))] == [
        p.read_bytes() for p in sorted(parts.glob("samples/*"))
    ]
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (whole, parts)
    ]
    assert [line["step"] for line in lines[0]] == list(range(1, 9))
    for line in lines[0] + lines[1]:
        del line["time"]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("task", task_modules.names())
def test_every_key_can_be_overridden_on_the_command_line(task, tmp_path):
    """Each default, written as a flag, parses and comes back."""
    file = tmp_path / "experiment.py"
    file.write_text(
        f"from gormley_vision.config import default_config\ndef get_config(arg=''): return default_config({task!r})"
    )
    fields = {key: field for key, field in cfg.fields_of({"task": task}).items() if key != "task"}
    values = {key: _another(field) for key, field in fields.items()}
    experiment, others = read([*(f"--config.{key}={value}" for key, value in values.items()), f"--config={file}"])
    parsed = cfg.flatten(experiment.config)
    assert {key: parsed[key] for key in values} == values
    assert others == []


def test_the_rotary_presets_of_the_table_are_those_of_the_layers():
    from gormley_vision.layers.rope import PRESETS

    assert tuple(PRESETS) == fields.PRESET_NAMES


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ({"vit.patch_size": 5}, "--config.vit.patch_size=4"),
        ({"vit.width": 66}, "--config.vit.width="),
        ({"vit.rope": "timm", "vit.width": 24}, "heads of a multiple of 4"),
        ({"vit.rope": "dinov3", "vit.rope_scaling": "ntk", "vit.trained_grid": 7}, "rope_scaling=none"),
        ({"vit.position": "sincos2d", "vit.width": 6, "vit.heads": 1}, "--config.vit.width=8"),
        ({"vit.rope": "llama", "vit.rope_scaling": "ntk"}, "trained_grid=7"),
        ({"classification.only_head": True}, "set --config.init_from"),
        ({"classification.randaugment_magnitude": 11.0}, "at most 10"),
        ({"classification.label_smoothing": 1.5}, "at most 1"),
    ],
)
def test_a_vit_that_cannot_be_is_refused_before_anything_compiles(overrides, advice):
    config = cfg.default_config("classification")
    config.update_from_flattened_dict(overrides)
    with pytest.raises(UserError) as refusal:
        cfg.validate(config.to_dict())
    assert advice in str(refusal.value)


def _another(field):
    """A value of the field's type other than its default."""
    if field.is_duration:
        return "7 steps"
    if field.choices:
        return next(choice for choice in field.choices if choice != field.default)
    return {
        bool: lambda d: not d,
        int: lambda d: d + 3,
        float: lambda d: d / 2 + 0.125,
        str: lambda d: f"{d}x",
    }[type(field.default)](field.default)


@pytest.mark.parametrize(
    ("flag", "advice"),
    [
        ("--config.data.batchsize=64", "did you mean 'data.batch_size'"),
        ("--config.batch_size=64", "did you mean 'data.batch_size'"),
        ("--config.data.batch_size=many", "needs an integer"),
        ("--config.data.flip=maybe", "needs true or false"),
        ("--config.generator_optimizer.learning_rate=fast", "needs a number"),
        ("--config.discriminator.architecture=pachgan", "'patchgan'"),
        ("--config.discriminator.receptive_field=15", "did you mean '1'"),
        ("--config.checkpoint.every=5 epoch5", "write '50 epochs'"),
        ("--config.data.batch_size=0", "at least 1"),
        ("--config.generator_optimizer.learning_rate=nan", "finite number"),
        ("--wrkdir=x", "workdir"),
    ],
)
def test_a_wrong_flag_is_refused_at_once_without_a_trace(flag, advice):
    began = time.perf_counter()
    done = train_py("--config=configs/dcgan_mnist.py", flag)
    seconds = time.perf_counter() - began
    assert done.returncode != 0
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < 2


def test_a_wrong_config_file_or_none_is_refused_with_the_nearest():
    done = train_py("--config=configs/dcgan_mnits.py")
    assert done.returncode == 2
    assert "did you mean 'configs/dcgan_mnist.py'" in done.stderr
    done = train_py("--workdir=x")
    assert done.returncode == 2
    assert "configs/dcgan_mnist.py" in done.stderr


def test_print_config_shows_every_key_with_its_meaning():
    done = train_py("--config=configs/dcgan_mnist.py", "--config.data.batch_size=96", "--print_config")
    assert done.returncode == 0
    assert re.search(r"^data\.batch_size = 96 +# images of one minibatch", done.stdout, re.MULTILINE)


def test_a_hand_made_config_with_a_wrong_key_or_type_is_refused():
    config = cfg.default_config("gan").to_dict()
    config["data"]["batch_sise"] = 4
    config["seed"] = "zero"
    del config["gan"]["conditional"]
    with pytest.raises(UserError) as refusal:
        cfg.validate(config)
    for part in (
        "data.batch_sise: no such key; did you mean 'data.batch_size'",
        "seed='zero': needs an integer",
        "gan.conditional: missing",
    ):
        assert part in str(refusal.value)
