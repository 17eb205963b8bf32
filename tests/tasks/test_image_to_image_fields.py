"""A config of image to image that contradicts itself is refused, with what to type instead."""

import pytest

from gormley_vision.config import default_config, validate
from gormley_vision.errors import UserError

TINY = {
    "data.image_size": 32,
    "data.channels": 3,
    "data.batch_size": 4,
    "log.samples": 2,
    "generator.width": 4,
    "generator.levels": 3,
    "discriminator.width": 4,
    "discriminator.receptive_field": 16,
}


def config_of(changes):
    config = default_config("image_to_image")
    config.update_from_flattened_dict({**TINY, **changes})
    validate(config.to_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"translation.patch": 64}, "translation.patch=32"),
        ({"translation.degradation": "downscale"}, "generator.architecture=edsr"),
        ({"generator.architecture": "fsrcnn", "generator.levels": 7, "generator.width": 64}, "degradation=downscale"),
        ({"data.image_size": 36}, r"data.image_size=32, or fewer --config.generator.levels"),
        ({"discriminator.receptive_field": 142}, "receptive_field=70"),
        ({"translation.adversarial": 0.0, "translation.l1": 0.0}, "translation.l1=100"),
        ({"translation.perceptual": 1.0, "translation.feature_layers": "relu9_1"}, "relu1_1,relu2_1"),
        (
            {"translation.adversarial": 0.0, "translation.schedules": "translation.adversarial = 0: 0, 1k: 1"},
            r"--config\.translation\.adversarial=1e-6",
        ),
        ({"generator.convolution": "partial"}, "degradation=strokes"),
        ({"accumulate": 2, "generator.norm": "batch"}, "generator.norm=instance"),
        ({"translation.degradation": "grey", "data.channels": 1}, "data.channels=3"),
        (
            {"translation.degradation": "box", "generator.architecture": "edsr", "generator.levels": 7},
            "architecture=unet",
        ),
    ],
)
def test_contradictions_say_what_to_type(changes, message):
    changes = {"translation.degradation": "blur", **changes}
    if changes.get("translation.adversarial") == 0.0:
        changes |= {"discriminator.width": 64, "discriminator.receptive_field": 70}
    with pytest.raises(UserError, match=message):
        config_of(changes)
