"""Evaluation sums over a padded split equal plain numpy over the unpadded one."""

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.config import default_config
from gormley_vision.experiment import make_task


def test_sums_over_padded_batches_equal_numpy_over_the_whole_split():
    config = default_config("classification")
    config.update_from_flattened_dict({"data.image_size": 16, "classifier.width": 2})
    task = make_task(config.to_dict(), class_names=("a", "b", "c"), epoch_images=10)
    state = jax.jit(task.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 16, 16, 1), np.uint8)
    labels = rng.integers(0, 3, 10, np.int32)

    evaluate = jax.jit(task.eval_step)
    sums = {"correct": 0.0, "loss": 0.0, "count": 0.0}
    for start in (0, 4, 8):
        part = slice(start, start + 4)
        padding = 4 - len(labels[part])
        batch = {
            "image": jnp.asarray(np.pad(images[part], ((0, padding), (0, 0), (0, 0), (0, 0)))),
            "label": jnp.asarray(np.pad(labels[part], (0, padding))),
            "mask": jnp.arange(4) < 4 - padding,
        }
        for name, value in evaluate(state, batch).items():
            sums[name] += float(value)

    inputs = images.astype(np.float32) / 255 * 2 - 1
    logits = np.asarray(jax.jit(lambda x: task.classifier.apply(state.classifier.variables, x, train=False))(inputs))
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(10), labels]
    assert sums["count"] == 10
    assert sums["correct"] == (logits.argmax(1) == labels).sum()
    np.testing.assert_allclose(sums["loss"], losses.sum(), rtol=1e-5)
