"""Where a process starts: what may change on resume, what is refused, and other runs' weights."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from gormley_vision import run as run_module
from gormley_vision.errors import UserError
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import records

TASKS = ("gan", "classification")


def leaves_of(workdir, step):
    checkpoint = workdir / "checkpoints" / str(step)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {name: np.asarray(x) for name, x in ckpt.read_parts(checkpoint, frozenset(), lambda *_: here).items()}


# Resume: what may change, and what is refused.


OFTEN = {"checkpoint__every": "1 steps", "checkpoint__keep_last": 1, "checkpoint__keep_every": "2 steps"}


@pytest.mark.parametrize("finished", ["classification"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        {"log__every": "4 steps", "log__samples_every": ""} | OFTEN,
        {"data__placement": "host"},
        {"data__placement": "stream", "data__workers": 1},
    ],
    ids=lambda change: next(iter(change)) + "=" + str(next(iter(change.values()))),
)
def test_keys_that_may_change_leave_the_bits_alone(lab, finished, tmp_path, end_of, change):
    task, reference = finished
    lab.train(lab.config(task, stop_after="5 steps"), tmp_path)
    lab.train(lab.config(task, **change), tmp_path)
    assert end_of(tmp_path)["digest"] == end_of(reference)["digest"]


def test_stop_after_then_continue_is_the_uninterrupted_run(lab, finished, tmp_path, end_of, said):
    task, reference = finished
    config = lab.config(task, stop_after="5 steps")
    assert lab.train(config, tmp_path) == 0
    assert ckpt.steps_of(tmp_path / "checkpoints") == [3, 5]
    assert lab.train(config, tmp_path) == 0
    assert "has reached stop_after at step 5" in said[-1]
    assert lab.train(lab.config(task), tmp_path) == 0
    assert end_of(tmp_path) == end_of(reference)
    before = end_of(tmp_path)
    assert lab.train(lab.config(task), tmp_path) == 0
    assert "finished at step 8" in said[-1]
    assert end_of(tmp_path) == before


@pytest.mark.slow
def test_a_game_with_schedules_and_controllers_goes_on_exactly(lab, tmp_path, end_of):
    """A steered probability, power iterations and scheduled numbers are those of the run that was never stopped."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    lab.train(lab.config("gan", **lab.everything), whole)
    for stop_after in ("3 steps", "5 steps", ""):
        lab.train(lab.config("gan", **lab.everything, stop_after=stop_after), parts)
    assert end_of(parts) == end_of(whole)
    lines = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    rates = [line["schedule/gan.r1"] for line in lines]
    np.testing.assert_allclose(rates, 1 - 0.9 * 32 * np.arange(8) / 256, rtol=1e-6)  # 16 images for each of two updates


def test_changed_keys_are_refused_and_listed(lab, finished, end_of):
    task, workdir = finished
    before = end_of(workdir)
    changed = lab.config(task, seed=1, data__batch_size=32, duration="9 steps", log__every="2 steps")
    with pytest.raises(UserError) as refusal:
        lab.train(changed, workdir)
    text = str(refusal.value)
    for line in ("seed: 0 -> 1", "data.batch_size: 16 -> 32", "duration: '8 steps' -> '9 steps'"):
        assert line in text
    assert "log.every" not in text
    assert end_of(workdir) == before


def test_changed_data_are_refused_and_named(lab, tmp_path):
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (40, 16, 16), np.uint8), np.arange(40) % 3
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    config = lab.config(data__source="npz", data__path=str(tmp_path / "set.npz"), duration="4 steps")
    lab.train({**config, "stop_after": "2 steps"}, tmp_path / "run")
    images[7, 3, 3] ^= 1
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    with pytest.raises(UserError, match=r"the data set has changed.*sha256.*other files, sizes or times: .*/set\.npz;"):
        lab.train(config, tmp_path / "run")
    images[7, 3, 3] ^= 1
    np.savez(tmp_path / "moved.npz", images=images, labels=labels)
    config["data"]["path"] = str(tmp_path / "moved.npz")  # the same pixels elsewhere
    assert lab.train(config, tmp_path / "run") == 0


def test_a_training_set_smaller_than_a_batch_is_refused(lab, tmp_path):
    images = np.zeros((4, 16, 16), np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=[0, 1, 0, 1])
    config = lab.config(data__source="npz", data__path=str(tmp_path / "train.npz"), data__batch_size=5)
    with pytest.raises(UserError, match=r"4 examples, fewer than one batch of 5: --config.data.batch_size=4"):
        lab.train(config, tmp_path / "run")


