"""Label maps, boxes and points go where the pixels go: by hand, and by what lies under each point."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.augmentation import geometry, spatial
from gormley_vision.data.features import Feature

HEIGHT, WIDTH, COUNT = 6, 8, 64
FEATURES = {
    "image": Feature("image", (HEIGHT, WIDTH, 3), "uint8"),
    "classes": Feature("label_map", (HEIGHT, WIDTH), "uint8", fill=255),
    "boxes": Feature("boxes", (3, 4), "float32", mask="boxes_there"),
    "boxes_there": Feature("mask", (3,), "bool"),
    "eyes": Feature("points", (3, 2), "float32", mask="eyes_there", flip_pairs=((0, 1),)),
    "eyes_there": Feature("mask", (3,), "bool"),
    "label": Feature("label", (), "int32"),
}
BOXES = [[0, 0, 2, 6], [3, 1, 5, 2], [0, 0, 0, 0]]  # a column at the left edge, one inside, and none
EYES = [[1, 2], [6, 2.5], [4, 5]]  # a left one, a right one, which is not seen, and a nose


def batch():
    """64 examples alike; classes number the pixels."""
    one = {
        "image": np.random.default_rng(0).integers(1, 256, (HEIGHT, WIDTH, 3)),
        "classes": np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH),
        "boxes": BOXES,
        "boxes_there": [True, True, False],
        "eyes": EYES,
        "eyes_there": [True, False, True],
        "label": 7,
    }
    return {name: jnp.array(np.stack([np.asarray(one[name])] * COUNT), f.dtype) for name, f in FEATURES.items()}


def moved(function, key=0, **options):
    found = jax.jit(partial(function, features=FEATURES, **options))(jax.random.key(key), batch())
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {
        n: (a.shape, a.dtype) for n, a in batch().items()
    }
    return {name: np.asarray(array) for name, array in found.items()}


def test_a_flip_by_hand():
    found, before = moved(spatial.flip_half), {name: np.asarray(array) for name, array in batch().items()}
    mirrored = np.asarray(geometry.draw_mirrored(jax.random.key(0), COUNT))
    assert 0 < mirrored.sum() < COUNT
    for name in ("image", "classes", "boxes", "boxes_there", "eyes_there", "label"):
        np.testing.assert_array_equal(found[name][~mirrored], before[name][~mirrored])
    for i in range(COUNT):
        if not mirrored[i]:
            assert found["eyes"][i].tolist() == [[1, 2], [0, 0], [4, 5]]  # what is not there is zeros
            continue
        np.testing.assert_array_equal(found["image"][i], before["image"][i, :, ::-1])
        np.testing.assert_array_equal(found["classes"][i], before["classes"][i, :, ::-1])
        assert found["boxes"][i].tolist() == [[6, 0, 8, 6], [3, 1, 5, 2], [0, 0, 0, 0]]
        assert found["boxes_there"][i].tolist() == [True, True, False]
        # The left eye at 1 is the right one at 8 - 1; of the left one nothing is seen now; the nose stays.
        assert found["eyes"][i].tolist() == [[0, 0], [7, 2], [4, 5]]
        assert found["eyes_there"][i].tolist() == [False, True, True]


def test_a_shift_by_hand():
    found, before = moved(spatial.shift, pixels=3), batch()
    rows, columns = (3 - np.asarray(geometry.draw_corners(jax.random.key(0), COUNT, 3))).T  # by how much it moved
    assert {*columns} == {*rows} == {-3, -2, -1, 0, 1, 2, 3}
    assert (found["image"] == geometry.shift(jax.random.key(0), before["image"], 3)).all()
    for i, (x, y) in enumerate(zip(columns, rows, strict=True)):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                inside = 0 <= row - y < HEIGHT and 0 <= column - x < WIDTH
                assert found["classes"][i, row, column] == ((row - y) * WIDTH + column - x if inside else 255)
        left = x > -2  # of the column at the left edge something is left
        top, bottom = max(0, y), min(HEIGHT, HEIGHT + y)
        assert found["boxes"][i, 0].tolist() == ([max(0, x), top, 2 + x, bottom] if left else [0, 0, 0, 0])
        assert found["boxes_there"][i].tolist() == [left, y > -2, False]
        assert found["eyes_there"][i].tolist() == [1 + x >= 0 and 2 + y >= 0, False, 5 + y <= HEIGHT]
        assert found["eyes"][i, 2].tolist() == ([4 + x, 5 + y] if 5 + y <= HEIGHT else [0, 0])
    assert moved(spatial.shift, pixels=0)["eyes"].tolist() == np.asarray(before["eyes"]).tolist()


def test_a_resized_crop_moves_everything_to_where_the_pixels_are():
    """Pixels tell where they were: after any crop, the value under a point is the point's own old place."""
    height, width, count = 24, 32, 50
    y, x = np.arange(height) + 0.5, np.arange(width) + 0.5
    image = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1).astype(np.float32)
    points = np.random.default_rng(0).uniform([4, 4], [28, 20], (9, 2)).astype(np.float32)
    features = {
        "image": Feature("image", image.shape, "float32"),
        "classes": Feature("label_map", (height, width), "int32"),
        "points": Feature("points", points.shape, "float32", mask="there"),
        "boxes": Feature("boxes", (9, 4), "float32"),
        "there": Feature("mask", (9,), "bool"),
    }
    one = {
        "image": image,
        "classes": np.arange(height * width).reshape(height, width),
        "points": points,
        "boxes": np.concatenate([points - 2, points + 2], -1),
        "there": np.ones(9, bool),
    }
    many = {name: jnp.array(np.stack([array] * count)) for name, array in one.items()}
    key = jax.random.key(3)
    found = jax.jit(lambda many: spatial.random_resized_crop(key, many, features, 0.3))(many)
    found = {name: np.asarray(array) for name, array in found.items()}
    assert (found["image"] == jax.jit(geometry.random_resized_crop)(key, many["image"], 0.3)).all()
    assert 0.3 < found["there"].mean() < 0.95
    checked = 0
    for i in range(count):
        # Where pixel centres came from, by the image's own values: linear, but for its edge.
        old_x, old_y = found["image"][i, 12, :, 0], found["image"][i, :, 16, 1]
        scale = np.array([(old_x[20] - old_x[10]) / 10, (old_y[15] - old_y[8]) / 7])
        corner = np.array([old_x[10] - 10.5 * scale[0], old_y[8] - 8.5 * scale[1]])
        expected = (points - corner) / scale
        there = ((expected >= 0) & (expected <= [width, height])).all(-1)
        np.testing.assert_array_equal(found["there"][i], there)
        np.testing.assert_allclose(found["points"][i][there], expected[there], atol=0.02)
        clipped = np.clip((one["boxes"].reshape(9, 2, 2) - corner) / scale, 0, [width, height]).reshape(9, 4)
        np.testing.assert_allclose(found["boxes"][i], clipped, atol=0.02)
        rows, columns = np.divmod(found["classes"][i], width)
        np.testing.assert_allclose(columns[0] + 0.5, corner[0] + x * scale[0], atol=0.51)
        np.testing.assert_allclose(rows[:, 0] + 0.5, corner[1] + y * scale[1], atol=0.51)
        checked += there.sum()
    assert checked > 100


def test_pictures_of_two_sizes_are_refused():
    odd = batch() | {"classes": jnp.zeros((COUNT, HEIGHT, WIDTH + 1), jnp.uint8)}
    with pytest.raises(ValueError, match="not of one size"):
        spatial.flip_half(jax.random.key(0), odd, FEATURES)
