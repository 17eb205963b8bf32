"""Style transfer by optimisation: the state is the picture. Gatys et al. 2015, arXiv:1508.06576.

The data set of the run is not read. Deviation: one iteration of L-BFGS a step, with optax's zoom line search.
"""

import dataclasses
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gormley_vision.errors import UserError, listed
from gormley_vision.finiteness import finite
from gormley_vision.randomness import named_key
from gormley_vision.samples import Pictures
from gormley_vision.tasks.feature_nets import Maps, as_input
from gormley_vision.tasks.networks import to_unit_range
from gormley_vision.tasks.style_transfer.fields import SAMPLING
from gormley_vision.tasks.style_transfer.objective import Objective

Arrays = dict[str, jax.Array]
_NOISE = 0.25  # standard deviation of a start from noise


@flax.struct.dataclass
class PictureState:
    """The picture [1, H, W, 3], in about [-1, 1], and what it is compared with, both divided by `scales`."""

    step: jax.Array
    picture: jax.Array
    opt_state: optax.OptState
    scales: Maps
    content: Maps
    style: Maps


@dataclasses.dataclass(frozen=True, eq=False)
class PictureOptimisation:
    """The task. `content_picture` and `style_picture` are uint8 [1, H, W, 3]."""

    objective: Objective
    content_picture: np.ndarray
    style_picture: np.ndarray
    start: Literal["content", "noise"]
    optimizer_name: Literal["lbfgs", "adam"]
    learning_rate: float  # of Adam

    afterwards = "write the picture: python scripts/sample.py --workdir={workdir} --out=picture.png"

    @property
    def _optimizer(self) -> optax.GradientTransformationExtraArgs:
        if self.optimizer_name == "lbfgs":
            return optax.lbfgs()
        return optax.with_extra_args_support(optax.adam(self.learning_rate))

    def init(self, key: jax.Array) -> PictureState:
        """Return a fresh state, of which only a start from noise depends on the key."""
        content, style = (to_unit_range(as_input(x)) for x in (self.content_picture, self.style_picture))
        net = self.objective.net
        scales = net.scales(content, style)
        picture = content
        if self.start == "noise":
            picture = _NOISE * jax.random.normal(named_key(key, "init/picture"), content.shape)
        return PictureState(
            step=jnp.zeros((), jnp.int32),
            picture=picture,
            opt_state=self._optimizer.init(jnp.copy(picture)),
            scales=scales,
            content=self.objective.content(net(content, scales)),
            style=self.objective.style(net(style, scales)),
        )

    def train_step(self, state: PictureState, batch: Arrays, key: jax.Array) -> tuple[PictureState, Arrays, Arrays]:
        """Take one iteration. The metrics are of the picture before it."""
        del batch, key

        def parts(picture: jax.Array) -> Arrays:
            return self.objective.parts(picture, state.scales, state.content, state.style)

        def loss(picture: jax.Array) -> jax.Array:
            return sum(parts(picture).values(), start=jnp.float32(0))

        picture, line_search = state.picture, {}
        if self.optimizer_name == "lbfgs":  # the line search has evaluated the loss and its gradient here
            value, gradient = optax.value_and_grad_from_state(loss)(picture, state=state.opt_state)
            line_search = {"value": value, "grad": gradient, "value_fn": loss}
        else:
            value, gradient = jax.value_and_grad(loss)(picture)
        updates, opt_state = self._optimizer.update(gradient, state.opt_state, picture, **line_search)
        after = optax.apply_updates(picture, updates)
        metrics = {"loss/train": value, **parts(picture), "gradient_norm/picture": optax.tree.norm(gradient)}
        checks = finite("picture/loss", value) | finite("picture/gradient", gradient)
        return dataclasses.replace(state, step=state.step + 1, picture=after, opt_state=opt_state), metrics, checks

    def preview(self, state: PictureState, key: jax.Array) -> jax.Array:
        """Return the picture, [1, H, W, 3] in [-1, 1]."""
        del key
        return jnp.clip(state.picture, -1, 1)

    def show(self, preview: Any) -> Pictures:
        """Return it."""
        return Pictures(preview)

    def sample(self, state: PictureState, *, num: int, seed: int, **options: Any) -> Pictures:
        """Return the picture, once, however many are requested.

        Raises:
            UserError: an option of networks.
        """
        del num, seed
        if given := [f"--{name}" for name, value in options.items() if value != SAMPLING[name].default]:
            raise UserError(f"this run is one picture, and {listed(given)} is of networks: leave it out")
        return Pictures(np.clip(state.picture, -1, 1))
