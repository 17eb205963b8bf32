"""docs/troubleshooting.md: each message there is what the code says, word for word.

A section of the page names its trigger in a comment, `<!-- message: NAME -->`, above the message. After a change of
words: UPDATE_DOCS=1 pytest tests/test_troubleshooting.py writes the messages anew.
"""

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gormley_vision import experiment
from gormley_vision.command_line import read, settle
from gormley_vision.config import default_config, shrink, upgraded, validate
from gormley_vision.data.batches import open_batches
from gormley_vision.data.classes import match_classes
from gormley_vision.errors import UserError
from gormley_vision.files import read_json, user_path
from gormley_vision.run import fitting, locked, start_jax
from gormley_vision.sampling import restore, sample
from gormley_vision.sweeps.report import find_metric
from gormley_vision.sweeps.runs import load_sweep
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import start, trackers
from gormley_vision.training.loop import Step
from gormley_vision.training.sharding import make_mesh

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
SECTION = re.compile(r"(<!-- message: (\w+) -->\n\n```text\n)(.*?)(\n```\n)", re.DOTALL)
GOLDEN = Path(__file__).parent / "golden"


def configured(task="gan", **overrides):
    config = default_config(task)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in overrides.items()})
    return config


def opened(folder, **overrides):
    """Batches of a data set in `folder`."""
    data = configured().data.to_dict() | {"source": "folder", "cache_dir": str(folder / "cache"), "batch_size": 4}
    return open_batches(seed=0, minibatches=1, data=data | overrides)


def of_images(config, class_names):
    return experiment.make_task(config, experiment.described(config, class_names, 100))


