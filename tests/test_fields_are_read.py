"""Each config key changes what is computed where the table says that it is read, and nothing where it says not.

What is computed, in stages: the examples of a step, the plan in steps, how arrays are split over eight devices, and the
programs: of the first state, a step, an evaluation, a preview, and of taking over other weights. A refusal counts as an
effect: a path that leads nowhere was looked at.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import numpy as np
import pytest
from PIL import Image

from gormley_vision import config as cfg
from gormley_vision import experiment, task_modules
from gormley_vision.config import default_config, fields_of, flatten, shrink
from gormley_vision.errors import UserError
from gormley_vision.mesh_rules import parse_rules
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.start import WEIGHTS, Plan
from gormley_vision.training.task import Previewed, Sampled, first_state

pytestmark = pytest.mark.slow

# Read by the loop or at its start, which these stages leave out; test_sample_evaluation.py and, in training/,
# test_{start,checkpoints,tracking,checkup}.py test them.
BY_THE_LOOP = {"task", "init_from", "checkpoint.keep_last", "log.tracker"}
BY_THE_LOOP |= {"health.action", "health.every", "health.held_out", "eval.extractor", "eval.samples"}
OF_VECTORS = {"log.extent"}  # which these data lack; tests/tasks/test_gan_sampling.py tests it
TABLES = {task: fields_of({"task": task}) for task in task_modules.names()}
FIRST = {key: task for task in reversed(TABLES) for key in TABLES[task]}  # a key that several have is tried with one
FIRST |= dict.fromkeys(  # keys of every task that only those of text read
    ("data.context", "data.packing", "data.held_out", "data.tokenizer", "data.vocabulary"), "language_modeling"
)
FIRST |= dict.fromkeys(("data.text_column", "data.label_column"), "text_classification")
KEYS = [(task, key) for key, task in FIRST.items() if key not in BY_THE_LOOP | OF_VECTORS]
# In the program though without effect on what it computes, or refused since it makes no sense alone.
STILL_IN_THE_PROGRAM = {
    "gan.ema_ramp",  # the smaller of it and a half-life of 0
    "classification.ema_ramp",
    "translation.ema_ramp",
    "style.ema_ramp",
    "translation.reverse",  # refused where there is nothing to reverse
    "generator.blocks",  # edsr's; unet, without it, is another size
    "generator.residual_scale",
    "generator.bicubic_skip",
    "classification.only_head",  # a linear probe of random weights
    "optimizer.layer_decay",  # of layers that are frozen
    "language_modeling.ema_ramp",
    "masked_patches.ema_ramp",
    "masked_language_modeling.ema_ramp",
    "text_classification.ema_ramp",
    "text_classification.only_head",
    "transformer.rope_scaling",  # refused for want of a context
    "vit.rope_scaling",  # refused for want of a grid
}
CONDITIONAL = [(task, key) for task, key in KEYS if TABLES[task][key].when and key not in STILL_IN_THE_PROGRAM]
_IMAGES = {"data.source": "folder", "data.path": "photos", "data.image_size": 16, "data.channels": 3}
_TEXT = {"data.source": "text", "data.path": "words.txt", "data.split": "train", "data.context": 8}
SMALL: dict[str, dict[str, Any]] = {
    "gan": _IMAGES | {"generator.width": 16, "discriminator.width": 16},
    "classification": _IMAGES | {"vit.patch_size": 8},
    "image_to_image": _IMAGES
    | {"data.image_size": 64, "data.targets": "photos", "data.target_kind": "image", "generator.levels": 6},
    "language_modeling": _TEXT,
    "masked_language_modeling": _TEXT,
    "masked_patches": _IMAGES | {"vit.patch_size": 8},
    "style_transfer": _IMAGES,
    "text_classification": {"data.source": "table", "data.path": "rows", "data.context": 8},
}
# Values that a rule does not find.
OTHERS: dict[str, Any] = {
    "mesh.rules": "conv_out: tensor",
    "gan.augment": "blit",
    "discriminator.norm": "none",
    "data.cache_dir": "elsewhere",
    "data.max_megapixels": 1,
    "eval.split": "test",
    "translation.features": "random:1",
    "translation.feature_layers": "relu1_1",
    "style.features": "random:1",
    "style.content_layers": "relu2_2",
    "style.style_layers": "relu2_2",
    "style.content": "photos/train/cat/0.png",
    "style.image": "photos/train/cat/0.png",
    "data.path": "paintings",
    "data.targets": "photos",
    "vit.trained_grid": 3,
    "data.tokenizer": "characters",
    "data.held_out": 0.3,
    "data.vocabulary": 300,
    "data.text_column": "other",
    "data.label_column": "other",
    "transformer.trained_context": 4,
    "transformer.kv_heads": 1,
    "transformer.position": "none",
    "masked_language_modeling.random_share": 0.2,
    "masked_language_modeling.mask_share": 0.5,
}


# What else must hold for a key to make sense.
WITH: dict[str, dict[str, Any]] = {"translation.scale": {"generator.architecture": "edsr"}}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """The working folder, with photos/{train,test}/{cat,dog}, one picture of two megapixels, and empty paintings."""
    root, draw = tmp_path_factory.mktemp("fields"), np.random.default_rng(0)
    for number in range(2 * 2 * 16):
        name = root / "photos" / ("train", "test")[number % 2] / ("cat", "dog")[number // 2 % 2] / f"{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (24, 20, 3), np.uint8)
        Image.fromarray(pixels).resize((1500, 1400) if number == 0 else (20, 24)).save(name)
    (root / "paintings").mkdir()
    (root / "words.txt").write_text("".join(draw.choice(list("abcdefgh "), 2000)))
    for split in ("train", "test"):
        rows = [f"{'xyz'[i % 3]}\tword{i % 7}\tother{i % 2}\n" for i in range(40)]
        (root / f"rows_{split}.tsv").write_text("label\ttext\tother\n" + "".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield root


def another(key: str, field: Any, value: Any) -> Any:
    """A value that differs from `value` and makes sense."""
    if key in OTHERS:
        return OTHERS[key]
    if field.is_duration:
        return "7 steps"
    if field.choices:
        return next(choice for choice in field.choices if choice not in (value, "none", 0))
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "x"
    return 2 * value or 2 if isinstance(value, int) else value / 2 or 0.5


def off(field: Any, values: tuple) -> Any:
    """A value of a choice under which what depends on it is not read."""
    if values:
        others = field.choices or (("bytes",) if isinstance(field.default, str) else (False, True))
        return next(choice for choice in others if choice not in values)
    if field.is_duration:
        return "0 images"
    return ("none" if "none" in field.choices else "") if isinstance(field.default, str) else 0


def base(task: str, key: str) -> dict[str, Any]:
    """The flat smoke config in which `key` is read."""
    config = shrink(default_config(task))
    config.update_from_flattened_dict(SMALL[task])
    flat = flatten(config)

    def need(key: str) -> None:
        for other, values in TABLES[task][key].when.items():
            need(other)
            if values and flat[other] not in values:
                flat[other] = values[0]
            elif not values:
                flat[other] = another(other, TABLES[task][other], flat[other])

    need(key)
    flat |= WITH.get(key, {})
    config.update_from_flattened_dict(flat)
    cfg.reset_unread(config)  # of another network, for instance
    return flatten(config)


def nested(task: str, flat: dict[str, Any]) -> dict[str, Any]:
    config = default_config(task)
    config.update_from_flattened_dict(flat)
    return config.to_dict()


def effects(config: dict[str, Any], root: Path) -> Iterator[Any]:
    """What the config does, a stage at a time; ends after a refusal, which is the last of them."""
    for cache in ("cache", OTHERS["data.cache_dir"]):  # what is decoded already is not read again
        shutil.rmtree(root / cache, ignore_errors=True)
    try:
        yield from _effects(config, root)
    except UserError as error:
        yield str(error)


def effects_once(seen: dict[str, tuple[list[Any], Iterator[Any]]], config: dict[str, Any], root: Path) -> Iterator[Any]:
    """`effects`, which many keys share: what was found for another is not found anew."""
    found, more = seen.setdefault(json.dumps(config, sort_keys=True), ([], effects(config, root)))
    yield from found
    for effect in more:
        found.append(effect)
        yield effect


@pytest.fixture(scope="module")
def seen():
    """Filled by `effects_once`."""
    return {}


def _effects(config: dict[str, Any], root: Path) -> Iterator[Any]:
    cfg.validate(config)
    batches = experiment.make_batches(config)
    yield sorted(path.name for path in root.iterdir())
    yield {name: (x.shape, hashlib.sha256(x.tobytes()).hexdigest()) for name, x in batches.read(0).items()}
    yield [hashlib.sha256(x.tobytes()).hexdigest() for x in batches.resident.values()]
    if config["data"]["placement"] == "stream":
        yield _threads(batches)
    yield dataclasses.asdict(Plan.of(config, batches))
    mesh = make_mesh(config["mesh"], batches.batch_size, config["accumulate"])
    yield dict(mesh.shape)
    task = experiment.make_task(config, batches.description)
    evaluation = experiment.make_evaluation(config, task, batches)
    yield None if evaluation is None else (evaluation.every, evaluation.batches.length)
    key = jax.random.key(0)
    named = jax.eval_shape(task.init, key)
    yield str(Shardings(mesh, parse_rules(config["mesh"]["rules"])).tree(named))
    state = nn.unbox(named)
    yield program(partial(first_state, task), key)
    batch = jax.eval_shape(batches.fetch, batches.resident, batches.read(0))
    yield program(task.train_step, state, batch, key)
    if isinstance(task, Previewed):
        yield program(task.preview, state, key)
    if isinstance(task, Sampled) and config["data"]["source"] == "text":
        yield task.prompt  # of previews: a token or two of a program's constants
    if not config["init_from"]:
        return
    size = "image_size" if "image_size" in config["data"] else "context"
    larger = {**config, "data": {**config["data"], size: 2 * config["data"][size]}}
    weights = ckpt.flat(jax.eval_shape(partial(first_state, experiment.make_task(larger, batches.description)), key))
    weights = {name: x for name, x in weights.items() if WEIGHTS & set(name.split("/"))}
    moved = {"config": larger, "class_names": batches.class_names}
    yield program(lambda weights, state: task.transfer(weights, state, **moved), weights, state)


def _threads(batches: Any) -> int:
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        options = grain.ReadOptions
        patch.setattr(grain, "ReadOptions", lambda **given: asked.append(given["num_threads"]) or options(**given))
        ahead = batches.from_step(0)
        next(ahead)
        ahead.close()
    return asked[0]


def program(function: Any, *args: Any) -> tuple[str, list[bytes]]:
    traced = jax.make_jaxpr(function)(*args)
    return str(traced), [np.asarray(x).tobytes() for x in traced.consts]


@pytest.mark.parametrize(("task", "key"), KEYS)
def test_a_key_has_an_effect_where_it_is_read(task, key, folder, seen):
    flat = base(task, key)
    changed = flat | {key: another(key, TABLES[task][key], flat[key])}
    pairs = zip(effects_once(seen, nested(task, flat), folder), effects(nested(task, changed), folder), strict=False)
    assert any(one != two for one, two in pairs)


@pytest.mark.parametrize(("task", "key"), CONDITIONAL)
def test_a_key_has_no_effect_where_the_table_says_so(task, key, folder, seen, monkeypatch):
    monkeypatch.setattr(cfg, "validate", lambda config: None)  # which would refuse it
    table, flat = TABLES[task], base(task, key)
    value = another(key, table[key], flat[key])
    for other, values in table[key].when.items():
        unread = flat | {other: off(table[other], values)}
        if unread.get("discriminator.architecture") == "patchgan" and key != "discriminator.receptive_field":
            unread["discriminator.receptive_field"] = 16
        once = list(effects_once(seen, nested(task, unread), folder))
        assert once == list(effects(nested(task, unread | {key: value}), folder))
