"""Exact parameter counts, from the papers and their code."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from gormley_vision.models.vit import SIZES, ViT


def shapes(module, side=224):
    return nn.unbox(jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 3))))["params"]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


ROPE_S = {"position": "none", "layer_scale": 1e-5}
DINOV3 = {"position": "none", "rope": "dinov3", "registers": 4, "layer_scale": 1e-5, "qkv_bias": False, "classes": 0}
MAP = {"pooling": "map", "classes": 0}
COUNTS = [
    # vit_jax/models_test.py, MODEL_SIZES: [CLS], learned positions, 1000 classes.
    ("Ti", 16, {}, 5_717_416),
    ("S", 32, {}, 22_878_952),
    ("S", 16, {}, 22_050_664),
    ("B", 32, {}, 88_224_232),
    ("B", 16, {}, 86_567_656),
    ("B", 8, {}, 86_576_872),
    ("L", 32, {}, 306_535_400),
    ("L", 16, {}, 304_326_632),
    ("L", 14, {}, 304_203_752),
    ("H", 14, {}, 632_045_800),
    ("g", 14, {}, 1_012_611_432),
    ("G", 14, {}, 1_844_440_680),
    ("e", 14, {}, 3_807_214_312),
    ("B", 16, {"pooling": "gap"}, 86_566_120),
    ("B", 32, {"pooling": "gap"}, 88_222_696),
    ("S", 16, {"pooling": "gap"}, 22_049_896),
    ("S", 32, {"pooling": "gap"}, 22_878_184),
    # The same by the closed form; mu by hand: 24,608 of patches, 32, 6,304 of positions, 12,704, 64, 33,000 of head.
    ("H", 16, {}, 632_199_400),
    ("M", 16, {}, 38_837_736),
    ("mu", 16, {}, 76_712),
    ("B", 16, {"classes": 0}, 85_798_656),
    ("L", 16, {"classes": 0}, 303_301_632),
    ("H", 14, {"classes": 0}, 630_764_800),
    ("G", 14, {"classes": 0}, 1_842_775_680),
    # big_vision, configs/vit_s16_i1k.py; its MAP head (So400m is timm's vit_so400m_patch14_siglip_224).
    ("S", 16, {"pooling": "gap", "position": "sincos2d", "representation": 384}, 22_122_472),
    ("So400m", 14, MAP, 427_680_704),
    ("g", 14, MAP, 1_036_448_384),
    ("G", 14, MAP, 1_881_132_416),
    ("e", 14, MAP, 3_873_342_720),
    # timm: vit_small_patch16_rope_224, _rope_mixed_224; vit_{small,base}_patch16_dinov3 (no head).
    ("S", 16, ROPE_S | {"rope": "naver_axial"}, 21_984_232),
    ("S", 16, ROPE_S | {"rope": "naver_mixed"}, 21_988_840),
    ("S", 16, DINOV3, 21_586_944),
    ("B", 16, DINOV3, 85_641_216),
]
# The lecture's tables, in millions. "86M" is without a head, "307M" is L/32 and not L/16 (304), ViT-e's 3926M has
# MAP pooling and the 29,593 classes of JFT-3B.
LECTURE = [
    ("B", 16, {"classes": 0}, 86),
    ("L", 32, {}, 307),
    ("H", 14, {}, 632),
    ("G", 14, {"classes": 0}, 1843),
    ("e", 14, {"pooling": "map", "classes": 29_593}, 3926),
]


def published(name, patch, options):
    return ViT(**SIZES[name]._asdict(), patch_size=patch, **{"classes": 1000, **options})


@pytest.mark.parametrize(("name", "patch", "options", "expected"), COUNTS)
def test_parameter_counts(name, patch, options, expected):
    assert count(shapes(published(name, patch, options))) == expected


@pytest.mark.parametrize(("name", "patch", "options", "millions"), LECTURE)
def test_the_lectures_rounded_counts(name, patch, options, millions):
    assert round(count(shapes(published(name, patch, options))) / 1e6) == millions


def vit_22b():
    options = {"parallel": True, "qk_norm": True, "norm": "rms", "qkv_bias": False, "pooling": "map", "classes": 0}
    return shapes(published("22B", 14, options))


def test_22b_has_as_many_kernel_weights_in_its_encoder_as_the_paper_says():
    leaves = jax.tree.leaves_with_path(vit_22b()["encoder"])
    kernels = [leaf.size for path, leaf in leaves if path[-1].key == "kernel"]
    assert sum(kernels) == 21_743_271_936 == 48 * (4 * 6144**2 + 2 * 6144 * 24576)
    # Besides: one norm, QK-norm of 128 channels, and biases of the MLP and of the output; none of Q, K, V.
    others = sum(leaf.size for _, leaf in leaves) - sum(kernels)
    assert others == 48 * (6144 + 2 * 128 + 24576 + 6144 + 6144)


def test_all_sizes_are_tested():
    assert {name for name, *_ in COUNTS} | {"22B"} == set(SIZES)
