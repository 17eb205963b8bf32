"""Runs that earlier versions wrote: sampled, continued, and their configs brought to today's keys.

`golden/run_gan` and `golden/run_vit` were stopped at step 6 of 8 by commit d640149, before keys said what reads them:
`train.py --config=configs/dcgan_mnist.py:smoke` (and vit_mnist with vit.patch_size=8) with data.source=fake,
data.image_size=16, mesh.data=1, log.samples=4, checkpoint.keep_last=1, stop_after='6 steps'. They stay as they are:
their checkpoints are of orbax's v0 API.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gormley_vision import experiment
from gormley_vision.config import upgraded, validate
from gormley_vision.errors import UserError
from gormley_vision.fields import MESH_RULES
from gormley_vision.files import read_json
from gormley_vision.sampling import restore, sample
from gormley_vision.training import checkpoints, loop

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["run_gan", "run_vit"])
def test_an_older_run_is_continued(name, tmp_path):
    workdir = Path(shutil.copytree(GOLDEN / name, tmp_path / "run"))
    assert (workdir / "checkpoints/6/arrays/manifest.ocdbt").is_file()  # where v0 puts it
    config = upgraded(read_json(workdir / "config.json"))
    config["stop_after"], config["data"]["cache_dir"] = "", str(tmp_path / "cache")
    validate(config)
    batches = experiment.make_batches(config)
    task = experiment.make_task(config, batches.description)
    assert loop.train(task, batches, config, workdir) == 0
    assert checkpoints.steps_of(workdir / "checkpoints")[-1] == 8
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_an_older_run_is_sampled():
    pictures = sample(restore(GOLDEN / "run_gan"), num=3)
    assert pictures.images.shape == (3, 16, 16, 1)
    assert np.abs(pictures.images).max() > 0
    assert pictures.labels is None


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("attention/qkv: tensor - -; mlp/in: tensor", MESH_RULES),  # patterns of parameters' names
        ("Transposed|Convolution_0/kernel: tensor", MESH_RULES),
        ("mlp: - fsdp", MESH_RULES),
        ("mlp: fsdp", "mlp: fsdp"),
        ("", ""),
    ],
)
def test_rules_by_patterns_become_the_default_by_names(old, now):
    saved = read_json(GOLDEN / "run_vit" / "config.json")
    assert ": tensor -" in saved["mesh"]["rules"]
    assert upgraded(saved)["mesh"]["rules"] == MESH_RULES
    saved["mesh"]["rules"] = old
    assert upgraded(saved)["mesh"]["rules"] == now


def test_absent_keys_are_at_their_defaults_and_retired_ones_are_dropped():
    saved = read_json(GOLDEN / "run_vit" / "config.json")
    assert "max_megapixels" not in saved["data"]
    assert saved["log"]["samples"] == 4
    config = upgraded(saved)
    assert config["data"]["max_megapixels"] == 178
    assert "samples" not in config["log"]
    saved["data"]["from_the_future"] = 1
    with pytest.raises(UserError, match=r"another version.*data\.from_the_future"):
        upgraded(saved)
