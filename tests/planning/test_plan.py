"""scripts/plan.py on this machine's devices, and the report's parts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gormley_vision.command_line import load_config_file
from gormley_vision.config import default_config
from gormley_vision.errors import UserError
from gormley_vision.experiment import described
from gormley_vision.planning import topology
from gormley_vision.planning.chips import CHIPS
from gormley_vision.planning.plan import plan, with_overrides
from gormley_vision.planning.reports import described_data, remedies, split_memory

ROOT = Path(__file__).parents[2]
CHIP = CHIPS["TPU v5 lite"]


def script(name, *words, **environment):
    return subprocess.run(
        [sys.executable, name, *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("file", "classes", "examples", "said"),
    [
        ("lm_1b", 0, 0, ["assumed: 50,000 examples per epoch (--epoch_images)"]),
        ("lm_1b", 0, 1000, []),
        ("finetune_folder", 0, 1000, ["assumed: 10 classes (--classes)"]),
        ("finetune_folder", 0, 0, ["assumed: 10 classes (--classes) and 50,000 examples per epoch (--epoch_images)"]),
        ("vit_l16_imagenet", 0, 0, []),
    ],
)
def test_what_is_assumed_of_data_is_said(file, classes, examples, said, caplog):
    config = load_config_file(str(ROOT / "configs" / f"{file}.py")).to_dict()
    with caplog.at_level("INFO"):
        data = described_data(config, classes, examples)
    assert [line.getMessage() for line in caplog.records] == said
    assert not examples or data.length == examples


DATA = described({"task": "classification", "data": {"image_size": 16, "channels": 1}}, tuple("0123456789"), 1000)


def small(**overrides):
    config = default_config("classification")
    config.data.update(source="fake", image_size=16, batch_size=32)
    config.vit.update(width=32, depth=1, mlp=64, heads=2, patch_size=8)
    return with_overrides(config.to_dict(), overrides)


def test_memory_by_kind_follows_the_mesh():
    report = plan(small(**{"mesh.fsdp": 8}), jax.devices(), CHIP, DATA)
    layer = 4 * 32 * 32 + 4 * 32 + 2 * 32 * 64 + 32 + 4 * 32
    others = 64 * 32 + 32 + 32 + 5 * 32 + 2 * 32 + 32 * 10  # patches, their bias, [CLS], positions, last norm, head
    whole = 10 + 64  # biases that are not split: 8 does not divide the head's, and `tensor` has the MLP's only axis
    assert report["memory"]["parameters"] == 4 * ((layer + others) // 8 + whole)
    assert report["memory"]["averages"] == report["memory"]["parameters"]
    assert report["memory"]["optimizer"] == pytest.approx(2 * report["memory"]["parameters"], abs=16)  # and counters
    assert report["memory"]["data"] == 4 * (16 * 16 + 4)  # 4 of 32 images, and labels
    assert report["fits"]
    assert report["needed"] == sum(report["memory"].values())
    tiny = dataclasses.replace(CHIP, memory_gib=1e-6)
    assert not plan(small(), jax.devices()[:1], tiny, DATA)["fits"]


def test_temporaries_are_told_apart_by_two_batch_sizes():
    both = "activations and temporaries"
    memory, half = {"parameters": 5, both: 100}, {"parameters": 5, both: 60}
    assert split_memory(memory, half) == {"parameters": 5, "activations": 80, "temporaries": 20}
    assert split_memory(memory, {both: 120})["activations"] == 0
    assert split_memory(memory, {both: 10})["activations"] == 100  # never more than there is


def test_remedies_are_overrides_that_can_be_typed():
    found = remedies(small(), 8)
    assert found == [
        {"vit.remat": True},
        {"accumulate": 2},
        {"mesh.fsdp": 8, "mesh.data": 1},
        {"data.batch_size": 16},
        {"compute_dtype": "bfloat16"},
    ]
    frugal = {"vit.remat": True, "accumulate": 4, "mesh.fsdp": 8, "compute_dtype": "bfloat16"}
    assert remedies(small(**frugal, **{"data.batch_size": 8}), 8) == []
    assert {"vit.remat": True} not in remedies(default_config("gan").to_dict(), 8)


@pytest.mark.slow
def test_the_step_that_trained_here_is_the_one_reported(tmp_path):
    """By the compilation cache: the report compiles no step of its own."""
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"), "XLA_FLAGS": ""}
    config = "--config=configs/vit_mnist.py:smoke"
    script("train.py", config, f"--workdir={tmp_path / 'run'}", **environment).check_returncode()
    before = {path.name for path in (tmp_path / "xla").glob("jit_step-*")}
    assert before
    out = tmp_path / "plan.json"
    done = script("scripts/plan.py", config, f"--out={out}", "--batch_sizes=16,17", **environment)
    assert done.returncode == 0, done.stderr
    after = {path.name for path in (tmp_path / "xla").glob("jit_step-*")}
    assert len({name.removesuffix("-atime").removesuffix("-cache") for name in after - before}) == 1  # of 17 images
    reports = json.loads(out.read_text())["reports"]
    assert [report["images"] for report in reports] == [16, 17]
    assert reports[1]["step"]["flops"] > reports[0]["step"]["flops"]
    rows = done.stdout.splitlines()
    assert rows[0].split() == ["batch", "mesh", "GiB", "per", "device", "fits", "examples/s,", "estimated"]
    assert rows[1].split()[:2] == ["16", "1x1x1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--meshes=2x2"], "--meshes=2x2: write DATAxFSDPxTENSOR"),
        (["--config.vit.depht=2"], "did you mean 'vit.depth'"),
        (["--config.vit.patch_size=5"], "--config.vit.patch_size=4"),
    ],
)
def test_a_mistake_is_refused_before_anything_compiles(words, message):
    done = script("scripts/plan.py", "--config=configs/vit_mnist.py:smoke", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_without_tpus_compiler_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[plan\]\""):
        topology.devices_of("v5e:2x2")
