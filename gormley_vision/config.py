"""The table of fields: every config key, its default, its meaning, and whether it may change on resume.

A config is a locked `ml_collections.ConfigDict` with exactly the keys of its task's table: each section is
splatted into one constructor, which refuses what it does not know. Values are bool, int, float or str alone:
a ConfigDict cannot override None, and JSON turns tuples into lists.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

import ml_collections

from gormley_vision import durations
from gormley_vision.errors import UserError

Value = bool | int | float | str
TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One config key: its default (which gives the type), its meaning, and what it may be."""

    default: Value
    meaning: str
    choices: tuple[Value, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    is_duration: bool = False
    may_change: bool = False  # on resume


def _duration(default: str, meaning: str, may_change: bool = False) -> Field:
    return Field(default, f"{meaning} (steps, epochs or images)", is_duration=True, may_change=may_change)


def _count(default: int, meaning: str, at_least: int = 1, may_change: bool = False) -> Field:
    return Field(default, meaning, at_least=at_least, may_change=may_change)


SHARED_FIELDS: dict[str, Field] = {
    "task": Field("gan", "what is learned; chosen in the config file by default_config(task)"),
    "seed": Field(0, "every random draw and the data order follow from it"),
    "duration": _duration("30 epochs", "length of training"),
    "stop_after": _duration("", "end early, schedules unchanged; '' runs to the end", may_change=True),
    "init_from": Field("", "another run's folder whose weights start this one; '' starts fresh"),
    "accumulate": _count(1, "pieces of a batch, computed one after the other for the memory of one"),
    "compute_dtype": Field("float32", "dtype of activations", ("float32", "bfloat16")),
    "data.source": Field("mnist_5k", "where images come from", ("tfds", "folder", "npz", "mnist_5k", "fake")),
    "data.name": Field("", "TFDS name, such as cifar10 (source tfds only)"),
    "data.path": Field("", "image folder, .npz file, or TFDS data directory", may_change=True),
    "data.split": Field("train", "part of the data set"),
    "data.image_size": _count(28, "height and width after crop and resize, pixels"),
    "data.channels": Field(1, "1 grey, 3 colour", (1, 3)),
    "data.crop": Field(
        "center",
        "largest centred square, none (squeeze), or the centre of a larger resize (docs/data.md)",
        ("center", "none", "resize_center"),
    ),
    "data.crop_fraction": Field(0.875, "share of the shorter side that resize_center leaves", at_least=0.01, at_most=1),
    "data.resize_filter": Field("lanczos", "antialiased filter", ("box", "bilinear", "hamming", "bicubic", "lanczos")),
    "data.max_megapixels": Field(
        178, "millions of pixels a picture may have; more are refused", at_least=1, at_most=1_000_000, may_change=True
    ),
    "data.flip": Field(False, "mirror half of the images left to right"),
    "data.batch_size": _count(64, "images of one minibatch (m), over all devices and hosts"),
    "data.placement": Field(
        "device",
        "decoded set on the device, memory-mapped on the host, or streamed undecoded",
        ("device", "host", "stream"),
        may_change=True,
    ),
    "data.workers": _count(2, "threads that decode images; 0 is this one", at_least=0, may_change=True),
    "data.cache_dir": Field("", "folder of decoded sets; '' is ~/.cache/gormley_vision/data", may_change=True),
    "mesh.data": _count(0, "devices that share a batch; 0 is what the others leave", at_least=0, may_change=True),
    "mesh.fsdp": _count(1, "devices that share a batch and the state", may_change=True),
    "mesh.tensor": _count(1, "devices that share each layer's matrices, by mesh.rules", may_change=True),
    "checkpoint.every": _duration("5 epochs", "between checkpoints", may_change=True),
    "checkpoint.keep_last": _count(2, "newest checkpoints kept", may_change=True),
    "checkpoint.keep_every": _duration(
        "", "also keep those that fall on multiples of this duration; '' keeps none", may_change=True
    ),
    "log.every": _duration("50 steps", "between lines of metrics.jsonl", may_change=True),
    "log.samples_every": _duration("1 epochs", "between sample grids", may_change=True),
    "log.samples": _count(64, "images in a sample grid", may_change=True),
}


def _optimizer_fields(player: str, learning_rate: float) -> dict[str, Field]:
    return {
        f"{player}.name": Field("adam", "update rule", ("adam", "momentum_sgd")),
        f"{player}.learning_rate": Field(learning_rate, "step size; 0 freezes the player", at_least=0),
        f"{player}.momentum": Field(0.5, "Adam's beta1, or the momentum of SGD", at_least=0),
        f"{player}.beta2": Field(0.999, "decay of Adam's second moment (adam only)", at_least=0),
    }


# How matrices split over `tensor`: 'PATTERN: AXIS ...' for the last axes of arrays so named (training/sharding.py).
RULES_MEANING = "'PATTERN: AXIS AXIS; ...' for the last axes of arrays so named, - for none"
GAN_RULES = "Transposed|Convolution_0/kernel: tensor; Convolution.*kernel: tensor -"
TRANSFORMER_RULES = (
    "attention/qkv: tensor - -; rope_frequencies: tensor -; attention/out/kernel: tensor - -; "
    "mlp/in: tensor; mlp/out/kernel: tensor -"
)

GAN_FIELDS: dict[str, Field] = {
    "mesh.rules": Field(GAN_RULES, RULES_MEANING, may_change=True),
    "gan.conditional": Field(False, "the class label is an input of both players"),
    "gan.generator_loss": Field(
        "non_saturating", "ascend log D(G(z)), or descend log(1 - D(G(z)))", ("non_saturating", "saturating")
    ),
    "gan.discriminator_steps": _count(1, "k: discriminator updates, each on a fresh minibatch, per step"),
    "gan.shared_fakes": Field(False, "the generator update reuses the last discriminator update's noise"),
    "gan.simultaneous": Field(False, "the generator meets the discriminator before its last update"),
    "gan.ema_half_life": _duration("10000 images", "half-life of the averaged generator, 0 for no average"),
    "gan.ema_ramp": Field(0.05, "half-life is at most this fraction of the images seen so far"),
    "generator.latent_size": _count(100, "Z: noise dimensions"),
    "generator.width": _count(64, "channels of the last hidden layer; doubles with each halving of the size"),
    "generator.kernel_size": Field(4, "4 as most people run it, 5 as in the original", (4, 5)),
    "discriminator.architecture": Field("dcgan", "one logit an image, or one a patch", ("dcgan", "patchgan")),
    "discriminator.width": _count(64, "channels of the first layer; doubles with each halving of the size"),
    "discriminator.kernel_size": Field(4, "4 or 5 (5: dcgan only)", (4, 5)),
    "discriminator.receptive_field": Field(
        0, "pixels one patchgan logit sees; 0 for dcgan, which sees all", (0, 1, 16, 34, 70)
    ),
    **_optimizer_fields("generator_optimizer", 2e-4),
    **_optimizer_fields("discriminator_optimizer", 2e-4),
}

PRESET_NAMES = ("roformer", "llama", "naver_axial", "naver_mixed", "timm", "dinov3")  # layers.rope.PRESETS

CLASSIFICATION_FIELDS: dict[str, Field] = {
    "mesh.rules": Field(TRANSFORMER_RULES, RULES_MEANING, may_change=True),
    "vit.width": _count(64, "D: channels of a token"),
    "vit.depth": _count(6, "L: layers"),
    "vit.mlp": _count(128, "F: channels inside an MLP"),
    "vit.heads": _count(4, "K: attention heads; divides the width"),
    "vit.patch_size": _count(4, "P: pixels along a patch; divides the image size"),
    "vit.position": Field("learned", "what is added to tokens", ("learned", "sincos2d", "none")),
    "vit.rope": Field("none", "how queries and keys are rotated (docs/rope.md)", ("none", *PRESET_NAMES)),
    "vit.rope_scaling": Field(
        "none", "rule for a grid larger than trained: positions, or frequencies", ("none", "interpolate", "ntk")
    ),
    "vit.trained_grid": _count(0, "patches along a side in training, for rope_scaling; 0 without", at_least=0),
    "vit.pooling": Field("cls", "head reads [CLS], the mean of patches, or an attention pool", ("cls", "gap", "map")),
    "vit.registers": _count(0, "extra learned tokens", at_least=0),
    "vit.representation": _count(0, "width of a tanh layer before the head; 0 for none", at_least=0),
    "vit.head_bias": Field(0.0, "initial bias of the head"),
    "vit.gelu": Field("tanh", "tanh (flax, Google's weights) or erf (timm, Hugging Face)", ("tanh", "erf")),
    "vit.norm": Field("layer", "LayerNorm, or ViT-22B's without bias and centering", ("layer", "rms")),
    "vit.parallel": Field(False, "attention and MLP side by side, as in ViT-22B"),
    "vit.qkv_bias": Field(True, "biases of queries, keys and values"),
    "vit.qk_norm": Field(False, "normalise queries and keys of each head"),
    "vit.layer_scale": Field(0.0, "initial LayerScale; 0 for none", at_least=0),
    "vit.dropout": Field(0.0, "probability, after each branch's last matrix and within MLPs", at_least=0, at_most=1),
    "vit.stochastic_depth": Field(0.0, "probability that the last layer is left out", at_least=0, at_most=1),
    "vit.scan": Field(False, "compile one layer and loop over it: for deep nets on accelerators", may_change=True),
    "vit.remat": Field(False, "compute a layer again for its gradient rather than keep it", may_change=True),
    "classification.label_smoothing": Field(0.0, "share of a target spread over all classes", at_least=0, at_most=1),
    "classification.shift": _count(0, "move each image by up to so many pixels", at_least=0),
    "classification.crop_min_area": Field(
        0.0, "cut out at least this share of the area; 0 for none", at_least=0, at_most=1
    ),
    "classification.randaugment_operations": _count(0, "RandAugment operations an image; 0 for none", at_least=0),
    "classification.randaugment_magnitude": Field(9.0, "strength of RandAugment, 0 to 10", at_least=0, at_most=10),
    "classification.mixup": Field(0.0, "alpha of mixup; 0 for none", at_least=0),
    "classification.cutmix": Field(0.0, "alpha of CutMix; 0 for none; with mixup, either by a coin", at_least=0),
    "classification.fresh_head": Field(False, "drop init_from's head, begin at zero: fine-tuning from its average"),
    "classification.only_head": Field(False, "train the head alone: a linear probe of init_from"),
    "classification.position_resize": Field(
        "google", "how init_from's positions are resized, and whose way", ("google", "timm", "huggingface")
    ),
    "classification.ema_half_life": _duration("0 images", "half-life of the averaged weights, 0 for no average"),
    "classification.ema_ramp": Field(0.05, "half-life is at most this fraction of the images seen so far"),
    "optimizer.name": Field("adam", "AdamW, Muon for the layers' matrices, or SGD", ("adam", "muon", "momentum_sgd")),
    "optimizer.learning_rate": Field(1e-3, "highest step size", at_least=0),
    "optimizer.schedule": Field("cosine", "after the warm-up: half a cosine to 0, or constant", ("cosine", "constant")),
    "optimizer.warmup": _duration("0 steps", "linear warm-up"),
    "optimizer.momentum": Field(0.9, "Adam's beta1, or the momentum of Muon or SGD", at_least=0),
    "optimizer.beta2": Field(0.999, "decay of Adam's second moment (adam, muon)", at_least=0),
    "optimizer.weight_decay": Field(0.0, "decoupled, of matrices alone; multiplied by the rate", at_least=0),
    "optimizer.clip_norm": Field(1.0, "largest global norm of a gradient; 0 for no limit", at_least=0),
    "optimizer.layer_decay": Field(1.0, "factor of the rate from each layer to the one below", at_least=0),
    "eval.split": Field("", "part of the data set to evaluate on, whole; '' for none", may_change=True),
    "eval.every": _duration("1 epochs", "between evaluations; the last step is always one", may_change=True),
}

TASK_FIELDS: dict[str, dict[str, Field]] = {
    "gan": {**SHARED_FIELDS, **GAN_FIELDS},
    "classification": {**SHARED_FIELDS, **CLASSIFICATION_FIELDS},
}


def fields_of(config: Mapping) -> dict[str, Field]:
    """The table of the config's task."""
    if config["task"] not in TASK_FIELDS:
        raise UserError(f"task={config['task']!r}: {nearest(str(config['task']), TASK_FIELDS)}")
    return TASK_FIELDS[config["task"]]


def default_config(task: str) -> ml_collections.ConfigDict:
    """A locked config with every key of the task's table at its default."""
    config = ml_collections.ConfigDict()
    for key, field in fields_of({"task": task}).items():
        section, _, name = key.rpartition(".")
        if section and section not in config:
            config[section] = ml_collections.ConfigDict()
        (config[section] if section else config)[name] = field.default
    config.task = task
    return config.lock()


def step_images(config: Mapping) -> int:
    """Images of one step: k minibatches, of which only a GAN has more than one."""
    minibatches = config["gan"]["discriminator_steps"] if config["task"] == "gan" else 1
    return config["data"]["batch_size"] * minibatches


def flatten(config: Mapping, prefix: str = "") -> dict[str, Value]:
    """`{'data.batch_size': 64, ...}` in the config's own order."""
    flat: dict[str, Value] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat.update(
            flatten(value, f"{name}.") if isinstance(value, Mapping | ml_collections.ConfigDict) else {name: value}
        )
    return flat


def validate(config: Mapping) -> None:
    """Refuse a config whose keys, types or choices are not those of its table, naming each key at fault."""
    fields, flat = fields_of(config), flatten(config)
    problems = [f"{key}: no such key; {nearest(key, fields)}" for key in flat.keys() - fields.keys()]
    problems += [f"{key}: missing ({fields[key].meaning})" for key in fields.keys() - flat.keys()]
    for key in fields.keys() & flat.keys():
        field, value = fields[key], flat[key]
        if type(value) is not type(field.default):
            problems.append(f"{key}={value!r}: needs {TYPE_NAMES[type(field.default)]} ({field.meaning})")
        elif fault := fault_of(value, field):
            problems.append(f"{key}={value!r}: {fault}")
    if problems:
        raise UserError("the config is wrong:\n  " + "\n  ".join(sorted(problems)))


def fault_of(value: Value, field: Field) -> str:
    """Why a value of the right type is still none for this field; '' when it is one."""
    if field.choices and value not in field.choices:
        return nearest(str(value), [str(choice) for choice in field.choices])
    if field.at_least is not None and not float(value) >= field.at_least:
        return f"must be at least {field.at_least:g}"
    if field.at_most is not None and not float(value) <= field.at_most:
        return f"must be at most {field.at_most:g}"
    if field.is_duration and value and not durations.is_duration(str(value)):
        return "write '50 epochs', '20000 steps' or '5M images'"
    return ""


def changed_keys(old: Mapping, new: Mapping) -> list[str]:
    """Lines `key: old -> new` for the keys that differ and may not change on resume."""
    fields, a, b = fields_of(new), flatten(old), flatten(new)
    return [
        f"{key}: {a.get(key, '(absent)')!r} -> {b.get(key, '(absent)')!r}"
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key) and not (key in fields and fields[key].may_change)
    ]


