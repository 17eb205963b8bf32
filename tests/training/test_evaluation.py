"""Evaluation in the loop: every example of the split once, whatever the batch size, the placement or the devices."""

import json
import signal
from functools import partial

import jax
import numpy as np
import pytest

from gormley_vision.data.batches import Batches, open_batches
from gormley_vision.errors import UserError
from gormley_vision.experiment import make_evaluation
from gormley_vision.fields import MESH_RULES
from gormley_vision.mesh_rules import MESH_AXES, parse_rules
from gormley_vision.planning.cost import cost_of
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.evaluation import Evaluation
from gormley_vision.training.hosts import put_global
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A folder with train.npz and test.npz; 21 test images, which no batch size here divides."""
    folder = tmp_path_factory.mktemp("npz")
    rng = np.random.default_rng(0)
    for name, count in (("train", 64), ("test", 21)):
        images, labels = rng.integers(0, 256, (count, 16, 16), np.uint8), rng.integers(0, 10, count)
        labels[:10] = np.arange(10)
        names = np.array([str(i) for i in range(10)])
        np.savez(folder / f"{name}.npz", images=images, labels=labels, class_names=names)
    return folder


def opened(split, lab, processes=1, index=0, batch_size=4, placement="host"):
    data = lab.config(data__source="npz", data__path=str(split))["data"]
    data |= {"split": "test", "batch_size": batch_size, "placement": placement, "workers": 0}
    columns = np.split(np.arange(batch_size), processes)[index]
    return open_batches(seed=0, minibatches=1, columns=columns, data=data)


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 4), (1, 21), (2, 8), (4, 8)])
@pytest.mark.parametrize("placement", ["host", "stream"])
def test_every_example_comes_once_and_in_order(lab, split, processes, batch_size, placement):
    parts = [list(opened(split, lab, processes, p, batch_size, placement).padded()) for p in range(processes)]
    batches = [
        {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
        for columns in zip(*parts, strict=True)
    ]
    assert all(len(batch["mask"]) == batch_size for batch in batches)
    stored = np.load(split / "test.npz")
    for name, key in (("image", "images"), ("label", "labels")):
        seen = np.concatenate([batch[name][batch["mask"]] for batch in batches])
        assert (seen.reshape(stored[key].shape) == stored[key]).all()


@pytest.fixture(scope="module")
def evaluated(lab, split, tmp_path_factory):
    """(config, folder, lines of metrics.jsonl) of a run that evaluated itself."""
    workdir = tmp_path_factory.mktemp("evaluated")
    config = lab.config(
        data__source="npz", data__path=str(split), eval__split="test", eval__every="3 steps", log__every="2 steps"
    )
    assert train(lab, config, workdir) == 0
    return config, workdir, [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_loop_evaluates_the_averaged_weights_on_the_whole_split(lab, split, evaluated):
    config, workdir, lines = evaluated
    assert [line["step"] for line in lines if "eval/accuracy" in line] == [3, 6, 8]
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 8]

    run, _ = lab.prepare(config, workdir)
    task, _ = lab.open(config)
    stored = np.load(split / "test.npz")
    logits = np.asarray(jax.jit(task.logits)(run.state, stored["images"][..., None]), np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(21), stored["labels"]]
    assert lines[-1]["eval/accuracy"] == (logits.argmax(1) == stored["labels"]).mean()
    np.testing.assert_allclose(lines[-1]["eval/loss"], losses.mean(), rtol=1e-5)

    cards = {path.name: json.loads(path.read_text()) for path in (workdir / "cards").iterdir()}
    assert sorted(cards) == ["00000003.json", "00000006.json", "00000008.json"]
    card = cards["00000008.json"]
    assert card["figures"] == {name: value for name, value in lines[-1].items() if name.startswith("eval/")}
    assert (card["step"], card["data"]["split"], card["data"]["count"]) == (8, "test", 21)
    assert len(card["data"]["sha256"]) == 64


@pytest.mark.slow
def test_the_script_finds_what_the_loop_found_and_evaluates_at_another_size(programs, evaluated):
    _, workdir, lines = evaluated
    done = programs.script("evaluate", f"--workdir={workdir}")
    said = json.loads(done.stdout)
    assert said["accuracy"] == round(lines[-1]["eval/accuracy"], 4)
    assert said["images"] == 21
    larger = json.loads(programs.script("evaluate", f"--workdir={workdir}", "--image_size=24").stdout)
    assert larger["image_size"] == 24
    assert larger["loss"] != said["loss"]
    part = json.loads(programs.script("evaluate", f"--workdir={workdir}", "--config.data.split=test[:5]").stdout)
    assert (part["images"], part["split"]) == (5, "test[:5]")
    for words, said in (
        ("--image_size=20", "--config.data.image_size=16"),
        ("--image_size=0", "at least 1"),
        ("--split=test --config.data.split=test", "given twice"),
        ("--config.data.flip=true", "leave it out"),
        ("--config.data.channels=3", "channels=1"),
        ("--rope_scaling=ntk", "the flags of --help"),
    ):
        wrong = programs.script("evaluate", f"--workdir={workdir}", *words.split())
        assert wrong.returncode == 2
        assert said in wrong.stderr
        assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
def test_eight_devices_find_what_one_finds(lab, split, tmp_path, sizes):
    config = lab.config(data__source="npz", data__path=str(split))
    run, _ = lab.prepare(config, tmp_path)
    task, _ = lab.open(config)
    state = jax.device_get(run.state.replace(ema=jax.tree.map(lambda x: x + 0.05, run.state.ema)))
    named = jax.eval_shape(task.init, jax.random.key(0))
    one, eight = (
        Evaluation(task, opened(split, lab, batch_size=8), 0)(jax.device_put(state, shardings.tree(named)), shardings)
        for shardings in (
            Shardings(make_mesh(dict(zip(MESH_AXES, mesh, strict=True)), 8), parse_rules(MESH_RULES))
            for mesh in ((1, 1, 1), sizes)
        )
    )
    assert one["eval/accuracy"] == eight["eval/accuracy"]
    np.testing.assert_allclose(one["eval/loss"], eight["eval/loss"], rtol=1e-5)


def test_what_fsdp_exchanges_to_evaluate_does_not_grow_with_the_batch(lab, split):
    """Parameters are gathered; images stay with their device."""
    task, _ = lab.open(lab.config(data__source="npz", data__path=str(split), vit__scan=True))
    shardings = Shardings(make_mesh(dict(zip(MESH_AXES, (1, 8, 1), strict=True)), 8), ())
    key = jax.random.key(0)
    state_shardings = shardings.tree(jax.eval_shape(task.init, key))
    state = jax.jit(partial(first_state, task), out_shardings=state_shardings)(key)
    sent = []
    for batch in (8, 16):
        evaluation = Evaluation(task, opened(split, lab, batch_size=batch), 0)
        evaluation(state, shardings)
        batch = next(evaluation.batches.padded())
        text = evaluation._step.lower(state, put_global(batch, shardings.examples)).compile().as_text()
        sent.append(sum(collective.wire_bytes for collective in cost_of(text).collectives))
    assert sent[0] == pytest.approx(sent[1], rel=0.05)


def test_a_split_with_other_classes_is_refused(lab, split, tmp_path):
    stored = dict(np.load(split / "test.npz"))
    np.savez(tmp_path / "train.npz", **stored)
    stored["class_names"] = np.array([f"other {i}" for i in range(10)])
    np.savez(tmp_path / "test.npz", **stored)
    config = lab.config(data__source="npz", data__path=str(tmp_path), eval__split="test")
    task, batches = lab.open(config)
    with pytest.raises(UserError, match=r"not trained: other 0, other 1.*trained were 0, 1"):
        make_evaluation(config, task, batches)


@pytest.mark.parametrize("placement", ["host", "stream"])
def test_classes_are_matched_by_name_and_some_of_them_will_do(lab, tmp_path, placement):
    """Trained on a, b, c; evaluated on c and a, in that order in their file, fewer than a batch."""
    images = np.zeros((4, 16, 16), np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=[0, 1, 2, 2], class_names=["a", "b", "c"])
    np.savez(tmp_path / "test.npz", images=images[:3], labels=[0, 1, 1], class_names=["c", "a"])
    config = lab.config(
        data__source="npz", data__path=str(tmp_path), data__batch_size=4, eval__split="test", data__placement=placement
    )
    task, batches = lab.open(config)
    evaluation = make_evaluation(config, task, batches)
    (batch,) = evaluation.batches.padded()
    assert batch["label"][:3].tolist() == [2, 0, 0]
    assert batch["mask"].tolist() == [True, True, True, False]
    assert evaluation.batches.class_names == ("a", "b", "c")


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_a_class_that_training_never_shows_is_told(lab, tmp_path, said, placement):
    images = np.zeros((4, 16, 16), np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=[0, 0, 2, 2], class_names=["a", "b", "c"])
    np.savez(tmp_path / "test.npz", images=images, labels=[0, 1, 2, 2], class_names=["a", "b", "c"])
    config = lab.config(
        data__source="npz", data__path=str(tmp_path), data__batch_size=4, eval__split="test", data__placement=placement
    )
    task, batches = lab.open(config)
    make_evaluation(config, task, batches)
    (line,) = [line for line in said if "cannot be learned" in line]
    assert "1 of the classes in eval.split=test: b;" in line


@pytest.mark.parametrize("at", [4, 8], ids=["between", "at the end"])
def test_a_signal_cuts_an_evaluation_short_and_who_continues_evaluates_first(lab, tmp_path, end_of, monkeypatch, at):
    config = lab.config(eval__split="test", eval__every="4 steps", checkpoint__every="")
    assert train(lab, config, tmp_path / "whole") == 0
    whole, read = Batches.padded, []

    def interrupted(batches):
        for number, batch in enumerate(whole(batches)):
            if number == 3 and len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == at - 1:
                signal.raise_signal(signal.SIGTERM)
            read.append(number)
            yield batch

    monkeypatch.setattr(Batches, "padded", interrupted)
    assert train(lab, config, tmp_path / "cut") == signal.SIGTERM
    assert read[-1] == 3, "the batch under way, and none after it"
    assert ckpt.steps_of(tmp_path / "cut" / "checkpoints") == [at]
    monkeypatch.undo()
    assert train(lab, config, tmp_path / "cut") == 0
    assert end_of(tmp_path / "cut") == end_of(tmp_path / "whole")
    before = (tmp_path / "cut" / "metrics.jsonl").read_bytes()
    assert train(lab, config, tmp_path / "cut") == 0
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == before, "evaluated once"


def train(lab, config, workdir):
    from gormley_vision.training import loop

    workdir.mkdir(parents=True, exist_ok=True)
    task, batches = lab.open(config)
    return loop.train(task, batches, config, workdir, evaluation=make_evaluation(config, task, batches))


def test_what_the_source_says_of_an_evaluation_split_names_its_key(lab, split):
    config = lab.config(data__source="npz", data__path=str(split), eval__split="validation")
    task, batches = lab.open(config)
    with pytest.raises(UserError, match=r"eval\.split=validation: no validation\.npz .*--config\.eval\.split="):
        make_evaluation(config, task, batches)
