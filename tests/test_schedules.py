"""Schedules in images seen: their language, and the numbers at positions worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision import schedules
from gormley_vision.config import default_config, validate
from gormley_vision.errors import UserError
from gormley_vision.tasks.scalars import Schedule, at


def schedule(text, epoch_images=1000, step_images=10, run_images=1e6):
    (points,) = schedules.parsed(f"gan.r1 = {text}").values()
    found = schedules.resolved(points, epoch_images=epoch_images, step_images=step_images, run_images=run_images)
    return Schedule(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0: 2", {0: 2, 10**9: 2}),
        ("0: 1, 100: 3", {0: 1, 99: 1, 100: 3, 101: 3}),
        ("0: 1, 100: 3 linear", {0: 1, 25: 1.5, 100: 3, 1000: 3}),
        ("0: 2e-4, 10M: 5e-5 cosine", {0: 2e-4, 5_000_000: 1.25e-4, 10_000_000: 5e-5, 2 * 10**7: 5e-5}),
        ("0: 1, 100: 0 cosine", {100 / 3: 0.75, 200 / 3: 0.25}),  # (1 + cos 60) / 2, (1 + cos 120) / 2
        ("0: 8, 300: 1 exponential", {100: 4, 200: 2}),
        ("0: 0, 100: 1 linear, 200: 1, 300: 0 linear", {50: 0.5, 150: 1, 250: 0.5, 301: 0}),
        ("0: 0, 2 epochs: 1 linear", {1000: 0.5}),
        ("0: 0, 50 steps: 1 linear", {250: 0.5}),
        ("0: 0, 50%: 1 linear", {250_000: 0.5}),
        ("0: 0, 20M: 5M linear", {10_000_000: 2.5e6}),
    ],
)
def test_numbers_by_hand(text, expected):
    found = schedule(text)
    for images, value in expected.items():
        np.testing.assert_allclose(float(found(jnp.float32(images))), value, rtol=2e-6, atol=1e-12)


def test_constants_stay_and_schedules_are_computed():
    found = at({"a": 0.5, "b": schedule("0: 1, 100: 3 linear")}, jnp.float32(50))
    assert found["a"] == 0.5
    assert float(found["b"]) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gan.r1: 0: 1", "has no '='"),
        ("gan.r1 = 0: 1; gan.r1 = 0: 2", "is there twice"),
        ("gan.r1 = 0: 1 quickly", "write POSITION: NUMBER"),
        ("gan.r1 = 0: one", "write POSITION: NUMBER"),
        ("gan.r1 = soon: 1", "positions are"),
        ("gan.r1 = 10: 1", "its first position is 0"),
        ("gan.r1 = 0: 0, 10: 1 exponential", "write linear"),
        ("gan.r1 = 0: 1 cosine", "leave out 'cosine'"),
        ("gan.R1 = 0: 1", "did you mean 'gan.r1'"),
        ("gan.r1 = 0: -1", "outside of 0 to"),
        ("generator_optimizer.beta2 = 0: 0.9, 10: 1", "outside of 0 to below 1"),
        ("data.batch_size = 0: 1", "no schedule changes 'data.batch_size'"),
        ("gan.augment_probability = 0: 0, 1M: 1 linear", "nothing reads if gan.augment=''"),
        ("gan.classifier_weight = 0: 1", "nothing reads if discriminator.conditioning='concatenation'"),
    ],
)
def test_a_wrong_schedule_is_refused_by_name(text, said):
    config = default_config("gan")
    config.gan.schedules = text
    with pytest.raises(UserError, match=said):
        validate(config)


def test_two_values_of_one_number_are_refused():
    config = default_config("gan")
    config.gan.r1 = 0.5
    config.gan.schedules = "gan.r1 = 0: 0.05, 10M: 0.005"
    with pytest.raises(UserError, match="leave out one of the two"):
        validate(config)
    config.gan.r1 = 0.05
    validate(config)


def test_positions_increase():
    with pytest.raises(UserError, match="positions increase"):
        schedule("0: 1, 2000: 2, 1 epochs: 3")
