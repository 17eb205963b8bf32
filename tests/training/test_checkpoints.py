"""Checkpoints: damage is named, retention, donation, trees, digests, full and read-only disks."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.errors import UserError
from gormley_vision.training import checkpoints as ckpt

HERE = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def state_of(step: int = 0, size: int = 8) -> dict:
    """A state with the dtypes and ranks of a real one."""
    draw = np.random.default_rng(step)
    return {
        "step": jnp.int32(step),
        "player": {
            "kernel": jnp.asarray(draw.normal(size=(size, 4)), jnp.float32),
            "half": jnp.asarray(draw.normal(size=3), jnp.bfloat16),
            "nothing": {},
        },
    }


def fill(folder: Path, *steps: int, keep_last: int = 99, keep_every: int = 0) -> ckpt.Checkpoints:
    checkpoints = ckpt.Checkpoints(folder, keep_last=keep_last, keep_every=keep_every)
    for step in steps:
        checkpoints.save(step, state_of(step), {"config": {}})
    checkpoints.wait()
    return checkpoints


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "checkpoints"
    fill(folder, 2, 4)
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    """Checkpoints 2 and 4, to be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


def largest(checkpoint: Path) -> Path:
    return max((p for p in (checkpoint / "arrays").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_bit(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_undamaged_newest_is_used(folder, said):
    assert ckpt.newest_complete(folder) == 4
    assert ckpt.newest_complete(folder, at=3) == 2
    assert ckpt.newest_complete(folder, at=1) is None
    assert said == []


@pytest.mark.parametrize("damage", ["bit", "truncated", "emptied", "deleted", "meta"])
def test_damaged_file_is_named_and_the_one_before_used(folder, said, damage):
    path = folder / "4" / "meta.json" if damage == "meta" else largest(folder / "4")
    size = path.stat().st_size
    if damage in ("bit", "meta"):
        flip_bit(path, size // 2)
    elif damage == "deleted":
        path.unlink()
    else:
        os.truncate(path, size - 1 if damage == "truncated" else 0)
    assert ckpt.newest_complete(folder) == 2
    name = str(path.relative_to(folder / "4"))
    assert len(said) == 1
    assert "checkpoint 4 is damaged" in said[0]
    assert f"{name} is missing" in said[0] if damage == "deleted" else f"{name} has changed" in said[0]


def test_every_file_is_covered_by_the_sums(folder):
    files = [path for path in (folder / "4").rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    assert len(files) > 5
    for path in files:
        flip_bit(path, path.stat().st_size - 1) if path.stat().st_size else path.write_bytes(b"x")
        assert str(path.relative_to(folder / "4")) in ckpt.find_damage(folder / "4")
        flip_bit(path, path.stat().st_size - 1) if path.read_bytes() != b"x" else path.write_bytes(b"")
    assert ckpt.find_damage(folder / "4") == ""


def test_sums_are_those_of_coreutils(folder):
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "4", check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("damage", ["deleted", "emptied", "a line short", "low bit", "high bit"])
def test_damaged_sums_are_damage(folder, said, damage):
    path = folder / "4" / "SHA256SUMS"
    if damage == "deleted":
        path.unlink()
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "a line short":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    else:
        flip_bit(path, 10, 7 if damage == "high bit" else 0)
    assert ckpt.newest_complete(folder) == 2
    assert "checkpoint 4 is damaged" in said[0]


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [(1, 0, [9]), (2, 0, [7, 9]), (2, 3, [3, 6, 7, 9]), (1, 4, [4, 9]), (99, 0, [1, 3, 4, 6, 7, 9])],
)
def test_retention(tmp_path, keep_last, keep_every, kept):
    fill(tmp_path, 1, 3, 4, 6, 7, 9, keep_last=keep_last, keep_every=keep_every)
    assert ckpt.steps_of(tmp_path) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, kept))
    assert all(ckpt.find_damage(tmp_path / str(step)) == "" for step in kept)


def test_damaged_newer_checkpoint_does_not_push_out_whole_ones(tmp_path):
    """Resumed from 3 because 6 is damaged, the run saves 5: pruning must not prefer 6 to it."""
    fill(tmp_path, 3, 6)
    flip_bit(largest(tmp_path / "6"), 5)
    checkpoints = ckpt.Checkpoints(tmp_path, keep_last=1, keep_every=0)
    checkpoints.set_aside(after=3)
    checkpoints.save(5, state_of(5), {"config": {}})
    checkpoints.wait()
    assert ckpt.newest_complete(tmp_path) == 5
    assert (tmp_path / "6.damaged").is_dir(), "set aside, not destroyed"


def test_partial_leftovers_are_never_read_and_are_cleared(folder):
    shutil.copytree(folder / "4", folder / "6.partial")
    assert ckpt.steps_of(folder) == [2, 4]
    assert ckpt.newest_complete(folder) == 4
    ckpt.Checkpoints(folder, keep_last=2, keep_every=0).clear_partial()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4"]


def test_partial_leftover_of_the_same_step_does_not_mix_in(tmp_path):
    (tmp_path / "4.partial" / "arrays").mkdir(parents=True)
    (tmp_path / "4.partial" / "arrays" / "stray").write_text("from a killed process")
    fill(tmp_path, 4)
    assert not list((tmp_path / "4").rglob("stray"))
    assert ckpt.find_damage(tmp_path / "4") == ""


def test_saved_values_survive_donation_right_afterwards(tmp_path):
    """The step after a save overwrites the state's memory while the background thread writes."""
    step = jax.jit(lambda x: {name: value * -1 + 1 for name, value in x.items()}, donate_argnums=0)
    checkpoints = ckpt.Checkpoints(tmp_path, keep_last=99, keep_every=0)
    draw = np.random.default_rng(0)
    host = {name: draw.normal(size=(1300, 1000)).astype(np.float32) for name in ("a", "b")}
    state = jax.device_put(host, HERE)
    expected = {}
    for number in range(1, 6):
        expected[number] = {name: np.array(value) for name, value in state.items()}
        checkpoints.save(number, state, {})
        state = step(state)  # jax may copy here, if the writer still looks at the memory
        for _ in range(3):
            before, state = state, step(state)
            assert all(leaf.is_deleted() for leaf in before.values()), "donation did not take place"
    checkpoints.wait()
    like = jax.eval_shape(lambda: host)
    for number, values in expected.items():
        found = ckpt.restore(tmp_path / str(number), like, lambda *_: HERE)
        for name, value in values.items():
            np.testing.assert_array_equal(np.asarray(found[name]), value, err_msg=f"{name} at {number}")


def test_restore_returns_every_leaf(folder):
    found = ckpt.restore(folder / "4", jax.eval_shape(lambda: state_of()), lambda *_: HERE)
    wanted = state_of(4)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_every_missing_extra_and_changed_name_is_listed(folder):
    like = {
        "step": jnp.float32(0),
        "player": {"kernel": jnp.zeros((4, 8)), "new": jnp.zeros(2), "newer": jnp.zeros((), jnp.int32)},
    }
    with pytest.raises(UserError) as refusal:
        ckpt.restore(folder / "4", jax.eval_shape(lambda: like), lambda *_: HERE)
    lines = str(refusal.value).splitlines()
    assert str(folder / "4") in lines[0]
    assert sorted(line.strip() for line in lines[1:]) == [
        "differs: player/kernel is float32[8,4] in the checkpoint, float32[4,8] here",
        "differs: step is int32[] in the checkpoint, float32[] here",
        "extra in the checkpoint: player/half bfloat16[3]",
        "missing in the checkpoint: player/new float32[2]",
        "missing in the checkpoint: player/newer int32[]",
    ]


def test_equal_trees_have_no_differences():
    tree = ckpt.describe_tree(state_of())
    assert tree == {"step": "int32[]", "player/kernel": "float32[8,4]", "player/half": "bfloat16[3]"}
    assert ckpt.compare_trees(tree, tree) == []


def test_digest_does_not_depend_on_the_mesh(tmp_path):
    devices = jax.devices()
    assert len(devices) == 8
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    digests = []
    for name, sharding in {
        "one": HERE,
        "replicated": jax.sharding.NamedSharding(mesh, spec()),
        "split": {"step": spec(), "player": {"kernel": spec("data"), "half": spec(), "nothing": {}}},
    }.items():
        if name == "split":
            leaf = lambda x: isinstance(x, spec)  # noqa: E731
            sharding = jax.tree.map(lambda s: jax.sharding.NamedSharding(mesh, s), sharding, is_leaf=leaf)
        checkpoints = ckpt.Checkpoints(tmp_path / name, keep_last=1, keep_every=0)
        checkpoints.save(1, jax.device_put(state_of(1), sharding), {})
        checkpoints.wait()
        digests.append(ckpt.digest(tmp_path / name / "1"))
    assert len(set(digests)) == 1
    assert len(digests[0]) == 64


@pytest.mark.parametrize("change", ["bit", "name", "shape"])
def test_digest_sees_one_bit_a_name_a_shape(tmp_path, pristine, change):
    state = state_of(4)
    kernel = np.array(state["player"]["kernel"])
    if change == "bit":
        kernel.view(np.uint32)[7, 3] ^= 1
    state["player"]["kernel"] = jnp.asarray(kernel.reshape(4, 8) if change == "shape" else kernel)
    if change == "name":
        state["player"]["kernal"] = state["player"].pop("kernel")
    checkpoints = ckpt.Checkpoints(tmp_path, keep_last=1, keep_every=0)
    checkpoints.save(4, state, {})
    checkpoints.wait()
    assert ckpt.digest(tmp_path / "4") != ckpt.digest(pristine / "4")
    assert ckpt.digest(pristine / "2") != ckpt.digest(pristine / "4")


def test_digest_ignores_what_is_not_the_state(tmp_path, pristine):
    checkpoints = ckpt.Checkpoints(tmp_path, keep_last=1, keep_every=0)
    checkpoints.save(9, state_of(4), {"config": {"other": 1}, "environment": {"cores": "64"}})
    checkpoints.wait()
    assert ckpt.digest(tmp_path / "9") == ckpt.digest(pristine / "4")


def test_failure_in_the_background_reaches_the_loop(tmp_path, monkeypatch):
    checkpoints = ckpt.Checkpoints(tmp_path, keep_last=1, keep_every=0)

    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(ckpt, "write_json", full)
    checkpoints.save(1, state_of(1), {})
    with pytest.raises(UserError, match=r"the disk is full.*there is no earlier checkpoint"):
        checkpoints.wait()
    checkpoints.check()  # told once
    assert ckpt.steps_of(tmp_path) == []


# A disk that fills up, and one that cannot be written: real file systems, mounted where nobody else sees.

BIG = {"generator__width": 32, "discriminator__width": 32, "checkpoint__keep_last": 99}


@pytest.fixture(scope="module")
def begun(programs, tmp_path_factory):
    """A run that stopped after 3 steps, its checkpoint 0.5 MB at least."""
    workdir = tmp_path_factory.mktemp("begun") / "run"
    status, errors = programs.train(workdir, **BIG, stop_after="3 steps")
    assert status == 0, errors
    assert ckpt.steps_of(workdir / "checkpoints") == [3]
    return workdir


@pytest.fixture(scope="module")
def may_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0


def continue_on_tmpfs(programs, begun: Path, tmp_path: Path, *, size: str, then: str = "true"):
    """Go on with a copy of `begun` on a private tmpfs: status, stderr, and a copy of what was left there."""
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    train = shlex.join(programs.command(disk / "run", **BIG, checkpoint__every="1 steps"))
    prepare = f"mount -t tmpfs -o size={size} tmpfs {disk} && cp -r {begun} {disk}/run && {then} || exit 99"
    script = f"{prepare}; {train}; status=$?; cp -r {disk} {out}; exit $status"
    return *programs.finish(programs.start(["unshare", "-m", "sh", "-c", script])), out / "run" / "checkpoints"


def error_line(errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors, errors
    return lines[0]


def assert_whole(folder: Path) -> None:
    steps = ckpt.steps_of(folder)
    assert steps
    assert [step for step in steps if ckpt.find_damage(folder / str(step))] == []


@pytest.mark.slow
def test_full_disk_ends_the_run_with_one_line_and_leaves_checkpoints_whole(programs, begun, tmp_path, may_mount):
    if may_mount:
        status, errors, folder = continue_on_tmpfs(programs, begun, tmp_path, size="4M")
    else:  # files may not grow beyond 100 kB, which only a checkpoint's would
        workdir = Path(shutil.copytree(begun, tmp_path / "run"))
        train = shlex.join(programs.command(workdir, **BIG))
        status, errors = programs.finish(programs.start(["bash", "-c", f"ulimit -f 100; exec {train}"]))
        folder = workdir / "checkpoints"
    assert status == 2, errors
    assert_whole(folder)
    newest = ckpt.steps_of(folder)[-1]
    assert newest < 8
    line = error_line(errors)
    assert "the disk is full" in line
    assert f"the checkpoint of step {newest} is complete" in line


@pytest.mark.slow
def test_log_that_cannot_be_written_ends_the_run_with_one_line(programs, tmp_path):
    """Between checkpoints it is run.log that meets a full disk first."""
    (tmp_path / "run.log").symlink_to("/dev/full")
    status, errors = programs.train(tmp_path)
    assert status == 2, errors
    assert f"No space left on device: '{tmp_path}'; fix that" in error_line(errors)


@pytest.mark.slow
def test_read_only_folder_ends_the_run_with_one_line(programs, begun, tmp_path, may_mount):
    if not may_mount:
        pytest.skip("needs the right to mount: as root no permission bit makes a folder read-only")
    status, errors, folder = continue_on_tmpfs(
        programs, begun, tmp_path, size="9M", then=f"mount -o remount,ro {tmp_path / 'disk'}"
    )
    assert status == 2, errors
    assert "Read-only file system" in error_line(errors)
    assert_whole(folder)
