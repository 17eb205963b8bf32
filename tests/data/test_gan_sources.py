"""The ring of Gaussians and stacked digits: where their modes are, and that examples are functions of their number."""

import numpy as np
import pytest

from gormley_vision.config import default_config
from gormley_vision.data.gan_sources import ring_centres
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError


def opened(source, **changes):
    data = default_config("gan").data.to_dict()
    return open_source({**data, "source": source, **changes})


def test_the_ring_has_eight_gaussians_of_deviation_002():
    source = opened("ring")
    points = np.array([source[i]["vector"] for i in range(8000)])
    labels = np.array([source[i]["label"] for i in range(8000)])
    assert (labels == source.labels[:8000]).all()
    means = np.array([points[labels == mode].mean(0) for mode in range(8)])
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 2, atol=0.003)
    np.testing.assert_allclose(means[2], [0, 2], atol=0.003)
    np.testing.assert_allclose(means, ring_centres(), atol=0.003)
    np.testing.assert_allclose((points - means[labels]).std(), 0.02, rtol=0.03)


def test_an_example_is_a_function_of_its_number():
    one, other = opened("ring"), opened("ring")
    for index in (0, 7, 49_999):
        np.testing.assert_array_equal(one[index]["vector"], other[index]["vector"])
    assert one[1]["vector"].tobytes() != one[9]["vector"].tobytes()
    with pytest.raises(IndexError):
        one[50_000]


def test_stacked_digits_are_three_digits_and_their_label():
    source, digits = opened("stacked_mnist", channels=3), opened("mnist_5k")
    every = {digits[i]["image"].tobytes(): int(digits[i]["label"]) for i in range(len(digits))}
    for index in (0, 1, 17, 49_999):
        image, label = source[index]["image"], int(source[index]["label"])
        found = [every[np.ascontiguousarray(image[..., c, None]).tobytes()] for c in range(3)]
        assert source.class_names[label] == "".join(map(str, found))
    counts = np.bincount(source.labels, minlength=1000)
    assert len(source) == 50_000
    assert counts.min() > 20  # of about 50


def test_stacked_digits_need_three_channels():
    with pytest.raises(UserError, match="channels=3"):
        opened("stacked_mnist")
    with pytest.raises(UserError, match="split=train"):
        opened("ring", split="test")
