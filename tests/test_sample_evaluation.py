"""Samples beside real images: in training, by scripts/evaluate.py, and cards that refuse to be compared."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gormley_vision
from gormley_vision import experiment, sample_evaluation
from gormley_vision.command_line import load_config_file
from gormley_vision.errors import UserError
from gormley_vision.extractors import open_extractor
from gormley_vision.metrics import image_sets
from gormley_vision.metrics.frechet import frechet_distance, moments_of
from gormley_vision.metrics.image_sets import Summary, figures
from gormley_vision.randomness import named_key, run_key
from gormley_vision.run import run
from gormley_vision.samples import to_uint8
from gormley_vision.training.sharding import Shardings, make_mesh

ROOT = Path(__file__).parents[1]
SAMPLES = 150


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A classifier, and a conditional GAN that was evaluated with its features while it trained."""
    root = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        config = load_config_file(f"{ROOT}/configs/vit_mnist.py:smoke")
        config.mesh.data = 1
        assert run(config.to_dict(), root / "classifier") == 0
        config = load_config_file(f"{ROOT}/configs/cdcgan_mnist.py:smoke")
        config.mesh.data = 1
        config.eval.update(extractor=f"run:{root / 'classifier'}", every="4 steps", samples=SAMPLES)
        assert run(config.to_dict(), root / "gan") == 0
        yield root