def test_changed_files_of_a_folder_are_named(lab, tmp_path):
    draw, photos = np.random.default_rng(0), tmp_path / "photos"
    for i in range(20):
        (photos / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16), np.uint8)).save(photos / f"class{i % 2}" / f"{i:02d}.png")
    folder = {"data__source": "folder", "data__path": str(photos), "data__placement": "stream"}
    config = lab.config(**folder, duration="4 steps")
    lab.train({**config, "stop_after": "2 steps"}, tmp_path / "run")
    for number, named in ((4, "class0/04.png; "), (5, "class0/04.png, class1/05.png; ")):
        os.utime(photos / f"class{number % 2}" / f"{number:02d}.png", (0, 0))
        with pytest.raises(UserError, match="other files, sizes or times: " + named):
            lab.train(config, tmp_path / "run")
    for path in photos.rglob("*.png"):
        path.touch()
    with pytest.raises(UserError, match=r"class0/02.png, class0/04.png and 17 more; "):
        lab.train(config, tmp_path / "run")
    (tmp_path / "run" / "data.json").unlink()  # of a run begun by an earlier version
    with pytest.raises(UserError, match=r"sha256 '\w+' -> '\w+'; restore it"):
        lab.train(config, tmp_path / "run")


def test_other_surroundings_are_said_but_not_refused(lab, finished, tmp_path, said):
    task, reference = finished
    shutil.copytree(reference / "checkpoints", tmp_path / "checkpoints")
    lab.train(lab.config(task, mesh__data=8), tmp_path)
    assert any(
        "may differ in their last bits" in line and "{'data': 1, 'fsdp': 1, 'tensor': 1}" in line for line in said
    )


def test_damaged_newest_checkpoint_costs_steps_but_no_bits(lab, finished, tmp_path, end_of, said):
    task, reference = finished
    workdir = shutil.copytree(reference, tmp_path / "run")
    assert ckpt.steps_of(workdir / "checkpoints") == [6, 8]
    (workdir / "checkpoints" / "8" / "meta.json").unlink()
    lab.train(lab.config(task), workdir)
    assert any("checkpoint 8 is damaged (meta.json is missing)" in line for line in said)
    assert any("continuing after step 6" in line for line in said)
    assert end_of(workdir) == end_of(reference)
    assert (workdir / "checkpoints" / "8.damaged").is_dir(), "set aside, not destroyed"


def test_run_whose_checkpoints_are_all_damaged_is_not_overwritten(lab, finished, tmp_path):
    task, reference = finished
    workdir = shutil.copytree(reference, tmp_path / "run")
    for step in (6, 8):
        (workdir / "checkpoints" / str(step) / "SHA256SUMS").unlink()
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged \(6, 8\)"):
        lab.train(lab.config(task), workdir)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


