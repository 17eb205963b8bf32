"""Image classification by cross-entropy: pre-training, fine-tuning at another resolution, and linear probes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gormley_vision.augmentation.geometry import flip_half, random_resized_crop, shift
from gormley_vision.augmentation.mixing import mix, smoothed_targets
from gormley_vision.augmentation.randaugment import randaugment
from gormley_vision.errors import UserError, listed
from gormley_vision.finiteness import finite
from gormley_vision.layers.positions import ResizeConvention, resize_position_embeddings
from gormley_vision.losses.classification import softmax_cross_entropy
from gormley_vision.models.vit import ViT
from gormley_vision.randomness import named_key
from gormley_vision.samples import Pictures
from gormley_vision.tasks.accumulation import accumulated
from gormley_vision.tasks.networks import (
    Network,
    Variables,
    apply_gradients,
    ema_decay,
    moving_average,
    new_network,
    to_unit_range,
)

Arrays = dict[str, jax.Array]
_TABLE = "params/position_embedding"
_PARTS = ("classifier/variables", "ema")


@flax.struct.dataclass
class ClassificationState:
    """All that training changes. `ema` holds the averaged variables, which evaluation uses."""

    step: jax.Array
    classifier: Network
    ema: Variables


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation of a batch of training images, in this order; 0 turns an operation off."""

    flip: bool
    shift: int  # pixels
    crop_min_area: float  # fraction
    randaugment_operations: int
    randaugment_magnitude: float
    mixup: float  # alpha
    cutmix: float  # alpha
    label_smoothing: float

    def __call__(self, key: jax.Array, images: jax.Array, labels: jax.Array, classes: int, step: jax.Array):
        """Augment uint8 [B, H, W, C] and labels [B] to float32 images in [-1, 1] and targets [B, Y]."""
        if self.flip:
            images = flip_half(named_key(key, "flip", step), images)
        if self.shift:
            images = shift(named_key(key, "shift", step), images, self.shift)
        if self.crop_min_area:
            images = random_resized_crop(named_key(key, "crop", step), images, self.crop_min_area)
        if self.randaugment_operations:
            draw = named_key(key, "randaugment", step)
            images = randaugment(
                draw, images, operations=self.randaugment_operations, magnitude=self.randaugment_magnitude
            )
        targets = smoothed_targets(labels, classes, self.label_smoothing)
        draw = named_key(key, "mix", step)
        return mix(draw, to_unit_range(images), targets, mixup_alpha=self.mixup, cutmix_alpha=self.cutmix)


