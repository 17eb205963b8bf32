"""Networks whose features compare sets of images, from a file or a run: `open_extractor` reads what a user names.

- inception:FILE.safetensors  Inception-v3 of 2015-12-05 (models/inception.py); scripts/convert_inception.py writes the
                              file. Only distances by its published weights are called FID.
- cifar_resnet:FILE.npz       a CIFAR-10 ResNet with PyTorch's names (models/cifar_resnet.py), for images of 32 pixels
- run:FOLDER                  a classifier trained here, for images of its size
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gormley_vision.errors import UserError
from gormley_vision.files import user_path
from gormley_vision.models import cifar_resnet, inception
from gormley_vision.sampling import restore
from gormley_vision.training.task import Extracts

# How the SHA-256 of the published file begins, as in its name; convert_inception.py copies all of it into its file.
INCEPTION_SHA256 = "6726825d"
_COLOURS = {1: "grey", 3: "colour"}
_FORMS = "inception:FILE.safetensors, cifar_resnet:FILE.npz or run:FOLDER"


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A network: `compute(weights, images uint8 [B, H, W, C])` returns features [B, D] and probabilities [B, Y].

    Attributes:
        name: of the network, for people; `sha256` is of its weights.
        preparation: what is done to images first.
        side: pixels that images must have; 0 for any.
        channels: that images must have; grey ones are repeated to 3.
    """

    name: str
    sha256: str
    preparation: str
    side: int
    channels: int
    weights: Any
    compute: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    is_fid: bool = False

    def refuse(self, shape: tuple[int, ...], option: str = "") -> None:
        """Refuse images [H, W, C] that the network does not read; `option` is what sets their size, if anything does.

        Raises:
            UserError: says which it reads.
        """
        height, width, channels = shape
        if self.side and (height, width) != (self.side, self.side):
            raise UserError(
                f"the extractor {self.name} reads images of {self.side}x{self.side} pixels, and these have "
                f"{height}x{width}: pass another extractor" + (f", or {option}={self.side}" if option else "")
            )
        if channels != self.channels and (channels, self.channels) != (1, 3):
            raise UserError(
                f"the extractor {self.name} reads {_COLOURS[self.channels]} images, and these are "
                f"{_COLOURS[channels]}: pass another extractor"
            )

    def features(self, weights: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return features and probabilities in float32, of grey images, too."""
        if images.shape[-1] < self.channels:
            images = jnp.repeat(images, self.channels, axis=-1)
        features, probabilities = self.compute(weights, images)
        return features.astype(jnp.float32), probabilities.astype(jnp.float32)


def open_extractor(text: str) -> Extractor:
    """Open what the user names.

    Raises:
        UserError: it cannot be read, or is no such network; says what to type instead.
    """
    form, _, rest = text.partition(":")
    if form not in _OPENERS or not rest:
        raise UserError(f"extractor {text!r}: name one of {_FORMS}")
    return _OPENERS[form](user_path(rest))


def _inception(path: Path) -> Extractor:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError("reading an Inception file needs safetensors: pip install 'gormley_vision[weights]'") from None
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            source = (file.metadata() or {}).get("source_sha256", "")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): pass what scripts/convert_inception.py wrote") from None
    shapes = jax.eval_shape(inception.Inception().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8))
    wanted = {name: x.shape for name, x in flatten_dict(shapes["params"], sep="/").items()}
    try:
        weights = inception.parameters(arrays)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not Inception-v3 of 2015-12-05: it lacks {error}") from None
    _refuse_unlike(path, {name: x.shape for name, x in weights.items()}, wanted)
    published = source.startswith(INCEPTION_SHA256)
    return Extractor(
        name="Inception-v3 2015-12-05" if published else "Inception-v3 of unknown weights",
        sha256=_digest(weights),
        preparation="TensorFlow 1's bilinear to 299 pixels, (x - 128) / 128",
        side=0,
        channels=3,
        weights=unflatten_dict(weights, sep="/"),
        compute=lambda params, images: inception.Inception().apply({"params": params}, images),  # type: ignore[arg-type,return-value]
        is_fid=published,
    )


def _cifar_resnet(path: Path) -> Extractor:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file}
    except Exception as error:  # many kinds, depending on the damage, and a TypeError for a single array (.npy)
        raise UserError(f"{path} cannot be read ({error}): pass an .npz file of a CIFAR ResNet's weights") from None
    blocks = sum(name.startswith("layer1.") and name.endswith("conv1.weight") for name in arrays)
    _refuse_unlike(path, {name: x.shape for name, x in arrays.items()}, cifar_resnet.shapes(blocks))
    return Extractor(
        name=f"CIFAR-10 ResNet-{6 * blocks + 2} ({path.name})",
        sha256=_digest(arrays),
        preparation="[0, 1], then ImageNet's mean and deviation",
        side=32,
        channels=3,
        weights=arrays,
        compute=cifar_resnet.resnet,
    )


def _run(folder: Path) -> Extractor:
    run = restore(folder)
    if not isinstance(run.task, Extracts):
        raise UserError(f"{folder} is a {run.config['task']} run, which has no features: pass a classifier's folder")
    data = run.config["data"]
    return Extractor(
        name=f"{run.config['task']} run {folder.name}, step {run.step}",
        sha256=_digest({str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(run.state.ema))}),
        preparation="[-1, 1]",
        side=data["image_size"],
        channels=data["channels"],
        weights=run.state,
        compute=run.task.features,
    )


_OPENERS: dict[str, Callable[[Path], Extractor]] = {
    "inception": _inception,
    "cifar_resnet": _cifar_resnet,
    "run": _run,
}


def _refuse_unlike(path: Path, found: Mapping[str, tuple], wanted: Mapping[str, tuple]) -> None:
    wrong = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
    if wrong:
        name = min(wrong)
        raise UserError(
            f"{path} has other weights than this network: {len(wrong)} differ, such as {name} with shape "
            f"{found.get(name, 'missing')}, where {wanted.get(name, 'none')} is expected"
        )


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()
