"""Steps compiled by TPU's own compiler, for chips that are not here: with `pip install -e ".[plan]"`, else skipped.

In a process of its own, since libtpu is loaded once and keeps jax from what the other tests set.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
SPLIT = {"vit_22b": ["v5p:4x4x8", "--config.mesh.fsdp=32"], "vit_h14_imagenet": ["v5p:4x4x8"]}
SPLIT["lm_1b"] = ["v5p:4x4x4"]
SPLIT |= {name: ["v5e:4x4", "--config.data.batch_size=16"] for name in ("pix2pix_camvid", "pix2pix_folder")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason='pip install -e ".[plan]"'),
]


def plan(tmp_path, config, topology, *words):
    words = [f"--config=configs/{config}.py", f"--topology={topology}", f"--out={tmp_path / 'plan.json'}", *words]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "scripts/plan.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout, json.loads((tmp_path / "plan.json").read_text())["reports"]


def test_a_small_step_is_reported_whole(tmp_path):
    words = ["--price=2", "--batch_sizes=64,128", "--meshes=4x1x1,1x4x1", "--config.vit.scan=true"]
    text, reports = plan(tmp_path, "vit_mnist", "v5e:2x2", *words)
    assert [report["fits"] for report in reports] == [True] * 4
    assert "1x4x1" in text
    for report in reports:
        step = report["step"]
        assert report["device"] == "TPU v5 lite"
        # Six layers in a loop, which the compiler's own count takes once.
        assert step["flops"] > 3 * report["compiler_flops"]
        assert 0 < step["seconds_at_least"] < step["seconds_by_the_compiler"] * 5
        assert report["unknown_loops"] == 0
    assert reports[2]["memory"]["parameters"] == pytest.approx(reports[0]["memory"]["parameters"] / 4, rel=0.05)


def test_attention_is_a_kernel_and_the_costliest_operations_are_named(tmp_path):
    words = ["--config.compute_dtype=bfloat16", "--config.mesh.tensor=2", "--config.data.batch_size=1024", "--explain"]
    text, (report,) = plan(tmp_path, "vit_mnist", "v5e:2x2", *words)
    step = report["step"]
    assert step["kernels"] == 2 * 6  # forward and backward of each layer
    tokens, width, images = 17, 64, 1024 // 2  # on each device, which has half of the heads
    assert step["kernel_flops"] == 6 * (2 + 5) * 2 * images * tokens**2 * width / 2
    assert 0 < step["share_of_peak"] < 1
    assert "12 calls of custom kernels" in text
    seconds = [operation["seconds"] for operation in report["operations"]]
    assert len(seconds) == 10
    assert seconds == sorted(seconds, reverse=True)
    named = text.partition("the costliest operations")[2]
    assert "encoder/attention" in named
    assert "backward: encoder/" in named


BYTES = """
from gormley_vision.command_line import load_config_file
from gormley_vision.experiment import described
from gormley_vision.planning.plan import plan, with_overrides
from gormley_vision.planning.topology import chip_of, devices_of

devices = devices_of("v5e:2x2")[:1]
config = load_config_file("configs/vit_mnist.py").to_dict()
data = described(config, tuple("0123456789"), 50_000)
for depth in (8, 16, 24):
    deep = {"vit.scan": True, "vit.dropout": 0.1, "data.batch_size": 1024, "vit.depth": depth}
    deep["compute_dtype"] = "bfloat16"
    print(plan(with_overrides(config, deep), devices, chip_of(devices[0]), data)["step"]["hbm_bytes"])
"""


def test_bytes_of_device_memory_grow_no_faster_than_scanned_layers():
    """A layer's residuals lie in stacks; counting a whole stack in each layer would make the sum quadratic.

    Then the second difference would be 1.67 times the first: 24^2 - 16^2 over 16^2 - 8^2.
    """
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", BYTES], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few, more, most = map(float, done.stdout.split())
    assert 0.5 < (most - more) / (more - few) < 1.3  # not 1: which stacks lie on the chip differs


def test_what_does_not_fit_says_what_would_help(tmp_path):
    words = [
        "--config.data.batch_size=1048576",
        "--config.vit.depth=48",
        "--config.vit.scan=true",
        "--config.compute_dtype=bfloat16",
    ]
    words += ["--config.mesh.fsdp=4", "--config.vit.remat=true"]  # so that few remedies are left to compile
    text, (report,) = plan(tmp_path, "vit_mnist", "v5e:2x2", *words)
    assert not report["fits"]
    assert report["needed"] > report["capacity"]
    assert "does not fit" in text
    needs = [remedy["needed"] for remedy in report["remedies"]]
    assert needs == sorted(needs)
    assert all(0 < need < report["needed"] for need in needs)
    assert "--config.data.batch_size=524288" in text


def test_an_unknown_topology_says_how_one_is_written():
    words = ["scripts/plan.py", "--config=configs/vit_mnist.py", "--topology=v5q:2x2"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--topology=v5q:2x2" in done.stderr
    assert "write GENERATION:CHIPS, as in v5e:4x4" in done.stderr


def test_a_mesh_that_does_not_fit_the_slice_says_what_does():
    words = ["scripts/plan.py", "--config=configs/vit_mnist.py", "--topology=v5p:8x8x8", "--config.mesh.fsdp=32"]
    words += ["--config.data.batch_size=512"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "mesh.data=16, mesh.fsdp=32, mesh.tensor=1: each must be 1 or a product of some sides" in done.stderr
    assert done.stderr.strip().endswith("of the slice, 8x8x8")


def test_every_command_in_headers_and_docs_has_a_mesh_that_fits_its_slice():
    files = [*ROOT.glob("configs/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    texts = [file.read_text().replace("\\\n", " ") for file in files]
    found = [re.findall(r"^    python scripts/plan\.py (.*--topology=.*)$", text, re.M) for text in texts]
    commands = [shlex.split(command, comments=True) for each in found for command in each]
    assert len(commands) >= 10
    program = """
import json, sys
from gormley_vision.command_line import read
from gormley_vision.experiment import mesh_of
from gormley_vision.planning import topology
for words in json.loads(sys.argv[1]):
    experiment, others = read(words)
    (place,) = (word.removeprefix("--topology=") for word in others if word.startswith("--topology="))
    mesh_of(experiment.config.to_dict(), topology.devices_of(place))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("COMPILE_ALL" not in os.environ, reason="COMPILE_ALL=1 compiles every config: 14 minutes")
@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_compiles_for_a_pod_that_it_fits_on(config, tmp_path):
    topology, *words = SPLIT.get(config, ["v5e:4x4"])
    if config == "vit_l16_imagenet":
        topology = "v5p:4x4x4"
    _, (report,) = plan(tmp_path, config, topology, *words)
    assert report["fits"], report["needed"]
    assert report["step"]["flops"] > 0


def test_training_where_the_compiler_is_installed_and_no_tpu_says_nothing_of_it(tmp_path):
    """libtpu looks for chips as soon as jax does, and prints from C++ that it found none."""
    words = ["--config=configs/dcgan_mnist.py:smoke", "--config.data.source=fake", "--config.data.image_size=16"]
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(
        [sys.executable, "train.py", *words, "--config.stop_after=1 steps", f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "decod" not in line]
    assert "starting at step 0 of" in lines[0]
    assert "tpu" not in done.stderr.replace(str(tmp_path), "").lower()
