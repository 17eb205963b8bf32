"""Sampling from a run's folder alone: the same images however many, the labels asked for, every form of output."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import gormley_vision
from gormley_vision.command_line import load_config_file
from gormley_vision.errors import UserError
from gormley_vision.run import run
from gormley_vision.samples import Pictures, Texts
from gormley_vision.sampling import sample
from gormley_vision.tasks.gan.sampling import great_circle

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A conditional run of the smoke config."""
    root = tmp_path_factory.mktemp("sampling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        config = load_config_file(f"{ROOT}/configs/cdcgan_mnist.py:smoke")
        config.mesh.data = 1
        assert run(config.to_dict(), root / "run") == 0
        yield root / "run"


@pytest.fixture(scope="module")
def restored(folder):
    return gormley_vision.restore(folder)


def test_the_same_seed_gives_the_same_images_however_many(restored):
    few, many = sample(restored, num=5), sample(restored, num=130)
    np.testing.assert_array_equal(few.images, many.images[:5])
    np.testing.assert_array_equal(few.labels, many.labels[:5])
    assert len({image.tobytes() for image in many.images}) == 130
    assert not np.array_equal(few.images, sample(restored, num=5, seed=1).images)


def test_samples_can_start_at_any_number(restored):
    whole, part = sample(restored, num=100), sample(restored, num=30, first=70)
    np.testing.assert_array_equal(whole.images[70:], part.images)
    np.testing.assert_array_equal(whole.labels[70:], part.labels)


def test_labels_are_as_asked_and_are_an_input(restored):
    threes, fives = sample(restored, num=4, label="3"), sample(restored, num=4, label="5")
    assert threes.labels.tolist() == [3, 3, 3, 3]
    assert not np.array_equal(threes.images, fives.images)
    with pytest.raises(UserError, match="the classes are 0: 0, 1: 1"):
        sample(restored, num=4, label="10")
    with pytest.raises(UserError, match="at least 1"):
        sample(restored, num=0)
    with pytest.raises(UserError, match="--labels: no such option of a gan run; did you mean 'label'"):
        sample(restored, num=1, labels="3")


def test_restore_gives_the_pure_generator(restored):
    noise = jax.random.normal(jax.random.key(1), (2, restored.config["generator"]["latent_size"]))
    images = restored.task.generate(restored.state.ema, noise, np.array([1, 2]))
    assert images.shape == (2, 28, 28, 1)
    raw = restored.task.generate(restored.state.generator.variables, noise, np.array([1, 2]))
    assert not np.array_equal(images, raw)
    assert restored.class_names == tuple("0123456789")


def test_great_circle_keeps_its_ends_its_length_and_its_speed():
    a, b = np.array([2.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])
    path = great_circle(a, b, np.linspace(0, 1, 4))
    half, root = 1.0, np.sqrt(3.0)
    np.testing.assert_allclose(path, [[2, 0, 0], [root, half, 0], [half, root, 0], [0, 2, 0]], atol=1e-12)
    np.testing.assert_allclose(great_circle(a, 3 * a, np.array([0.5])), [[4, 0, 0]])


def test_interpolation_begins_and_ends_at_samples_of_the_seed(restored):
    walks, ends = sample(restored, num=16, label="7", interpolate=True), sample(restored, num=4, label="7")
    assert walks.grid().shape == (2 * 30 - 2, 8 * 30 - 2, 1)
    ends_of_walks = walks.images.reshape(2, 8, 28, 28, 1)[:, [0, 7]].reshape(4, 28, 28, 1)
    np.testing.assert_allclose(ends_of_walks, ends.images, atol=1e-6)


def test_a_checkpoint_of_other_code_is_refused_by_name(folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    meta = moved / "checkpoints" / "8" / "meta.json"
    document = json.loads(meta.read_text())
    tree = document["tree"]
    tree["generator/variables/params/Dense_9/kernel"] = tree.pop("generator/variables/params/Dense_0/kernel")
    tree["discriminator/variables/params/Dense_0/kernel"] = "float32[3,1]"
    meta.write_text(json.dumps(document))
    sums = moved / "checkpoints" / "8" / "SHA256SUMS"
    import hashlib

    digest = hashlib.sha256(meta.read_bytes()).hexdigest()
    lines = [f"{digest}  meta.json" if line.endswith("  meta.json") else line for line in sums.read_text().splitlines()]
    sums.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as refusal:
        gormley_vision.restore(moved)
    for part in (
        "missing in the checkpoint: generator/variables/params/Dense_0/kernel",
        "extra in the checkpoint: generator/variables/params/Dense_9/kernel",
        "differs: discriminator/variables/params/Dense_0/kernel",
    ):
        assert part in str(refusal.value)


def test_a_missing_run_or_step_is_named(folder, tmp_path):
    with pytest.raises(UserError, match="it has: none"):
        gormley_vision.restore(tmp_path)
    with pytest.raises(UserError, match=r"of step 7 .*it has: 6, 8"):
        gormley_vision.restore(folder, step=7)


@pytest.mark.slow
def test_the_command_writes_each_form(folder, tmp_path):
    def command(*words):
        words = (sys.executable, "scripts/sample.py", f"--workdir={folder}", *words)
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    for words, out in (
        (["--num=20"], "grid.png"),
        (["--num=3", "--label=4"], "images.npz"),
        (["--num=2", "--raw"], "folder"),
    ):
        done = command(*words, f"--out={tmp_path / out}")
        assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "grid.png").size == (2 * 30 - 2, 10 * 30 - 2)  # one class a row
    arrays = np.load(tmp_path / "images.npz")
    assert arrays["images"].shape == (3, 28, 28, 1)
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].tolist() == [4, 4, 4]
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == [
        "000000_class0.png",
        "000001_class1.png",
    ]
    refused = command("--out=grid.gif")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_samples_are_not_mixed_with_what_lies_there(tmp_path):
    pictures = Pictures(np.zeros((2, 4, 4, 1)), np.array([1, 0], np.int32), ("a", "b"))
    pictures.write(tmp_path / "of.dots" / "grid.PNG")
    assert Image.open(tmp_path / "of.dots" / "grid.PNG").size == (4, 10)  # a class a row
    with pytest.raises(UserError, match="has files"):
        pictures.write(tmp_path / "of.dots")
    (tmp_path / "empty.d").mkdir()
    pictures.write(tmp_path / "empty.d")
    assert sorted(path.name for path in (tmp_path / "empty.d").iterdir()) == ["000000_class1.png", "000001_class0.png"]
    with pytest.raises(UserError, match=r"write FILE\.png, FILE\.npz or a folder"):
        pictures.write(tmp_path / "grid.gif")


def test_texts_are_written_in_each_form(tmp_path):
    texts = Texts(("To be,", "or \u2013 not"))
    for name in ("all.txt", "all.jsonl", "each"):
        texts.write(tmp_path / name)
    assert (tmp_path / "all.txt").read_text() == "To be,\n---\nor \u2013 not\n"
    assert [json.loads(line)["text"] for line in (tmp_path / "all.jsonl").read_text().splitlines()] == list(texts.texts)
    assert (tmp_path / "each" / "000001.txt").read_text() == "or \u2013 not"
