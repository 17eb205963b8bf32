"""Why pix2pix has both losses, and its patch: L1, game or both; patches of 1, 16, 70 pixels; three games; 3 seeds.

    python scripts/sweep.py --config=configs/sweeps/pix2pix_losses.py --workdir=runs/pix2pix_losses --jobs=2
    python scripts/compare.py --workdirs runs/pix2pix_losses/*/ --metric eval/psnr eval/sharpness

with camvid and camvid_labels in the current folder, as configs/pix2pix_camvid.py has them. The questions of tables 1
and 2 of Isola et al. 2017 (arXiv:1611.07004) at a small budget: 64 pixels, half of the channels, 6 epochs of batch 4 at
a constant rate. Held-out PSNR says how near, eval/sharpness how sharp: gradient energy over the targets'. The table is
in docs/image_to_image.md.
"""

from typing import Any

BASE = "configs/pix2pix_camvid.py"
FIXED: dict[str, Any] = {
    "data.path": "camvid",
    "data.targets": "camvid_labels",
    "data.image_size": 71,
    "data.batch_size": 4,
    "duration": "6 epochs",
    "translation.patch": 64,
    "translation.schedules": "",
    "generator.levels": 6,
    "generator.width": 32,
    "eval.split": "test",
    "eval.every": "6 epochs",
    "log.samples_every": "6 epochs",
    "checkpoint.every": "6 epochs",
}
METRIC = "eval/psnr"


def sweep():
    """21 runs."""
    arms: dict[str, dict[str, Any]] = {
        "both": {},
        "L1": {"translation.adversarial": 0.0},
        "game": {"translation.l1": 0.0},
        "patch 1": {"discriminator.receptive_field": 1},
        "patch 16": {"discriminator.receptive_field": 16},
        "least squares": {"translation.objective": "least_squares"},
        "relativistic R1 R2": {
            "translation.objective": "relativistic_paired",
            "translation.r1": 1.0,
            "translation.r2": 1.0,
        },
    }
    for seed in (0, 1, 2):
        for name, changes in arms.items():
            players = {} if name == "L1" else {"discriminator.width": 32}
            yield {"NAME": name, "seed": seed, **players, **changes}
