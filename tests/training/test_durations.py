"""Durations, worked by hand."""

import pytest

from gormley_vision.durations import to_images, to_steps
from gormley_vision.errors import UserError


@pytest.mark.parametrize(
    ("duration", "images", "steps"),
    [
        ("7 steps", 896, 7),
        ("1 step", 128, 1),
        ("3 epochs", 3000, 23),  # 23.4
        ("1 epoch", 1000, 8),  # 7.8
        ("0.5 epochs", 500, 4),  # 3.9
        ("640 images", 640, 5),
        ("1 image", 1, 1),  # at least one step
        ("1.28k images", 1280, 10),
        ("5M images", 5_000_000, 39062),  # 39062.5, to even
        ("2k steps", 256_000, 2000),
        ("  12  Steps ", 1536, 12),
        ("0 steps", 0, 0),
        ("0 images", 0, 0),
    ],
)
def test_durations(duration, images, steps):
    assert to_images(duration, epoch_images=1000, step_images=128) == pytest.approx(images, rel=1e-12)
    found = to_steps(duration, epoch_images=1000, step_images=128)
    assert found == steps
    assert type(found) is int


def test_empty_duration_is_never():
    assert to_steps("", epoch_images=1000, step_images=128) == 0


@pytest.mark.parametrize(
    "duration",
    ["50", "epochs", "5 weeks", "-3 steps", "1e3 steps", "5 G images", "nan steps", "5,000 images"],
)
def test_other_text_is_refused_with_an_example(duration):
    with pytest.raises(UserError) as refusal:
        to_steps(duration, epoch_images=1000, step_images=128)
    assert repr(duration) in str(refusal.value)
    assert "'50 epochs'" in str(refusal.value)


def test_empty_text_is_no_number_of_images():
    with pytest.raises(UserError):
        to_images("", epoch_images=1000, step_images=128)
