"""Writes position_resize.npz beside it: a table and its resizings by torch and scipy themselves, for test_positions.

    python tests/layers/golden/make_position_resize.py

Made with torch 2.13.0+cpu, scipy 1.17.1, numpy 2.4.6; the file holds the versions. It holds `cases` [C, 2 (old, new),
2 (height, width)], and, the cases one after the other, `table` [sum of h*w, D] and, for each convention by its name,
the resized [sum of h'*w', D].
"""

from pathlib import Path

import numpy as np
import scipy
import scipy.ndimage
import torch

CASES = [
    ((4, 4), (7, 7)),
    ((7, 7), (4, 4)),
    ((3, 5), (6, 4)),
    ((7, 7), (14, 6)),
    ((7, 7), (10, 10)),
    ((7, 7), (7, 3)),
    ((1, 5), (3, 1)),
    ((5, 1), (1, 4)),
]
DIM = 2


def interpolate(table, old, new, **options):
    """torch.nn.functional.interpolate of a row-major table."""
    image = torch.from_numpy(table).reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(image, size=new, **options)
    return resized.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1).numpy()


def google(table, old, new):
    """The loader of vision_transformer and big_vision, with a zoom for each axis."""
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    return scipy.ndimage.zoom(table.reshape(*old, -1), zoom, order=1).reshape(new[0] * new[1], -1)


def main():
    """Write the file."""
    rng = np.random.default_rng(0)
    made = {"table": [], "google": [], "timm": [], "huggingface": []}
    for old, new in CASES:
        table = rng.standard_normal((old[0] * old[1], DIM)).astype(np.float32)
        made["table"].append(table)
        made["google"].append(google(table, old, new))
        bilinear = interpolate(table, old, new, mode="bilinear", align_corners=True)
        np.testing.assert_allclose(made["google"][-1], bilinear, atol=1e-6)
        made["timm"].append(interpolate(table, old, new, mode="bicubic", align_corners=False, antialias=True))
        made["huggingface"].append(interpolate(table, old, new, mode="bicubic", align_corners=False))
    arrays = {name: np.concatenate(parts) for name, parts in made.items()}
    versions = f"torch {torch.__version__}, scipy {scipy.__version__}, numpy {np.__version__}"
    path = Path(__file__).with_name("position_resize.npz")
    np.savez_compressed(path, cases=np.array(CASES, np.int16), versions=versions, **arrays)
    print(path, path.stat().st_size, "bytes;", versions)


if __name__ == "__main__":
    main()
