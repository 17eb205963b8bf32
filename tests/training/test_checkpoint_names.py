"""A checkpoint whatever its folder is called, beside whatever lies there, and proven readable before it counts."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.errors import UserError
from gormley_vision.training import checkpoints as ckpt

# The kernel is too large to lie inside OCDBT's index.
KERNEL = np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32)
STATE = {"net": {"kernel": KERNEL, "bias": np.float32(7)}}


def saved(folder):
    checkpoints = ckpt.Checkpoints(folder, keep_last=2, keep_every=0)
    checkpoints.save(3, {"net": {name: jnp.asarray(x) for name, x in STATE["net"].items()}}, {"config": {}})
    checkpoints.wait()
    return folder / "3"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "name", ["run[1]", "*", "a?b", " a b ", "#%41", "ü日本", "a\nb", "x'\"y", "$HOME", "~", "gs", "{x}|y"]
)
def test_a_run_may_have_any_name(tmp_path, name, plain):
    checkpoint = saved(tmp_path / name / "checkpoints")
    assert ckpt.find_damage(checkpoint) == ""
    assert ckpt.digest(checkpoint) == ckpt.digest(plain)


@pytest.mark.parametrize("name", ["a\\b", "gs:", "\udcff"])
def test_a_name_that_cannot_be_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="pass another path"):
        ckpt.orbax_path(tmp_path / name)


def test_extra_files_are_no_damage_and_missing_ones_are(plain, tmp_path):
    checkpoint = tmp_path / "3"
    shutil.copytree(plain, checkpoint)
    for name in (".DS_Store", "Thumbs.db", "arrays/.nfs0001", "arrays/state/d/.meta.json.swp", "arrays/.DS_Store"):
        (checkpoint / name).write_text("x")
    (tmp_path / "4").write_text("a file")
    (tmp_path / "²").mkdir()
    assert ckpt.find_damage(checkpoint) == ""
    assert ckpt.newest_complete(tmp_path) == 3
    assert ckpt.digest(checkpoint) == ckpt.digest(plain)
    lines = (checkpoint / "SHA256SUMS").read_text().splitlines(keepends=True)
    for kept in range(len(lines)):
        (checkpoint / "SHA256SUMS").write_text("".join(lines[:kept]))
        assert ckpt.find_damage(checkpoint) == "SHA256SUMS is cut short"


@pytest.mark.parametrize("lost", ["arrays/state/manifest.ocdbt", "arrays/state/d", "arrays/state/ocdbt.process_0"])
def test_what_cannot_be_read_back_is_no_checkpoint(plain, tmp_path, lost):
    checkpoint = tmp_path / "3"
    shutil.copytree(plain, checkpoint)
    ckpt.refuse_unreadable(checkpoint, ckpt.read_meta(checkpoint)["tree"])
    shutil.rmtree(checkpoint / lost) if (checkpoint / lost).is_dir() else (checkpoint / lost).unlink()
    with pytest.raises(UserError, match=r"cannot be read back: net/"):
        ckpt.refuse_unreadable(checkpoint, ckpt.read_meta(plain)["tree"])


def test_another_shape_is_not_read_back(plain):
    with pytest.raises(UserError, match=r"net/kernel should be float32\[60,40\], but is float32\[40,60\]"):
        ckpt.refuse_unreadable(plain, {"net/kernel": "float32[60,40]"})


def test_the_checkpoint_before_stays_where_the_new_one_cannot_be_read(tmp_path, monkeypatch):
    saved(tmp_path)
    checkpoints = ckpt.Checkpoints(tmp_path, keep_last=1, keep_every=0)
    monkeypatch.setattr(ckpt, "describe_tree", lambda state: {"net/bias": "float32[4]"})
    checkpoints.save(4, {"net": {"bias": jnp.ones(3)}}, {"config": {}})
    with pytest.raises(UserError, match="cannot be read back"):
        checkpoints.wait()
    assert ckpt.steps_of(tmp_path) == [3]
