"""Random masks by their laws: what is hidden, where, how often; strokes also by scipy's distances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from gormley_vision.augmentation.masks import all_sides, boxes, brush_strokes, near_segments, one_side

COUNT = 400
SHAPE = (COUNT, 24, 16, 3)


@functools.cache
def program(function, shape, **options):
    return jax.jit(lambda key: function(key, shape, **options))


def drawn(function, shape=SHAPE, seed=0, **options):
    """What a function hides, bool [B, H, W]."""
    mask = program(function, shape, **options)(jax.random.key(seed))
    assert mask.shape == (*shape[:3], 1)
    assert mask.dtype == bool
    return ~np.asarray(mask)[..., 0]


def rectangle(mask):
    """(start, stop) of rows and of columns of a rectangle that is True."""
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis=axis))
        spans.append((places[0], places[-1] + 1))
    (top, bottom), (left, right) = spans
    assert mask[top:bottom, left:right].all()
    assert mask.sum() == (bottom - top) * (right - left)
    return np.array(spans)


def equally_often(values, wanted):
    """Each of `wanted`, and nothing else, as often as the others."""
    found, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, wanted)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("function", [boxes, brush_strokes, one_side, all_sides])
def test_a_mask_is_a_function_of_the_key_and_differs_between_images(function):
    first, again, other = (drawn(function, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(np.unique(first, axis=0)) > 3


def test_boxes_are_rectangles_within_margins_of_every_size_and_place():
    spans = np.array([rectangle(mask) for mask in drawn(boxes, smallest=0.25, largest=0.5, margin=0.125)])
    rows, columns = spans[:, 0], spans[:, 1]
    equally_often(rows[:, 1] - rows[:, 0], np.arange(6, 13))
    equally_often(columns[:, 1] - columns[:, 0], np.arange(4, 9))
    for side, (start, stop), margin in ((24, rows.T, 3), (16, columns.T, 2)):
        assert start.min() == margin
        assert stop.max() == side - margin
        largest = stop - start == side // 2
        equally_often(start[largest], np.arange(margin, side - margin - side // 2 + 1))


def test_boxes_by_default_are_those_of_palette():
    """108 to 128 of 256 pixels, 20 away from the border."""
    spans = np.array([rectangle(mask) for mask in drawn(boxes, (COUNT, 256, 256, 1))])
    assert {*(spans[..., 1] - spans[..., 0]).ravel()} == {*range(108, 129)}
    assert spans.min() >= 20
    assert spans.max() <= 236


def test_boxes_that_do_not_fit_are_refused():
    for options, message in (
        ({"margin": 0.3}, "a box of 10 to 12 of 24 pixels .* margins of 7"),
        ({"smallest": 0.6}, "14 to 12"),
        ({"smallest": 0.0}, "0 to 12"),
    ):
        with pytest.raises(ValueError, match=message):
            boxes(jax.random.key(0), SHAPE, **options)


def test_one_side_hides_each_side_as_often():
    candidates = [np.zeros(SHAPE[1:3], bool) for _ in range(4)]
    candidates[0][:12] = candidates[1][12:] = candidates[2][:, :8] = candidates[3][:, 8:] = True
    equal = np.stack([(drawn(one_side) == candidate).all((1, 2)) for candidate in candidates])
    assert (equal.sum(0) == 1).all()
    equally_often(equal.argmax(0), np.arange(4))
    quarter = drawn(one_side, hidden=0.25)
    np.testing.assert_array_equal(quarter.mean((1, 2)), 0.25)
    assert {*np.flatnonzero([quarter[:, 0].all(1).any(), quarter[:, -1].all(1).any()])} == {0, 1}


def test_all_sides_leave_a_box_of_half_the_area_inside():
    hidden = drawn(all_sides)
    spans = np.array([rectangle(~mask) for mask in hidden])
    for side, (start, stop), length in ((24, spans[:, 0].T, 17), (16, spans[:, 1].T, 11)):  # 24 and 16 / sqrt(2)
        assert {*(stop - start)} == {length}
        equally_often(start, np.arange(1, side - length))
    assert abs(drawn(all_sides, (4, 256, 256, 3)).mean() - 0.5) < 0.01
    with pytest.raises(ValueError, match="of 2 pixels none is left"):
        all_sides(jax.random.key(0), (1, 2, 2, 3))


def test_segments_are_drawn_by_hand():
    """A horizontal line, the corner of a line of two pieces, a point, and one that is not drawn."""
    starts = jnp.array([[[2.5, 1.5], [4.5, 1.5], [6.5, 6.5], [0.5, 0.5]]])
    ends = jnp.array([[[2.5, 4.5], [4.5, 1.5], [6.5, 6.5], [0.5, 6.5]]])
    found = near_segments(starts, ends, jnp.array([[0.0, 0.0, 1.0, -1.0]]), (8, 8))
    wanted = """
        ........
        ........
        .####...
        ........
        .#......
        ......#.
        .....###
        ......#."""
    assert "\n".join("".join(".#"[int(x)] for x in row) for row in found[0, :, :, 0]) == wanted.replace(" ", "")[1:]


