"""Which losses of image to image the health monitor judges."""

import jax
import jax.numpy as jnp
import pytest

from gormley_vision.config import default_config
from gormley_vision.experiment import described, make_task
from gormley_vision.health import Monitor
from gormley_vision.training.task import first_state

L1_AND_L2 = {"translation.adversarial": 0.0, "translation.l1": 1.0, "translation.l2": 1.0}


@pytest.mark.parametrize(
    ("changes", "minimised"), [({}, {"loss/l1"}), (L1_AND_L2, {"loss/l1", "loss/l2", "loss/generator"})]
)
def test_losses_that_are_minimised_are_judged_and_those_of_a_game_are_not(changes, minimised):
    config = default_config("image_to_image")
    small = {"data.image_size": 32, "data.channels": 3, "data.batch_size": 2, "generator.levels": 3}
    config.update_from_flattened_dict(small | {"translation.degradation": "box"} | changes)
    task, key = make_task(config.to_dict(), described(config.to_dict(), (), 16)), jax.random.key(0)
    state, images = jax.eval_shape(lambda: first_state(task, key)), jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.uint8)
    _, metrics, _ = jax.eval_shape(task.train_step, state, {"image": images}, key)
    assert minimised <= metrics.keys()
    values = [1.6, 1.5, 0.4, 1.4, 2.0, 2.0, 2.0, 2.0]  # fell by far more than half, and is above its first value
    names = [name for name in metrics if name.startswith("loss/")]
    monitor = Monitor(task.rules)
    verdicts = [v for step, x in enumerate(values) for v in monitor.add({"step": step, **dict.fromkeys(names, x)})]
    assert {str(v).split()[3] for v in verdicts if v.name == "divergence"} == minimised