def pictures(folder, names, size=(8, 8)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(folder / name)
    return str(folder)


# The command line and the config.


def no_config(_):
    read([])


def misspelled_key(_):
    read(["--config=configs/dcgan_mnist.py", "--config.data.batchsize=32"])


def unread_key(_):
    settle(configured(data__path="photos"), ["data.path"])


def value_out_of_range(_):
    settle(configured(generator_optimizer__momentum=9.0), ["generator_optimizer.momentum"])


def changed_in_the_config_file(_):
    config = configured().unlock()
    config.data.batchsize = 32
    settle(config, [])


def config_file(folder):
    text = (ROOT / "configs" / "vit_mnist.py").read_text()
    (folder / "mine.py").write_text(text.replace("config.vit.patch_size", "config.vit.pach_size"))
    read([f"--config={folder}/mine.py"])


def microbatches(_):
    validate(configured(accumulate=3).to_dict())


def patches(_):
    validate(configured("classification", vit__patch_size=5).to_dict())


def devices(_):
    make_mesh({"data": 0, "fsdp": 3, "tensor": 1}, 64, 1, jax.devices()[:8])


def batch_over_devices(_):
    make_mesh({"data": 0, "fsdp": 1, "tensor": 1}, 60, 1, jax.devices()[:8])


def object_store(_):
    user_path("gs://bucket/runs/1")


def no_tracker(_):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
        trackers.refuse_missing("wandb")


# Data.


def not_prepared(_):
    opened(Path("here"), source="tfds", name="cifar10", path=str(ROOT / "tests"))


def no_folder(_):
    opened(Path("here"), path="/no/such/photos")


def no_images(folder):
    (folder / "photos").mkdir()
    (folder / "photos" / "notes.txt").write_text("milk")
    opened(folder, path=str(folder / "photos"))


def broken_image(folder):
    path = pictures(folder / "photos", ["cat/1.png", "dog/1.png"])
    (folder / "photos/cat/2.jpg").write_text("<html>404 Not Found</html>")
    opened(folder, path=path)


def too_many_megapixels(folder):
    opened(folder, path=pictures(folder / "photos", ["1.png"], (2000, 1000)), max_megapixels=1)


def smaller_than_a_batch(folder):
    path = pictures(folder / "photos", [f"{i}.png" for i in range(10)])
    start.Plan.of(configured().to_dict(), opened(folder, path=path, batch_size=64))


def no_labels(_):
    of_images(configured("classification").to_dict(), ())


def other_classes(_):
    match_classes(["cat", "cow"], ["cat", "dog"])


# A run's folder.


def a_file(folder):
    (folder / "run").touch()
    with locked(folder / "run"):
        pass


def in_use(folder):
    with locked(folder / "run"), locked(folder / "run"):
        pass


def saved_run():
    return read_json(GOLDEN / "run_gan" / "checkpoints" / "6" / "meta.json")


def another_config(_):
    saved, here = saved_run(), saved_run()
    here["config"] = upgraded(here["config"])
    here["config"]["data"]["batch_size"] = 32
    start.refuse_changes(saved, here, str)


def another_data_set(_):
    saved, here = saved_run(), saved_run()
    here["config"], here["data"]["length"] = upgraded(here["config"]), 3999
    start.refuse_changes(saved, here, str)


def damaged(folder):
    path = Path(shutil.copytree(GOLDEN / "run_gan", folder / "run")) / "checkpoints" / "6" / "meta.json"
    path.write_text(path.read_text().replace('"fake"', '"fate"'))
    restore(folder / "run", 6)


def all_damaged(folder):
    workdir = Path(shutil.copytree(GOLDEN / "run_gan", folder / "run"))
    (workdir / "checkpoints" / "6" / "meta.json").unlink()
    config = upgraded(read_json(workdir / "config.json"))
    config["data"]["cache_dir"] = str(folder / "cache")
    batches = experiment.make_batches(config)
    task = experiment.make_task(config, batches.description)
    start.prepare(task, batches, config, workdir)


def full_disk(folder):
    raise ckpt.Checkpoints(folder / "run" / "checkpoints", keep_last=1, keep_every=0)._explained(
        OSError("No space left on device")
    )


def another_version(_):
    saved = saved_run()["config"]
    saved["data"]["colour_space"] = "oklab"
    upgraded(saved)


def memory_full(_):
    with fitting(shrink(default_config("classification")).to_dict()):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes.")


def xla_flags(_):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_counts=8")
        start_jax()


def not_finite(_):
    step = SimpleNamespace(checks=["generator[0]/loss", "generator[0]/gradient/Dense_0/kernel"])
    Step.refuse_non_finite(step, 120, jnp.array([True, False]), Path("runs/dcgan_mnist"))


def initial_classes(_):
    config = shrink(default_config("classification")).to_dict()
    task = of_images(config, ("cat", "dog"))
    state = SimpleNamespace(ema={"params": {"head": {"kernel": np.zeros((2, 2))}}})
    task.transfer({"ema/params/patch_embedding": None}, state, config=config, class_names=("cat", "cow"))


# Afterwards.


def no_checkpoint(folder):
    (folder / "run").mkdir()
    restore(folder / "run")


def metric(folder):
    (folder / "sweep.py").write_text(
        'BASE = "configs/vit_mnist.py"\nMETRIC = "los/classifier"\ndef sweep(): yield {"seed": 0}'
    )
    sweep = load_sweep(folder / "sweep.py", folder)
    sweep.runs[0].folder.mkdir()
    (sweep.runs[0].folder / "metrics.jsonl").write_text('{"step": 20, "accuracy/train": 0.5, "loss/classifier": 1.5}')
    find_metric(sweep, ["running"])


def generates_nothing(_):
    sample(restore(GOLDEN / "run_vit"), num=3)


def unconditional(_):
    sample(restore(GOLDEN / "run_gan"), num=3, label="cat")


TRIGGERS = {
    function.__name__: function
    for function in (
        no_config,
        misspelled_key,
        unread_key,
        value_out_of_range,
        changed_in_the_config_file,
        config_file,
        microbatches,
        patches,
        devices,
        batch_over_devices,
        object_store,
        no_tracker,
        not_prepared,
        no_folder,
        no_images,
        broken_image,
        too_many_megapixels,
        smaller_than_a_batch,
        no_labels,
        other_classes,
        a_file,
        in_use,
        another_config,
        another_data_set,
        damaged,
        all_damaged,
        full_disk,
        another_version,
        memory_full,
        xla_flags,
        not_finite,
        initial_classes,
        no_checkpoint,
        metric,
        generates_nothing,
        unconditional,
    )
}


@pytest.mark.parametrize("name", TRIGGERS)
def test_the_page_shows_the_codes_own_message(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as refusal:
        TRIGGERS[name](tmp_path)
    message = str(refusal.value).replace(f"{tmp_path}/", "").replace(f"{ROOT}/", "").replace(f"{tmp_path}", "here")
    page = PAGE.read_text()
    if os.environ.get("UPDATE_DOCS"):
        page = SECTION.sub(lambda m: m[1] + message + m[4] if m[2] == name else m[0], page)
        PAGE.write_text(page)
    assert {section[2]: section[3] for section in SECTION.finditer(page)}[name] == message


def test_the_page_and_the_triggers_are_the_same_list():
    assert [section[2] for section in SECTION.finditer(PAGE.read_text())] == list(TRIGGERS)
