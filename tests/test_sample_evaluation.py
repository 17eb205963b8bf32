"""Samples beside real images: in training, by scripts/evaluate.py, and cards that refuse to be compared."""

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

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
from gormley_vision.training.cards import read_card, refuse_unlike
from gormley_vision.training.sharding import Shardings, make_mesh

ROOT = Path(__file__).parents[1]
SAMPLES = 150
NET = ("--extractor=run:{root}/classifier",)


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
    cards = {int(path.stem): read_card(path) for path in (folders / "gan" / "cards").iterdir()}
    assert {step: card["figures"]["frechet_distance"] for step, card in cards.items()} == found
    refuse_unlike({Path(str(step)): card for step, card in cards.items()})
    card = cards[8]
    assert (card["fake"]["count"], card["fake"]["step"], card["real"]["split"]) == (SAMPLES, 8, "train")
    assert card["extractor"]["name"].startswith("classification run classifier")
    assert (card["fake"]["image_size"], card["fake"]["channels"]) == (28, 1)


@pytest.mark.slow
def test_a_run_that_continues_with_other_samples_says_so(folders, tmp_path):
    config = load_config_file(f"{ROOT}/configs/cdcgan_mnist.py:smoke")
    config.mesh.data = 1
    config.eval.update(extractor=f"run:{folders / 'classifier'}", every="4 steps", samples=SAMPLES)
    config.stop_after = "4 steps"
    assert run(config.to_dict(), tmp_path / "gan") == 0
    config.stop_after = ""
    config.eval.samples = 12
    assert run(config.to_dict(), tmp_path / "gan") == 0
    log = (tmp_path / "gan" / "run.log").read_text()
    assert log.count("step 8: from here on eval/frechet_distance is measured otherwise (fake.count)") == 1
    assert "fewer images than features (16): 12 samples (raise eval.samples); the Fr" in log


def test_the_best_step_is_one_of_those_that_were_measured_as_the_newest(folders, tmp_path):
    values = {4: 1.0, 8: 3.0, 12: 2.0, 16: 2.5, 20: 0.5}
    lines = [json.dumps({"step": step, "eval/frechet_distance": value}) + "\n" for step, value in values.items()]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    for step in (4, 8, 12, 16):  # 20 was not kept
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert sample_evaluation.best_step(tmp_path) == 4  # without cards, as of earlier versions
    card = read_card(folders / "gan" / "cards" / "00000008.json")
    (tmp_path / "cards").mkdir()
    for step in values:
        found = {**card, "extractor": {**card["extractor"], "sha256": "other"}} if step < 8 else card
        (tmp_path / "cards" / f"{step:08d}.json").write_text(json.dumps(found))
    assert sample_evaluation.best_step(tmp_path) == 12
    for step in (8, 12, 16):
        (tmp_path / "checkpoints" / str(step)).rmdir()
    with pytest.raises(UserError, match="no kept checkpoint that was evaluated in training as the newest one: train"):
        sample_evaluation.best_step(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test"}, "eval.split=test: .*it has no 'test': --config.eval.split=train$"),
        ({"extractor": "run:nowhere"}, r"eval.extractor=run:nowhere: no undamaged .* exist. Name .*eval.extractor=''$"),
        (
            {"split": "train[:1]"},
            "there is 1 image in eval.split=train.:1., and a distance between sets needs at least 2",
        ),
    ],
)
def test_what_a_run_cannot_be_evaluated_by_is_said_before_it_trains(folders, changes, message):
    restored = gormley_vision.restore(folders / "gan")
    config = {**restored.config, "eval": {**restored.config["eval"], **changes}}
    with pytest.raises(UserError, match=message):
        sample_evaluation.of_training(config, restored.task, experiment.make_batches(restored.config))


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
    found = {path: read_card(path) for path in cards}
    with pytest.raises(UserError, match=r"fake.options: {} in .*average.json, {'raw': True} in .*raw.json"):
        refuse_unlike(found)
    refuse_unlike({path: found[cards[0]] for path in cards})


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
    with pytest.raises(UserError, match=r"real images have 28 pixels and the samples 56: .*--image_size=28$"):
        program(capsys, *words, f"--extractor=run:{folders / 'classifier'}")


@pytest.fixture(scope="module")
def sets(folders):
    """Sets of images: 'four.npz', grey [N, H, W]; 'splits' and 'mixed', folders of grey ones, one in colour."""
    draw = np.random.default_rng(0)
    np.savez(folders / "four.npz", images=draw.integers(0, 256, (4, 28, 28), np.uint8))
    np.savez(folders / "one.npz", images=np.zeros((1, 28, 28, 1), np.uint8))
    np.savez(folders / "colour.npz", images=np.zeros((4, 28, 28, 3), np.uint8))
    for i in range(6):
        picture = Image.fromarray(draw.integers(0, 256, (28, 28), np.uint8))
        for name in ("splits/train", "splits/test", "mixed"):
            (folders / name).mkdir(parents=True, exist_ok=True)
            (picture.convert("RGB") if (name, i) == ("mixed", 5) else picture).save(folders / name / f"{i}.png")
    return folders