@dataclasses.dataclass(frozen=True)
class Classification:
    """The task; the model maps images [B, H, W, C] in [-1, 1] to logits [B, Y]."""

    classifier: ViT
    optimizer: optax.GradientTransformation
    augmentation: Augmentation
    image_shape: tuple[int, int, int]
    batch_size: int
    ema_half_life: float  # images
    ema_ramp: float
    position_resize: ResizeConvention
    fresh_head: bool
    class_names: tuple[str, ...]
    accumulate: int = 1  # microbatches

    afterwards = "look into it: python scripts/visualize.py --workdir={workdir}"

    def init(self, key: jax.Array) -> ClassificationState:
        """Return a fresh state, a function of the key only."""
        images = jnp.zeros((1, *self.image_shape))
        params = self.classifier.init(named_key(key, "init/classifier"), images)["params"]
        variables = {"params": params, "batch_stats": {}}
        ema = jax.tree.map(jnp.copy, variables)  # a copy: a donated buffer may appear only once
        return ClassificationState(jnp.zeros((), jnp.int32), new_network(variables, self.optimizer), ema)

    def train_step(
        self, state: ClassificationState, batch: Arrays, key: jax.Array
    ) -> tuple[ClassificationState, Arrays, Arrays]:
        """Take one gradient step on 'image' uint8 [1, m, H, W, C] and 'label' int32 [1, m]."""
        labels, network = batch["label"][0], state.classifier
        images, targets = self.augmentation(key, batch["image"][0], labels, self.classifier.classes, state.step)
        dropout_key = named_key(key, "dropout", state.step)

        def loss(params: Any, microbatch: tuple[jax.Array, ...], number: jax.Array):
            images, targets, labels = microbatch
            draws = {"dropout": jax.random.fold_in(dropout_key, number)}
            logits: Any = self.classifier.apply({"params": params}, images, train=True, rngs=draws)
            accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
            return jnp.mean(softmax_cross_entropy(logits, targets)), accuracy

        (value, accuracy), gradients = accumulated(
            jax.value_and_grad(loss, has_aux=True),
            network.variables["params"],
            (images, targets, labels),
            self.accumulate,
        )
        metrics = {
            "loss/classifier": value,
            "accuracy/train": accuracy,
            "gradient_norm/classifier": optax.tree.norm(gradients),
        }
        checks = finite("classifier/loss", value) | finite("classifier/gradient", gradients)
        network = apply_gradients(network, gradients, {}, self.optimizer)
        images_seen = (state.step.astype(jnp.float32) + 1) * self.batch_size
        decay = ema_decay(images_seen, self.batch_size, self.ema_half_life, self.ema_ramp)
        ema = moving_average(state.ema, network.variables, decay)
        return ClassificationState(state.step + 1, network, ema), metrics, checks

    def logits(self, state: ClassificationState, images: jax.Array) -> jax.Array:
        """Return logits [B, Y] of uint8 images [B, H, W, C], by the averaged variables."""
        logits: Any = self.classifier.apply(state.ema, to_unit_range(images))
        return logits

    def features(self, state: ClassificationState, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return features [B, D] and probabilities [B, Y] of uint8 images [B, H, W, C], by the averaged variables."""
        features: Any = self.classifier.clone(classes=0).apply(state.ema, to_unit_range(images))
        return features, jax.nn.softmax(self.logits(state, images))

    def eval_step(self, state: ClassificationState, batch: Arrays) -> Arrays:
        """Return sums 'accuracy', 'loss' and 'count' over 'image' uint8 [B, H, W, C], 'label' [B] and 'mask' bool [B].

        Sums of all batches over their count are the mean over the split, whatever the batch size.
        """
        logits = self.logits(state, batch["image"])
        losses = softmax_cross_entropy(logits, jax.nn.one_hot(batch["label"], self.classifier.classes))
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        mask = batch["mask"].astype(jnp.float32)
        return {"accuracy": jnp.sum(correct * mask), "loss": jnp.sum(losses * mask), "count": jnp.sum(mask)}

    def transfer(
        self,
        weights: Arrays,
        state: ClassificationState,
        *,
        config: Mapping[str, Any],
        class_names: tuple[str, ...],
    ) -> Arrays:
        """Return another run's weights, {'ema/params/...': array, 'classifier/variables/...'}, made to fit `state`.

        A learned table of positions is resized from the grid of that run's `config` to this one's. With
        `fresh_head` (fine-tuning) only the average is used, and the head is that of `state`: zeros, whatever the
        classes were. Without it the head's outputs are matched to classes by name, in whatever order they are here.

        Raises:
            UserError: the other run is not a classifier's; or its classes differ, and the head is not fresh.
        """
        if self.fresh_head:  # the encoder of masked patches lies one level deeper
            weights = {
                name.replace("/params/vit/", "/params/"): x for name, x in weights.items() if _of_vit(name, weights)
            }
        if "ema/params/patch_embedding" not in weights:
            raise UserError(
                f"init_from is a run of {config['task']}, and this needs a classification run: pass its folder"
            )
        heads = {f"{part}/params/head/{name}": x for part in _PARTS for name, x in state.ema["params"]["head"].items()}
        if self.fresh_head:
            averaged = {name.removeprefix("ema/"): x for name, x in weights.items() if name.startswith("ema/")}
            weights = {f"{part}/{name}": jnp.copy(x) for part in _PARTS for name, x in averaged.items()}
            weights |= {name: jnp.copy(head) for name, head in heads.items()}
        elif set(class_names) != set(self.class_names):
            raise UserError(
                f"init_from has other classes: {listed(class_names)}; here they are {listed(self.class_names)}: "
                "pass --config.classification.fresh_head=true"
            )
        else:
            order = jnp.array([class_names.index(name) for name in self.class_names])
            weights |= {name: jnp.take(weights[name], order, axis=-1) for name in heads if name in weights}
        patches = "ema/params/patch_embedding"
        if weights[patches].shape[:2] != (self.classifier.patch_size,) * 2:
            return weights  # `merge` reports all that differs
        old, new = (side // self.classifier.patch_size for side in (config["data"]["image_size"], self.image_shape[0]))
        return {
            name: resized_positions(x, (old, old), (new, new), self.position_resize) if name.endswith(_TABLE) else x
            for name, x in weights.items()
        }

    def preview(self, state: ClassificationState, key: jax.Array) -> jax.Array:
        """Return the patch embedding's filters as images [D, P, P, C], each scaled to [-1, 1]."""
        del key
        kernel = state.ema["params"]["patch_embedding"].astype(jnp.float32)
        return jnp.moveaxis(kernel / jnp.maximum(jnp.abs(kernel).max((0, 1, 2), keepdims=True), 1e-8), 3, 0)

    def show(self, preview: Any) -> Pictures:
        """Return the filters as a grid."""
        return Pictures(preview, columns=8)

    def vision_transformer(self, state: ClassificationState) -> tuple[ViT, Mapping[str, Any]]:
        """Return the network and its averaged parameters, which evaluation uses: for inspection.py."""
        return self.classifier, state.ema["params"]


def _of_vit(name: str, weights: Arrays) -> bool:
    """Return whether an array is of the network to be fine-tuned; of masked patches' only the encoder is."""
    return "ema/params/vit/patch_embedding" not in weights or "/params/vit/" in name


def resized_positions(
    table: jax.Array, old: tuple[int, int], new: tuple[int, int], convention: ResizeConvention
) -> jax.Array:
    """Resize a learned table [1, N or N+1, D] from grid `old` (height, width) to `new`; [CLS] is unchanged."""
    first = table.shape[1] - old[0] * old[1]
    patches = resize_position_embeddings(table[0, first:], old, new, convention)
    return jnp.concatenate([table[:, :first], patches[None]], axis=1)
