"""Tables of fields: the default, meaning and range of each config key, when it is read, and whether it may change.

A config's table is RUN_FIELDS and its task's own (gormley_vision/tasks); the others here are parts that several tasks
include. A key may be read only for some choices, as `data.name` is for `data.source=tfds`: `when` lists these, and a
value that nothing would read is refused (gormley_vision/config.py). `tests/test_fields.py` tests all of them.
"""

import dataclasses
from collections.abc import Mapping

Value = bool | int | float | str
ON = ()  # in `when`: any value but '', 'none', false, 0 and a duration of 0
LARGE = 1e6  # upper limit of a number without a natural one; excludes infinities and NaN


@dataclasses.dataclass(frozen=True)
class Field:
    """One config key: its default (which gives the type), its meaning, and its valid values.

    Every number has a range, from `at_least` up to `at_most`, or to `below` exclusively. `when` is {key: values}: this
    key is read if each of those keys has one of its values. With `or_module`, the dotted path of a user's module is a
    valid choice, too; it may read anything, so every key that depends on the choice counts as read.
    """

    default: Value
    meaning: str
    choices: tuple[Value, ...] = ()
    or_module: bool = False
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    is_duration: bool = False
    may_change: bool = False  # on resume
    when: Mapping[str, tuple[Value, ...]] = dataclasses.field(default_factory=dict)

    def is_module(self, value: Value) -> bool:
        """Return whether a value is the dotted path of a user's module."""
        if not self.or_module or not isinstance(value, str):
            return False
        return "." in value and not value.endswith(".py") and all(map(str.isidentifier, value.split(".")))


def duration(default: str, meaning: str, may_change: bool = False, when: Mapping | None = None) -> Field:
    """Return a field for a duration, which is text: '50 epochs'."""
    meaning = f"{meaning} (steps, epochs or images)"
    return Field(default, meaning, is_duration=True, may_change=may_change, when=when or {})


def count(default: int, meaning: str, at_most: int, at_least: int = 1, may_change: bool = False) -> Field:
    """Return a field for an integer from `at_least`, by default positive."""
    return Field(default, meaning, at_least=at_least, at_most=at_most, may_change=may_change)


# Which named axes of parameters are split over `tensor` (mesh_rules.py). Names mean the same in every model.
MESH_RULES = "heads: tensor; mlp: tensor; vocab: tensor; conv_in: tensor; conv_out: tensor"
_FILES = {"data.source": ("tfds", "folder", "npz", "hf", "text", "table")}
_DOCUMENTS = {"data.source": ("text", "python_topics")}
_TABLE = {"data.source": ("table",)}
_TEXT = {"data.source": ("text", "python_topics", "table", "python_paragraphs")}
_PICTURES = {"data.source": ("tfds", "folder", "npz", "hf", "mnist_5k", "stacked_mnist")}