def test_few_images_are_compared_with_a_warning(sets, tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(sample_evaluation.log, "warning", lambda text, *values: said.append(text % values))
    picture = tmp_path / "neighbours.png"
    words = (f"--samples={sets / 'splits'}", f"--real={sets / 'four.npz'}", f"--extractor=run:{sets / 'classifier'}")
    card = json.loads(program(capsys, *words, f"--neighbours={picture}"))
    fake = {"count": 12, "image_size": 28, "channels": 1, "crop": "center", "resize_filter": "lanczos"}
    assert card["fake"].items() >= fake.items()  # both of its subfolders
    assert said == ["fewer images than features (16): 4 real images, 12 samples; the Fréchet distance is mostly bias"]
    with Image.open(picture) as tiled:
        assert tiled.width // 28 == 1 + 4  # there are not five to show
    assert "frechet_distance" in card["figures"]


def test_real_images_are_those_of_the_runs_split_and_held_out_ones_no_others(folders, tmp_path, capsys):
    shutil.copytree(folders / "gan", tmp_path / "gan")
    for file in (tmp_path / "gan" / "config.json", *(tmp_path / "gan").glob("checkpoints/*/meta.json")):
        config = json.loads(file.read_text())
        config.get("config", config)["data"]["split"] = "train[:2%]"
        file.write_text(json.dumps(config))
    for sums in (tmp_path / "gan").glob("checkpoints/*/SHA256SUMS"):
        digest = hashlib.sha256((sums.parent / "meta.json").read_bytes()).hexdigest()
        sums.write_text(re.sub(r"\w+(?=  meta.json)", digest, sums.read_text()))
    words = [f"--workdir={tmp_path / 'gan'}", f"--extractor=run:{folders / 'classifier'}", "--num=20"]
    card = json.loads(program(capsys, *words, "--held_out=train[2%:4%]"))
    assert (card["real"]["split"], card["real"]["count"]) == ("train[:2%]", 100)
    assert card["held_out"]["count"] == 100
    for split in ("train", "train[:2%]", "train[1%:3%]"):
        with pytest.raises(UserError, match=r"is no held-out part: name .* pass --held_out='train\[90%:\]'"):
            program(capsys, *words, f"--held_out={split}")
    with pytest.raises(UserError, match=r"it has no 'test': name .* pass --held_out='train\[90%:\]'"):
        program(capsys, *words, "--held_out=test")
    with pytest.raises(UserError, match="no held-out part"):
        program(capsys, *words, "--split=train[5%:6%]", "--held_out=train[:2%]")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--extractor=run:x"], "pass either --workdir=RUN or --samples"),
        (["--samples=a.npz", "--extractor=run:x"], "--samples needs --real"),
        (
            ["--samples={root}", "--real={root}/gan", "--best", "--extractor=run:x"],
            "--best: of runs, so leave them out with --samples",
        ),
        (["--samples=a", "--real=b", "--num=9", "--seed=0", "--extractor=run:x"], "--num and --seed: of runs, so"),
        (["--workdir={root}/gan", "--image_size=28", "--extractor=run:x"], "--image_size is of --samples"),
        (["--workdir={root}/gan", "--interpolate", "--extractor=run:x"], "--interpolate makes rows"),
        (["--workdir={root}/gan", "--neighbours=n.txt", "--extractor=run:x"], "n.txt: the picture is a PNG file"),
        (["--workdir={root}/nowhere", *NET], "no run in"),
        (["--workdir={root}/classifier", *NET], "is a classification run that does not generate images"),
        (
            ["--samples={root}/nowhere", "--real={root}/gan", *NET],
            "nowhere does not exist: pass a folder",
        ),
        (["--samples={root}/one.npz", "--real={root}/gan", *NET], "there is 1 image in --samples, and a distance"),
        (["--samples={root}/four.npz", "--real={root}/one.npz", *NET], "there is 1 image in the real images, and"),
        (
            ["--samples={root}/colour.npz", "--real={root}/gan", *NET],
            "real images are grey and samples in colour: pass others",
        ),
        (["--samples={root}/mixed", "--real={root}/mixed", *NET], "the real images: the extractor classification run"),
        (
            ["--samples={root}/mixed", "--real={root}/gan", *NET],
            "real images are grey and samples in colour: pass others",
        ),
        (["--workdir={root}/gan", "--extractor=run:{root}/x"], "x does not exist; name run:FOLDER"),
        (["--workdir={root}/gan", "--extractor=vgg"], "extractor 'vgg': name one of"),
        (["--workdir={root}/gan", "--extractor=run:{root}/gan"], "which has no features: pass a classifier's folder"),
        (["--workdir={root}/gan", "--num=1", "--extractor=run:x"], "--num=1: at least 2 samples"),
    ],
)
def test_mistakes_are_said(sets, capsys, words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        program(capsys, *(word.format(root=sets) for word in words))


def test_what_cannot_be_done_is_said_before_anything_is_measured(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sample_evaluation.Features, "summary", None)  # would be a TypeError
    shutil.copytree(folders / "gan", tmp_path / "gan")
    words = [f"--workdir={tmp_path / 'gan'}", f"--extractor=run:{folders / 'classifier'}"]
    with pytest.raises(UserError, match="is no held-out part"):
        program(capsys, *words, "--held_out=train")
    (tmp_path / "gan" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="no kept checkpoint that was evaluated in training: train with"):
        program(capsys, *words, "--best")


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