def describe(config: Mapping) -> str:
    """One line a key: value, and meaning as a comment."""
    fields, flat = fields_of(config), flatten(config)
    left = {key: f"{key} = {value!r}" for key, value in flat.items()}
    width = max(map(len, left.values()))
    return "\n".join(f"{left[key]:<{width}}  # {fields[key].meaning}" for key in flat)


def check_arg(arg: str) -> bool:
    """Whether a config file's argument asks for the smoke version; anything else is refused."""
    if arg not in ("", "smoke"):
        raise UserError(f"config argument ':{arg}': only ':smoke' (shrink to seconds) is known")
    return arg == "smoke"


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The smoke version of any experiment: the same code on tiny shapes, in seconds.

    Data that a machine may not have give way to made-up images, another run to fresh weights; a ViT's images shrink
    to 32 pixels.
    """
    if config.data.source in ("tfds", "npz", "folder"):
        config.data.update(source="fake", name="", path="")
    config.init_from = ""
    small: dict[str, Value] = {
        "duration": "8 steps",
        "data.batch_size": 16,
        "checkpoint.every": "3 steps",
        "log.every": "1 steps",
        "log.samples_every": "4 steps",
        "log.samples": 16,
        "generator.width": 4,
        "generator.latent_size": 8,
        "discriminator.width": 4,
        "vit.width": 16,
        "vit.depth": 2,
        "vit.mlp": 32,
        "vit.heads": 2,
        "vit.registers": 0,
        "vit.representation": 0,
        "optimizer.warmup": "2 steps",
        "eval.every": "4 steps",
    }
    config.update_from_flattened_dict({k: v for k, v in small.items() if k in fields_of(config)})
    if config.task == "classification":  # few patches of small images
        size = config.data.image_size = min(config.data.image_size, 32)
        config.vit.patch_size = next(p for p in range(size // 4, 0, -1) if size % p == 0)
        config.eval.split = config.eval.split and "test"
    return config


def nearest(word: str, valid: Iterable[str]) -> str:
    """What to type instead of `word`."""
    valid = list(valid)
    near = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    if not near:  # a key typed without its section, or under another one
        near = [key for key in valid if key.rpartition(".")[2] == word.rpartition(".")[2]]
    choices = "one of " + ", ".join(repr(choice) for choice in valid)
    if near:
        return f"did you mean {near[0]!r}?" + (f" ({choices})" if len(valid) <= 6 else "")
    return choices if len(valid) <= 8 else "--print_config shows what there is"