RUN_FIELDS: dict[str, Field] = {
    "task": Field("", "what is learned: a folder of gormley_vision/tasks, or a module as in my_package.my_task"),
    "seed": count(0, "determines every random draw and the data order", 2**63 - 1, at_least=0),
    "duration": duration("30 epochs", "length of training"),
    "stop_after": duration("", "end early, schedules unchanged; '' runs to the end", may_change=True),
    "init_from": Field("", "another run's folder whose weights start this one; '' starts fresh"),
    "accumulate": count(1, "microbatches of a batch, computed one after another, with the memory of one", 2**20),
    "compute_dtype": Field("float32", "dtype of activations", ("float32", "bfloat16")),
    "data.source": Field(
        "mnist_5k",
        "where examples come from, one of these or your MODULE.PATH (docs/data.md)",
        (
            "tfds",
            "folder",
            "npz",
            "hf",
            "text",
            "python_topics",
            "table",
            "python_paragraphs",
            "mnist_5k",
            "stacked_mnist",
            "ring",
            "fake",
        ),
        or_module=True,
    ),
    "data.name": Field("", "TFDS name, such as cifar10", when={"data.source": ("tfds",)}),
    "data.path": Field(
        "",
        "folder or file of images, .npz, Parquet, Arrow or text, or TFDS data directory",
        may_change=True,
        when=_FILES,
    ),
    "data.targets": Field(
        "",
        "second folder with a picture for each of the first, by name; '' for none",
        may_change=True,
        when={"data.source": ("folder",)},
    ),
    "data.target_kind": Field(
        "label_map", "what these pictures are", ("label_map", "image"), when={"data.targets": ON}
    ),
    "data.side_by_side": Field(
        False, "a picture's left half is the image, its right half the target", when={"data.source": ("folder",)}
    ),
    "data.context": Field(
        256,
        "tokens of a text, or input tokens in a window (it has one more, the last target)",
        at_least=1,
        at_most=2**24,
        when=_TEXT,
    ),
    "data.packing": Field(False, "give each token's document and its position there", when=_DOCUMENTS),
    "data.held_out": Field(
        0.1, "share of a text without splits that is 'validation' and not 'train'", at_least=0, below=1, when=_DOCUMENTS
    ),
    "data.tokenizer": Field(
        "bytes",
        "bytes, characters, words or bpe (of the text in training), or the path of a tokenizer.json",
        when=_TEXT,
    ),
    "data.vocabulary": Field(
        4096,
        "most tokens of words or bpe",
        at_least=256,
        at_most=2**24,
        when={"data.tokenizer": ("bpe", "words")},
    ),
    "data.text_column": Field("text", "the table's column with texts", when=_TABLE),
    "data.label_column": Field("label", "the table's column with classes", when=_TABLE),
    "data.split": Field("train", "part of the data set"),
    "data.batch_size": count(64, "images of one minibatch (m), over all devices and hosts", 2**20),
    "data.placement": Field(
        "device",
        "decoded set on the device, memory-mapped on the host, or streamed undecoded",
        ("device", "host", "stream"),
        may_change=True,
    ),
    "data.workers": Field(
        2,
        "threads that decode a stream; 0 decodes in the main thread",
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
    "mesh.data": count(0, "devices that share a batch; 0 is all that remain", 2**20, 0, may_change=True),
    "mesh.fsdp": count(1, "devices that share a batch and the state", 2**20, may_change=True),
    "mesh.tensor": count(1, "devices that share each layer's matrices, by mesh.rules", 2**20, may_change=True),
    "mesh.rules": Field(MESH_RULES, "'NAME: MESH_AXIS; ...' for parameters' axes with these names", may_change=True),
    "checkpoint.every": duration("5 epochs", "between checkpoints", may_change=True),
    "checkpoint.keep_last": count(2, "newest checkpoints kept", 10**6, may_change=True),
    "checkpoint.keep_every": duration(
        "", "also keep those that fall on multiples of this duration; '' keeps none", may_change=True
    ),
    "health.action": Field(
        "warn",
        "when figures show a collapse or the like (docs/health.md): warn, stop, or go back to a healthy checkpoint",
        ("none", "warn", "stop", "roll_back"),
        may_change=True,
    ),
    "log.every": duration("50 steps", "between lines of metrics.jsonl", may_change=True),
    "log.samples_every": duration("1 epochs", "between samples, of pictures or of text", may_change=True),
    "log.tracker": Field(
        "none",
        "also send metrics and sample grids here (docs/tracking.md)",
        ("none", "wandb", "mlflow", "trackio"),
        may_change=True,
    ),
}


IMAGE_FIELDS: dict[str, Field] = {
    "data.image_size": count(28, "height and width after crop and resize, pixels", 8192),
    "data.channels": Field(1, "1 grey, 3 colour", (1, 3)),
    "data.crop": Field(
        "center",
        "largest centred square, none (squeeze), or the centre of a larger resize (docs/data.md)",
        ("center", "none", "resize_center"),
        when=_PICTURES,
    ),
    "data.crop_fraction": Field(
        0.875,
        "share of the shorter side that resize_center keeps",
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
        when={"data.source": ("tfds", "folder", "hf")},
    ),
    "data.resize_filter": Field(
        "lanczos", "antialiased filter", ("box", "bilinear", "hamming", "bicubic", "lanczos"), when=_PICTURES
    ),
    "data.flip": Field(False, "mirror half of the images left to right"),
}


def average_fields(section: str, half_life: str, of: str) -> dict[str, Field]:
    """Return the fields of an exponential moving average of weights."""
    return {
        f"{section}.ema_half_life": duration(half_life, f"half-life of the averaged {of}, 0 for no average"),
        f"{section}.ema_ramp": Field(
            0.05,
            "half-life is at most this fraction of the images seen so far",
            at_least=0,
            at_most=1,
            when={f"{section}.ema_half_life": ON},
        ),
    }


LARGEST_WIDTH = 2**16

PRESET_NAMES = ("roformer", "llama", "naver_axial", "naver_mixed", "timm", "dinov3")  # layers.rope.PRESETS

VIT_FIELDS: dict[str, Field] = {
    "vit.width": count(64, "D: channels of a token", LARGEST_WIDTH),
    "vit.depth": count(6, "L: layers", 1000),
    "vit.mlp": count(128, "F: channels inside an MLP", 4 * LARGEST_WIDTH),
    "vit.heads": count(4, "K: attention heads; divides the width", 1000),
    "vit.patch_size": count(4, "P: pixels along a patch; divides the image size", 8192),
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
    "vit.registers": count(0, "extra learned tokens", 1000, at_least=0),
    "vit.representation": count(0, "width of a tanh layer before the head; 0 for none", LARGEST_WIDTH, at_least=0),
    "vit.head_bias": Field(0.0, "initial bias of the head", at_least=-100, at_most=100),
    "vit.gelu": Field("tanh", "tanh (flax, Google's weights) or erf (timm, Hugging Face)", ("tanh", "erf")),
    "vit.norm": Field("layer", "LayerNorm, or ViT-22B's without bias and centering", ("layer", "rms")),
    "vit.parallel": Field(False, "attention and MLP in parallel, as in ViT-22B"),
    "vit.qkv_bias": Field(True, "biases of queries, keys and values"),
    "vit.qk_norm": Field(False, "normalise queries and keys of each head"),
    "vit.layer_scale": Field(0.0, "initial LayerScale; 0 for none", at_least=0, at_most=100),
    "vit.dropout": Field(0.0, "probability, after each branch's last matrix and within MLPs", at_least=0, at_most=1),
    "vit.stochastic_depth": Field(0.0, "probability of dropping the last layer", at_least=0, at_most=1),
    "vit.scan": Field(False, "compile one layer and loop over it: for deep nets on accelerators", may_change=True),
    "vit.remat": Field(
        False, "recompute a layer's activations for its gradient instead of keeping them", may_change=True
    ),
}

_ROPE_OF_TEXT = ("roformer", "llama")  # the presets of a line


TRANSFORMER_FIELDS: dict[str, Field] = {  # models/transformer.py
    "transformer.width": count(128, "D: channels of a token", LARGEST_WIDTH),
    "transformer.depth": count(4, "L: layers", 1000),
    "transformer.mlp": count(512, "F: channels inside an MLP", 4 * LARGEST_WIDTH),
    "transformer.heads": count(4, "K: query heads; divides the width", 1000),
    "transformer.kv_heads": count(
        0, "key and value heads, each for K / kv_heads query heads; 0: one for each", 1000, at_least=0
    ),
    "transformer.position": Field("learned", "what is added to tokens", ("learned", "none")),
    "transformer.rope": Field("none", "how queries and keys are rotated (docs/rope.md)", ("none", *_ROPE_OF_TEXT)),
    "transformer.rope_scaling": Field(
        "none",
        "rule for a context longer than trained: positions, or frequencies",
        ("none", "interpolate", "ntk"),
        when={"transformer.rope": ON},
    ),
    "transformer.trained_context": Field(
        0, "tokens of context in training", at_least=0, at_most=2**24, when={"transformer.rope_scaling": ON}
    ),
    "transformer.activation": Field(
        "tanh",
        "of the MLP: GELU by tanh or erf, ReLU squared, or a gate (a third matrix)",
        ("tanh", "erf", "relu_squared", "swiglu", "geglu"),
    ),
    "transformer.norm": Field("layer", "LayerNorm, or RMSNorm without bias and centering", ("layer", "rms")),
    "transformer.norm_epsilon": Field(1e-5, "added to a norm's variance", at_least=1e-12, at_most=1),
    "transformer.bias": Field(True, "biases of matrices and norms"),
    "transformer.qk_norm": Field(False, "normalise queries and keys of each head"),
    "transformer.parallel": Field(False, "attention and MLP in parallel"),
    "transformer.initial_std": Field(
        0.02,
        "of kernels at first, over sqrt(2 L) where they write to the tokens; 0 for Xavier",
        at_least=0,
        at_most=1,
    ),
    "transformer.dropout": Field(0.0, "probability, of embeddings and after each branch", at_least=0, at_most=1),
    "transformer.attention_dropout": Field(
        0.0, "probability, of attention's weights; without a fused kernel", at_least=0, at_most=1
    ),
    "transformer.scan": Field(
        False, "compile one layer and loop over it: for deep nets on accelerators", may_change=True
    ),
    "transformer.remat": Field(
        False, "recompute a layer's activations for its gradient instead of keeping them", may_change=True
    ),
}


OPTIMIZER_FIELDS: dict[str, Field] = {
    "optimizer.name": Field("adam", "AdamW, Muon for hidden matrices, or SGD", ("adam", "muon", "momentum_sgd")),
    "optimizer.learning_rate": Field(1e-3, "highest step size", at_least=0, at_most=LARGE),
    "optimizer.schedule": Field("cosine", "after the warm-up: half a cosine to 0, or constant", ("cosine", "constant")),
    "optimizer.final_rate": Field(
        0.0,
        "share of the highest step size at the end",
        at_least=0,
        at_most=1,
        when={"optimizer.schedule": ("cosine",)},
    ),
    "optimizer.warmup": duration("0 steps", "linear warm-up"),
    "optimizer.momentum": Field(0.9, "Adam's beta1, or the momentum of Muon or SGD", at_least=0, below=1),
    "optimizer.beta2": Field(
        0.999,
        "decay of Adam's second moment",
        at_least=0,
        below=1,
        when={"optimizer.name": ("adam", "muon")},
    ),
    "optimizer.weight_decay": Field(
        0.0, "decoupled, only of matrices; multiplied by the rate", at_least=0, at_most=LARGE
    ),
    "optimizer.clip_norm": Field(1.0, "largest global norm of a gradient; 0 for no limit", at_least=0, at_most=LARGE),
    "optimizer.layer_decay": Field(
        1.0,
        "factor of the rate from each layer to the one below",
        at_least=0,
        at_most=1,
    ),
}

EVALUATION_FIELDS: dict[str, Field] = {
    "eval.split": Field("", "part of the data set to evaluate on, all of it; '' for none", may_change=True),
    "eval.every": duration(
        "1 epochs", "between evaluations; the last step is always one", may_change=True, when={"eval.split": ON}
    ),
}

# Of tasks that are examined while they train (training/task.Examined).
EXAMINATION_FIELDS: dict[str, Field] = {
    "health.every": duration("250 steps", "between examinations of the state; 0 steps for none", may_change=True),
    "health.held_out": Field(
        "",
        "part of the data set that is not trained on, to tell memory from skill; '' for none",
        may_change=True,
        when={"health.every": ON},
    ),
}

# Of tasks that generate images (training/task.Generates).
_EXTRACTS = {"eval.extractor": ON}
SAMPLE_EVALUATION_FIELDS: dict[str, Field] = {
    "eval.extractor": Field(
        "",
        "network whose features compare samples with real images (docs/metrics.md), such as run:FOLDER; '' for none",
        may_change=True,
    ),
    "eval.split": Field(
        "train", "part of the data set that samples are compared with, all of it", may_change=True, when=_EXTRACTS
    ),
    "eval.every": duration(
        "5 epochs", "between evaluations; the last step is always one", may_change=True, when=_EXTRACTS
    ),
    "eval.samples": Field(5000, "samples of an evaluation", at_least=2, at_most=10**7, may_change=True, when=_EXTRACTS),
}

# Keys of earlier versions that today's tables lack: {key: its name today, or '' if it was removed}.
RETIRED = {
    "log.samples": "",  # classification had it, without effect
    "gan.generator_loss": "gan.objective",
}