def test_segments_by_the_distance_to_points_along_them():
    ends = np.random.default_rng(0).uniform(-2, 14, (2, 3, 2, 2)).astype(np.float32)
    radii = np.array([[0.5, 1.5, 2.5]] * 2, np.float32)
    found = np.asarray(near_segments(*jnp.moveaxis(ends, 2, 0), radii, (12, 9)))[..., 0]
    centres = np.moveaxis(np.indices((12, 9)), 0, -1) + 0.5
    share = np.linspace(0, 1, 2001)[:, None]
    for image in range(2):
        distance = np.full((12, 9), np.inf)
        for (start, end), radius in zip(ends[image], radii[image], strict=True):
            along = start + share * (end - start)
            distance = np.minimum(distance, np.linalg.norm(centres[:, :, None] - along, axis=-1).min(-1) - radius)
        clear = np.abs(distance) > 1e-2
        np.testing.assert_array_equal(found[image][clear], (distance < 0)[clear])


def test_a_stroke_is_one_connected_line_as_thick_as_asked():
    for mask in drawn(brush_strokes, (40, 96, 64, 3), strokes=1, pieces=(1, 1), thickness=(0.125, 0.125)):
        # 8 pixels thick: 4 deep, up to the distance between pixels; less where the border cuts it.
        assert ndimage.distance_transform_edt(mask).max() >= 3.2
        assert ndimage.distance_transform_edt(np.pad(mask, 1)).max() <= 5.1
    for mask in drawn(brush_strokes, (40, 96, 64, 3), strokes=1, thickness=(0.125, 0.125)):
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        y, x = np.indices((7, 7)) - 3
        brushed = ndimage.binary_opening(np.pad(mask, 8, mode="edge"), y**2 + x**2 <= 9)[8:-8, 8:-8]
        assert (mask & ~brushed).sum() <= 0.05 * mask.sum()  # a brush of 7 pixels reaches nearly all of it


def test_how_many_strokes_there_are():
    """Short thin ones seldom touch: mostly 1, 2 or 3 pieces, each as often; never none, never more."""
    hidden = drawn(brush_strokes, (COUNT, 100, 100, 3), pieces=(1, 1), thickness=(0.01, 0.02))
    pieces = np.array([ndimage.label(mask, np.ones((3, 3)))[1] for mask in hidden])
    assert {*pieces} == {1, 2, 3}
    assert (np.bincount(pieces)[1:] > COUNT * 0.22).all()


def test_how_much_strokes_hide():
    """As Palette's code: of 256x256 pixels 0.147 on average, deviation 0.078, in 2,000 draws of `brush_stroke_mask`."""
    shares = drawn(brush_strokes, (COUNT, 64, 64, 3)).mean((1, 2))
    assert abs(shares.mean() - 0.147) < 0.015
    assert abs(shares.std() - 0.078) < 0.015
