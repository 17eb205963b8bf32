"""The table of fields: every config key, its default, meaning and range, what reads it, and whether it may change.

A key may be read by some choices alone, as `data.name` is by `data.source=tfds`: `when` says so, and a value that
nobody would read is refused (gormley_vision/config.py). `tests/test_fields.py` walks all of them.
"""

import dataclasses
from collections.abc import Mapping

Value = bool | int | float | str
ON = ()  # in `when`: any value but '', 'none', false, 0 and a duration of 0
_LARGE = 1e6  # of a number that has no natural limit; infinities and NaN are above it


@dataclasses.dataclass(frozen=True)
class Field:
    """One config key: its default (which gives the type), its meaning, and what it may be.

    Every number has a range, `at_least` to `at_most`, or to just `below`. `when` is {key: values}: this key is read
    where each of those keys has one of its values.
    """

    default: Value
    meaning: str
    choices: tuple[Value, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    is_duration: bool = False
    may_change: bool = False  # on resume
    when: Mapping[str, tuple[Value, ...]] = dataclasses.field(default_factory=dict)


def _duration(default: str, meaning: str, may_change: bool = False, when: Mapping | None = None) -> Field:
    meaning = f"{meaning} (steps, epochs or images)"
    return Field(default, meaning, is_duration=True, may_change=may_change, when=when or {})


def _count(default: int, meaning: str, at_most: int, at_least: int = 1, may_change: bool = False) -> Field:
    return Field(default, meaning, at_least=at_least, at_most=at_most, may_change=may_change)


# Which named axes of parameters `tensor` splits (mesh_rules.py): for every model, since a name means the same in each.
MESH_RULES = "heads: tensor; mlp: tensor; vocab: tensor; conv_in: tensor; conv_out: tensor"
_FILES = {"data.source": ("tfds", "folder", "npz")}
_PICTURES = {"data.source": ("tfds", "folder", "npz", "mnist_5k")}

SHARED_FIELDS: dict[str, Field] = {
    "task": Field("gan", "what is learned; chosen in the config file by default_config(task)"),
    "seed": _count(0, "every random draw and the data order follow from it", 2**63 - 1, at_least=0),
    "duration": _duration("30 epochs", "length of training"),
    "stop_after": _duration("", "end early, schedules unchanged; '' runs to the end", may_change=True),
    "init_from": Field("", "another run's folder whose weights start this one; '' starts fresh"),
    "accumulate": _count(1, "pieces of a batch, computed one after the other for the memory of one", 2**20),
    "compute_dtype": Field("float32", "dtype of activations", ("float32", "bfloat16")),
    "data.source": Field("mnist_5k", "where images come from", ("tfds", "folder", "npz", "mnist_5k", "fake")),
    "data.name": Field("", "TFDS name, such as cifar10", when={"data.source": ("tfds",)}),
    "data.path": Field("", "image folder, .npz file, or TFDS data directory", may_change=True, when=_FILES),
    "data.split": Field("train", "part of the data set"),
    "data.image_size": _count(28, "height and width after crop and resize, pixels", 8192),
    "data.channels": Field(1, "1 grey, 3 colour", (1, 3)),
    "data.crop": Field(
        "center",
        "largest centred square, none (squeeze), or the centre of a larger resize (docs/data.md)",
        ("center", "none", "resize_center"),
        when=_PICTURES,
    ),
    "data.crop_fraction": Field(
        0.875,
        "share of the shorter side that resize_center leaves",
        at_least=0.01,
        at_most=1,
        when={"data.crop": ("resize_center",)},
    ),
    "data.max_megapixels": Field(
        178,
        "millions of pixels a picture may have; more are refused",
        at_least=1,
        at_most=1_000_000,
        may_change=True,
        when={"data.source": ("tfds", "folder")},
    ),
    "data.resize_filter": Field(
        "lanczos", "antialiased filter", ("box", "bilinear", "hamming", "bicubic", "lanczos"), when=_PICTURES
    ),
    "data.flip": Field(False, "mirror half of the images left to right"),
    "data.batch_size": _count(64, "images of one minibatch (m), over all devices and hosts", 2**20),
    "data.placement": Field(
        "device",
        "decoded set on the device, memory-mapped on the host, or streamed undecoded",
        ("device", "host", "stream"),
        may_change=True,
    ),
    "data.workers": Field(
        2,
        "threads that decode a stream; 0 is this one",
        at_least=0,
        at_most=4096,
        may_change=True,
        when={"data.placement": ("stream",)},
    ),
    "data.cache_dir": Field(
        "",
        "folder of decoded sets; '' is ~/.cache/gormley_vision/data",
        may_change=True,
        when={"data.placement": ("device", "host")},
    ),
    "mesh.data": _count(0, "devices that share a batch; 0 is what the others leave", 2**20, 0, may_change=True),
    "mesh.fsdp": _count(1, "devices that share a batch and the state", 2**20, may_change=True),
    "mesh.tensor": _count(1, "devices that share each layer's matrices, by mesh.rules", 2**20, may_change=True),
    "mesh.rules": Field(MESH_RULES, "'NAME: MESH_AXIS; ...' for parameters' axes so named", may_change=True),
    "checkpoint.every": _duration("5 epochs", "between checkpoints", may_change=True),
    "checkpoint.keep_last": _count(2, "newest checkpoints kept", 10**6, may_change=True),
    "checkpoint.keep_every": _duration(
        "", "also keep those that fall on multiples of this duration; '' keeps none", may_change=True
    ),
    "log.every": _duration("50 steps", "between lines of metrics.jsonl", may_change=True),
    "log.samples_every": _duration("1 epochs", "between sample grids", may_change=True),
}


def _average_fields(section: str, half_life: str, of: str) -> dict[str, Field]:
    return {
        f"{section}.ema_half_life": _duration(half_life, f"half-life of the averaged {of}, 0 for no average"),
        f"{section}.ema_ramp": Field(
            0.05,
            "half-life is at most this fraction of the images seen so far",
            at_least=0,
            at_most=1,
            when={f"{section}.ema_half_life": ON},
        ),
    }


def _optimizer_fields(player: str, learning_rate: float) -> dict[str, Field]:
    return {
        f"{player}.name": Field("adam", "update rule", ("adam", "momentum_sgd")),
        f"{player}.learning_rate": Field(learning_rate, "step size; 0 freezes the player", at_least=0, at_most=_LARGE),
        f"{player}.momentum": Field(0.5, "Adam's beta1, or the momentum of SGD", at_least=0, below=1),
        f"{player}.beta2": Field(
            0.999, "decay of Adam's second moment", at_least=0, below=1, when={f"{player}.name": ("adam",)}
        ),
    }


_LARGEST_WIDTH = 2**16

GAN_FIELDS: dict[str, Field] = {
    "log.samples": _count(64, "images in a sample grid", 10**4, may_change=True),
    "gan.conditional": Field(False, "the class label is an input of both players"),
    "gan.generator_loss": Field(
        "non_saturating", "ascend log D(G(z)), or descend log(1 - D(G(z)))", ("non_saturating", "saturating")
    ),
    "gan.discriminator_steps": _count(1, "k: discriminator updates, each on a fresh minibatch, per step", 1000),
    "gan.shared_fakes": Field(False, "the generator update reuses the last discriminator update's noise"),
    "gan.simultaneous": Field(False, "the generator meets the discriminator before its last update"),
    **_average_fields("gan", "10000 images", of="generator"),
    "generator.latent_size": _count(100, "Z: noise dimensions", _LARGEST_WIDTH),
    "generator.width": _count(
        64, "channels of the last hidden layer; doubles with each halving of the size", _LARGEST_WIDTH
    ),
    "generator.kernel_size": Field(4, "4 as most people run it, 5 as in the original", (4, 5)),
    "discriminator.architecture": Field("dcgan", "one logit an image, or one a patch", ("dcgan", "patchgan")),
    "discriminator.width": _count(
        64, "channels of the first layer; doubles with each halving of the size", _LARGEST_WIDTH
    ),
    "discriminator.kernel_size": Field(4, "4 or 5", (4, 5), when={"discriminator.architecture": ("dcgan",)}),
    "discriminator.receptive_field": Field(
        0, "pixels one logit sees", (0, 1, 16, 34, 70), when={"discriminator.architecture": ("patchgan",)}
    ),
    **_optimizer_fields("generator_optimizer", 2e-4),
    **_optimizer_fields("discriminator_optimizer", 2e-4),
}

PRESET_NAMES = ("roformer", "llama", "naver_axial", "naver_mixed", "timm", "dinov3")  # layers.rope.PRESETS

VIT_FIELDS: dict[str, Field] = {
    "vit.width": _count(64, "D: channels of a token", _LARGEST_WIDTH),
    "vit.depth": _count(6, "L: layers", 1000),
    "vit.mlp": _count(128, "F: channels inside an MLP", 4 * _LARGEST_WIDTH),
    "vit.heads": _count(4, "K: attention heads; divides the width", 1000),
    "vit.patch_size": _count(4, "P: pixels along a patch; divides the image size", 8192),
    "vit.position": Field("learned", "what is added to tokens", ("learned", "sincos2d", "none")),
    "vit.rope": Field("none", "how queries and keys are rotated (docs/rope.md)", ("none", *PRESET_NAMES)),
    "vit.rope_scaling": Field(
        "none",
        "rule for a grid larger than trained: positions, or frequencies",
        ("none", "interpolate", "ntk"),
        when={"vit.rope": ON},
    ),
    "vit.trained_grid": Field(
        0, "patches along a side in training", at_least=0, at_most=8192, when={"vit.rope_scaling": ON}
    ),
    "vit.pooling": Field("cls", "head reads [CLS], the mean of patches, or an attention pool", ("cls", "gap", "map")),
    "vit.registers": _count(0, "extra learned tokens", 1000, at_least=0),
    "vit.representation": _count(0, "width of a tanh layer before the head; 0 for none", _LARGEST_WIDTH, at_least=0),
    "vit.head_bias": Field(0.0, "initial bias of the head", at_least=-100, at_most=100),
    "vit.gelu": Field("tanh", "tanh (flax, Google's weights) or erf (timm, Hugging Face)", ("tanh", "erf")),
    "vit.norm": Field("layer", "LayerNorm, or ViT-22B's without bias and centering", ("layer", "rms")),
    "vit.parallel": Field(False, "attention and MLP side by side, as in ViT-22B"),
    "vit.qkv_bias": Field(True, "biases of queries, keys and values"),
    "vit.qk_norm": Field(False, "normalise queries and keys of each head"),
    "vit.layer_scale": Field(0.0, "initial LayerScale; 0 for none", at_least=0, at_most=100),
    "vit.dropout": Field(0.0, "probability, after each branch's last matrix and within MLPs", at_least=0, at_most=1),
    "vit.stochastic_depth": Field(0.0, "probability that the last layer is left out", at_least=0, at_most=1),
    "vit.scan": Field(False, "compile one layer and loop over it: for deep nets on accelerators", may_change=True),
    "vit.remat": Field(False, "compute a layer again for its gradient rather than keep it", may_change=True),
}

CLASSIFICATION_FIELDS: dict[str, Field] = {
    **VIT_FIELDS,
    "classification.label_smoothing": Field(0.0, "share of a target spread over all classes", at_least=0, at_most=1),
    "classification.shift": _count(0, "move each image by up to so many pixels", 8192, at_least=0),
    "classification.crop_min_area": Field(
        0.0, "cut out at least this share of the area; 0 for none", at_least=0, at_most=1
    ),
    "classification.randaugment_operations": _count(0, "RandAugment operations an image; 0 for none", 100, at_least=0),
    "classification.randaugment_magnitude": Field(
        9.0,
        "strength of RandAugment, 0 to 10",
        at_least=0,
        at_most=10,
        when={"classification.randaugment_operations": ON},
    ),
    "classification.mixup": Field(0.0, "alpha of mixup; 0 for none", at_least=0, at_most=100),
    "classification.cutmix": Field(
        0.0, "alpha of CutMix; 0 for none; with mixup, either by a coin", at_least=0, at_most=100
    ),
    "classification.fresh_head": Field(
        False, "drop init_from's head, begin at zero: fine-tuning from its average", when={"init_from": ON}
    ),
    "classification.only_head": Field(
        False, "train the head alone: a linear probe of init_from", when={"init_from": ON}
    ),
    "classification.position_resize": Field(
        "google",
        "how init_from's learned positions are resized, by whose convention",
        ("google", "timm", "huggingface"),
        when={"init_from": ON, "vit.position": ("learned",)},
    ),
    **_average_fields("classification", "0 images", of="weights"),
    "optimizer.name": Field("adam", "AdamW, Muon for hidden matrices, or SGD", ("adam", "muon", "momentum_sgd")),
    "optimizer.learning_rate": Field(1e-3, "highest step size", at_least=0, at_most=_LARGE),
    "optimizer.schedule": Field("cosine", "after the warm-up: half a cosine to 0, or constant", ("cosine", "constant")),
    "optimizer.warmup": _duration("0 steps", "linear warm-up"),
    "optimizer.momentum": Field(0.9, "Adam's beta1, or the momentum of Muon or SGD", at_least=0, below=1),
    "optimizer.beta2": Field(
        0.999,
        "decay of Adam's second moment",
        at_least=0,
        below=1,
        when={"optimizer.name": ("adam", "muon")},
    ),
    "optimizer.weight_decay": Field(
        0.0, "decoupled, of matrices alone; multiplied by the rate", at_least=0, at_most=_LARGE
    ),
    "optimizer.clip_norm": Field(1.0, "largest global norm of a gradient; 0 for no limit", at_least=0, at_most=_LARGE),
    "optimizer.layer_decay": Field(
        1.0,
        "factor of the rate from each layer to the one below",
        at_least=0,
        at_most=1,
        when={"classification.only_head": (False,)},
    ),
    "eval.split": Field("", "part of the data set to evaluate on, all of it; '' for none", may_change=True),
    "eval.every": _duration(
        "1 epochs", "between evaluations; the last step is always one", may_change=True, when={"eval.split": ON}
    ),
}

TASK_FIELDS: dict[str, dict[str, Field]] = {
    "gan": {**SHARED_FIELDS, **GAN_FIELDS},
    "classification": {**SHARED_FIELDS, **CLASSIFICATION_FIELDS},
}

# What became of keys that runs of earlier versions have and today's tables lack: {key: its name now, or '' for none}.
RETIRED = {
    "log.samples": "",  # of classification, whose pictures are the patch embedding's filters: it had no effect
}