def program(capsys, *words):
    """Run scripts/evaluate.py's part for images in this process. Returns what it prints."""
    script = runpy.run_path(str(ROOT / "scripts" / "evaluate_images.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["scripts/evaluate.py", *map(str, words)])
        script["main"]()
    return capsys.readouterr().out


def distances(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["eval/frechet_distance"] for line in lines if "eval/frechet_distance" in line}


def test_the_loops_figure_is_that_of_all_real_images_and_as_many_fakes(folders):
    restored = gormley_vision.restore(folders / "gan")
    found = distances(folders / "gan")
    assert sorted(found) == [4, 8]
    extractor = open_extractor(f"run:{folders / 'classifier'}")
    batches = experiment.make_batches(restored.config)
    key = named_key(run_key(0), "evaluation")
    fake, labels = restored.task.generated(restored.state, key, jnp.arange(SAMPLES))
    assert labels.tolist() == [i % 10 for i in range(SAMPLES)]
    sets = (batches.examples(np.arange(batches.length))["image"], to_uint8(fake))
    compute = jax.jit(extractor.features)
    a, b = (moments_of(np.asarray(compute(extractor.weights, images)[0])) for images in sets)
    assert found[8] == pytest.approx(frechet_distance(a, b), rel=1e-4)


def test_each_evaluation_in_training_has_a_card(folders):
    found = distances(folders / "gan")
    cards = {int(path.stem): sample_evaluation.read_card(path) for path in (folders / "gan" / "cards").iterdir()}
    assert {step: card["figures"]["frechet_distance"] for step, card in cards.items()} == found
    sample_evaluation.refuse_unlike({Path(str(step)): card for step, card in cards.items()})
    card = cards[8]
    assert (card["fake"]["count"], card["fake"]["step"], card["real"]["split"]) == (SAMPLES, 8, "train")
    assert card["extractor"]["name"].startswith("classification run classifier")


def test_eight_devices_find_what_one_finds_and_a_signal_ends_it(folders):
    restored = gormley_vision.restore(folders / "gan")
    config = {**restored.config, "data": {**restored.config["data"], "batch_size": 64}}
    batches = experiment.make_batches(config)
    found = {}
    for devices in (1, 8):
        evaluation = sample_evaluation.of_training(config, restored.task, batches)
        shardings = Shardings(
            make_mesh({"data": devices, "fsdp": 1, "tensor": 1}, 64, devices=jax.devices()[:devices]), ()
        )
        state = jax.device_put(restored.state, shardings.replicated)
        assert evaluation(state, shardings, stop=lambda: 1) is None
        found[devices] = evaluation(state, shardings)["eval/frechet_distance"]
    assert found[1] == pytest.approx(found[8], rel=1e-5)
    assert found[1] == pytest.approx(distances(folders / "gan")[8], rel=1e-5)


def test_a_card_says_how_it_was_measured_and_unlike_cards_refuse(folders, tmp_path, capsys):
    common = (f"--workdir={folders / 'gan'}", f"--extractor=run:{folders / 'classifier'}")
    cards = [tmp_path / "average.json", tmp_path / "raw.json"]
    picture = tmp_path / "neighbours.png"
    options = ("--num=200", f"--neighbours={picture}", "--best", f"--out={cards[0]}")
    printed = program(capsys, *common, *options)
    card = json.loads(cards[0].read_text())
    assert json.loads(printed) == card
    assert card["fake"]["count"] == 200
    assert card["fake"]["options"] == {}
    assert card["real"]["count"] == 5000
    assert card["extractor"]["name"].startswith("classification run classifier")
    assert not card["is_fid"]
    assert set(card["by_class"]) == set("0123456789")
    assert card["best_in_training"]["step"] == 8  # the only one that was kept and evaluated
    assert card["best_in_training"]["figures"] == card["figures"]
    assert picture.is_file()
    program(capsys, *common, "--num=200", "--raw", f"--out={cards[1]}")
    found = {path: sample_evaluation.read_card(path) for path in cards}
    with pytest.raises(UserError, match=r"fake.options: {} in .*average.json, {'raw': True} in .*raw.json"):
        sample_evaluation.refuse_unlike(found)
    sample_evaluation.refuse_unlike({path: found[cards[0]] for path in cards})


def test_files_of_anybody_are_compared_and_real_images_are_near_themselves(folders, tmp_path, capsys):
    images = experiment.make_batches(gormley_vision.restore(folders / "gan").config).examples(np.arange(0, 5000, 5))
    np.savez(tmp_path / "real.npz", images=images["image"])
    words = (f"--samples={tmp_path / 'real.npz'}", f"--real={folders / 'gan'}")
    found = json.loads(program(capsys, *words, f"--extractor=run:{folders / 'classifier'}"))["figures"]
    assert found["frechet_distance"] < 0.05 * distances(folders / "gan")[8]
    assert found["precision"] > 0.95  # each is one of the real images
    assert found["frechet_distance_extrapolated"] is None  # one count is no line
    # Of another size they are resized to a run's samples; a run of that size cannot be.
    np.savez(tmp_path / "large.npz", images=np.repeat(np.repeat(images["image"][:50], 2, axis=1), 2, axis=2))
    words = (f"--workdir={folders / 'gan'}", f"--real={tmp_path / 'large.npz'}", "--num=20")
    card = json.loads(program(capsys, *words, f"--extractor=run:{folders / 'classifier'}"))
    assert card["real"]["image_size"] == 28
    assert "by_class" not in card
    words = (f"--samples={tmp_path / 'large.npz'}", f"--real={folders / 'gan'}")
    with pytest.raises(UserError, match="real images have 28 pixels and the samples 56"):
        program(capsys, *words, f"--extractor=run:{folders / 'classifier'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--extractor=run:x"], "pass either --workdir=RUN or --samples"),
        (["--samples=a.npz", "--extractor=run:x"], "--samples needs --real"),
        (["--samples={root}", "--real={root}/gan", "--best", "--extractor=run:x"], "leave them out with --samples"),
        (["--workdir={root}/gan", "--extractor=vgg"], "extractor 'vgg': name one of"),
        (["--workdir={root}/gan", "--extractor=run:{root}/gan"], "which has no features: pass a classifier's folder"),
        (["--workdir={root}/gan", "--num=1", "--extractor=run:x"], "--num=1: at least 2 samples"),
    ],
)
def test_mistakes_are_said(folders, capsys, words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        program(capsys, *(word.format(root=folders) for word in words))


@pytest.mark.slow
def test_without_an_extractor_the_program_says_what_compares_samples(folders):
    command = [sys.executable, "scripts/evaluate.py", f"--workdir={folders / 'gan'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "--extractor=run:CLASSIFIER compares them with real ones" in done.stderr
    done = subprocess.run([*command, "--extractor=vgg"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "extractor 'vgg': name one of" in done.stderr


def test_a_summary_knows_the_first_thousands_and_keeps_no_more_than_it_says(monkeypatch):
    monkeypatch.setattr(image_sets, "KEPT", 300)
    monkeypatch.setattr(image_sets, "COUNTS", (100, 250, 5000))
    draw = np.random.default_rng(0)
    features, labels = draw.normal(size=(1234, 3)), draw.integers(0, 2, 1234)
    summary = Summary(len(features))
    for first in range(0, len(features), 77):
        part = slice(first, first + 77)
        summary.add(features[part], np.full((len(features[part]), 2), 0.5), labels[part])
    assert list(summary.at) == [100, 250, 1234]
    for n, moments in summary.at.items():
        np.testing.assert_allclose(moments.covariance, np.cov(features[:n].T), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(summary.by_class[1].mean, features[labels == 1].mean(0))
    np.testing.assert_array_equal(summary.kept, features[:300].astype(np.float32))
    other = Summary(20)
    other.add(features[:20], np.full((20, 2), 0.5))
    found = figures(summary, other)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