def test_metrics_and_samples_after_the_restored_step_are_dropped(tmp_path):
    (tmp_path / "samples").mkdir()
    for step in (4, 8):
        (tmp_path / "samples" / f"{step:08d}.png").write_bytes(b"x")
    lines = [json.dumps({"step": step, "time": {}}) for step in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 9, "los')  # cut by the kill
    records.cut_back(tmp_path, 5)
    assert (tmp_path / "metrics.jsonl").read_text() == "\n".join(lines[:5]) + "\n"
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["00000004.png"]


def test_second_process_on_one_folder_is_refused(lab, finished):
    task, workdir = finished
    with (
        run_module.locked(workdir),
        pytest.raises(UserError, match="another process trains in"),
    ):
        run_module.run(lab.config(task), workdir)


# Another run's weights.


def weights(leaves):
    return {name: x for name, x in leaves.items() if {"variables", "ema"} & set(name.split("/"))}


@pytest.mark.parametrize(
    ("finished", "other"),
    [("gan", {}), ("classification", {}), ("classification", {"adam": "momentum_sgd"})],
    indirect=["finished"],
    ids=["gan, same optimizer", "same optimizer", "another optimizer"],
)
def test_init_from_takes_weights_and_nothing_else(lab, finished, tmp_path, other):
    task, source = finished
    optimizers = ("generator_optimizer", "discriminator_optimizer") if task == "gan" else ("optimizer",)
    change = {f"{optimizer}__name": name for optimizer in optimizers for name in other.values()}
    config = lab.config(task, init_from=str(source), seed=3, duration="2 steps", **change)
    run, _ = lab.prepare(config, tmp_path)
    fresh, _ = lab.prepare({**config, "init_from": ""}, tmp_path)
    theirs = leaves_of(source, 8)
    mine, fresh = ({k: np.array(v) for k, v in ckpt.flat(r.state).items()} for r in (run, fresh))
    assert mine["step"] == 0
    taken = weights(theirs)
    assert weights(mine).keys() == taken.keys()
    assert all(np.array_equal(mine[name], taken[name]) for name in taken)
    rest = mine.keys() - taken.keys()
    assert any("opt_state" in name for name in rest)
    assert all(np.array_equal(mine[name], fresh[name]) for name in rest)
    assert lab.train(config, tmp_path) == 0


def test_another_runs_weights_come_in_parts_to_devices_that_share_the_state(lab, finished, tmp_path, monkeypatch):
    task, source = finished
    read = []
    original = ckpt.read_parts
    monkeypatch.setattr(ckpt, "read_parts", lambda *how: read.append(original(*how)) or read[-1])
    config = lab.config(task, init_from=str(source), mesh__fsdp=8)
    run, _ = lab.prepare(config, tmp_path)
    (arrays,) = read
    taken = weights(leaves_of(source, 8))
    assert arrays.keys() == taken.keys(), "optimizers are not read"
    assert sum(x.addressable_shards[0].data.size for x in arrays.values()) < sum(x.size for x in taken.values()) / 3
    mine = ckpt.flat(run.state)
    assert all(np.array_equal(mine[name], x) for name, x in taken.items())


def test_init_from_a_folder_without_checkpoints_is_refused(lab, tmp_path):
    with pytest.raises(UserError, match=r"init_from=nowhere: no checkpoint in .*this folder does not exist"):
        lab.train(lab.config(init_from="nowhere"), tmp_path / "run")


@pytest.mark.parametrize("finished", ["classification"], indirect=True)
def test_init_from_the_folder_of_a_checkpoint_names_the_runs(lab, finished, tmp_path):
    _, source = finished
    for below in ("checkpoints", "checkpoints/8"):
        with pytest.raises(UserError, match=f"did you mean {source}\\?"):
            lab.train(lab.config(init_from=str(source / below)), tmp_path / "run")


@pytest.mark.parametrize(
    ("finished", "other"), [("classification", "gan"), ("gan", "classification")], indirect=["finished"]
)
def test_init_from_another_tasks_run_is_refused_by_name(lab, finished, other, tmp_path):
    kind, source = finished
    with pytest.raises(UserError, match=f"init_from is a run of {kind}, and this needs a .* run"):
        lab.train(lab.config(other, init_from=str(source)), tmp_path / "run")


@pytest.mark.parametrize("finished", ["gan"], indirect=True)
def test_init_from_an_unlike_gan_says_which_keys_differ(lab, finished, tmp_path):
    _, source = finished
    config = lab.config("gan", init_from=str(source), generator__width=8)
    with pytest.raises(UserError, match=r"(?s)^init_from: .*generator/.*\n  generator.width: \d+ -> 8$"):
        lab.train(config, tmp_path / "run")


# Folders that are somebody's.


def test_a_folder_of_other_files_is_refused_and_left_alone(lab, tmp_path):
    files = {"samples/2023.png": "x", ".notes.2024.md": "hi", "metrics.jsonl": '{"step":5,"my":1}'}
    (tmp_path / "samples").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"has metrics.jsonl, samples but is not a run's folder .*another --workdir"):
        lab.train(lab.config(stop_after="1 steps"), tmp_path)
    assert {name: (tmp_path / name).read_text() for name in files} == files


def test_files_that_are_not_the_runs_outlive_it(lab, tmp_path):
    mine = ["samples/2023.png", "samples/00000009.gif", ".notes.2024.md", ".metrics.jsonl.bak"]
    assert lab.train(lab.config(stop_after="5 steps"), tmp_path) == 0
    for name in mine:
        (tmp_path / name).write_text("x")
    for name in (".metrics.jsonl.123", "samples/.00000004.png.123", "samples/00000007.png"):
        (tmp_path / name).write_text("of a killed process")
    assert lab.train(lab.config(stop_after="6 steps"), tmp_path) == 0
    assert [name for name in mine if not (tmp_path / name).exists()] == []
    assert list(tmp_path.glob("**/.*.123")) == []
    assert not (tmp_path / "samples/00000007.png").exists()


@pytest.mark.parametrize("finished", ["classification"], indirect=True)
def test_records_without_checkpoints_are_another_configs_or_begin_again(lab, finished, tmp_path, said):
    task, source = finished
    workdir = shutil.copytree(source, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    before = (workdir / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match=r"(?s)of a run without checkpoints that had another config.*seed: 0 -> 7"):
        lab.train(lab.config(task, seed=7), workdir)
    with pytest.raises(UserError, match=r"(?s)another config.*task"):
        lab.train(lab.config("gan"), workdir)
    assert (workdir / "metrics.jsonl").read_text() == before
    assert lab.train(lab.config(task, stop_after="1 steps"), workdir) == 0
    assert any("has no checkpoint: the run starts over" in line for line in said)


@pytest.mark.parametrize("line", ["[]", "3", '{"a": 1}', "\xff"])
def test_a_line_that_is_no_record_is_dropped(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'.encode("latin-1"))
    records.cut_back(tmp_path, 1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_file_where_a_folder_of_the_run_should_be_is_named(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match="checkpoints is a file"), run_module.locked(tmp_path):
        pass
