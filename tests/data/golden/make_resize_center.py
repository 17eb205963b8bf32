"""Writes resize_center.npz beside it: pictures through torchvision's own evaluation transform, for test_images.

    python tests/data/golden/make_resize_center.py

Made with torchvision 0.29.1, torch 2.14.1, Pillow 13.0.0; the file holds the versions. It holds `base`, uint8
[H, W, 3], of which each case is the upper left corner; `cases` [C, 4] (height, width, image size, filter's place in
`filters`), `fractions` [C], and `expected`, the results [s, s, 3] flattened, one case after the other.
"""

import itertools
import math
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision import transforms

FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")
# Portraits and landscapes, odd and even, squares, slivers, some smaller than the target on one side or on both.
SHAPES = [
    (40, 40), (41, 40), (40, 43), (37, 52), (53, 37), (64, 97), (97, 31), (90, 33),
    (9, 20), (21, 10), (5, 7), (7, 5), (3, 3), (1, 4), (12, 16), (16, 11), (14, 16), (33, 19), (96, 12), (13, 96),
]  # fmt: skip
TARGETS = [(12, 0.875), (13, 0.875), (8, 0.9), (11, 1.0), (9, 0.45)]


def main():
    """Write the file."""
    base = np.random.default_rng(0).integers(0, 256, (97, 97, 3)).astype(np.uint8)
    cases, fractions, expected, surplus = [], [], [], set()
    for number, ((height, width), (size, fraction)) in enumerate(itertools.product(SHAPES, TARGETS)):
        kind = number % len(FILTERS) if number % 2 else 1 + 2 * (number // 2 % 2)  # bilinear and bicubic most often
        resize = transforms.Resize(math.floor(size / fraction), transforms.InterpolationMode(FILTERS[kind]))
        resized = resize(Image.fromarray(base[:height, :width]))
        surplus |= {(side - size) % 4 for side in resized.size}
        expected.append(np.asarray(transforms.CenterCrop(size)(resized)).ravel())
        cases.append((height, width, size, kind))
        fractions.append(fraction)
    assert surplus == {0, 1, 2, 3}
    versions = f"torchvision {torchvision.__version__}, torch {torch.__version__}, Pillow {PIL.__version__}"
    path = Path(__file__).with_name("resize_center.npz")
    np.savez_compressed(
        path,
        base=base,
        filters=FILTERS,
        cases=np.array(cases, np.int16),
        fractions=fractions,
        expected=np.concatenate(expected),
        versions=versions,
    )
    print(path.name, len(cases), "cases,", path.stat().st_size, "bytes;", versions)


if __name__ == "__main__":
    main()
