"""Time a training step of ViT-Ti/4 on 32-pixel images, here and in timm, interleaved in one process.

    pip install -e ".[bench]" && pip install --no-deps timm huggingface_hub safetensors pyyaml
    python benchmarks/vit_step.py [--steps=10] [--batch=128] [--compile] [--json=results/vit_step.json]

All sides: width 192, 12 layers, 3 heads, [CLS], erf GELU, float32, cross-entropy, AdamW with weight decay on matrices,
uint8 images in; learned positions, or RoPE-Mixed (timm's is the net of rope-vit without LayerScale). If timm is not
installed, the peer is the same network of torch.nn modules, with PyTorch's own `scaled_dot_product_attention`. Prints
seconds per step and ratios, alone and while another process copies memory, and the lower bound by the speed of a large
matrix product. Like train.py, the program asks
for huge pages, from which both sides gain; `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` leaves them out.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

import jax
import numpy as np
from timing import compare

from gormley_vision import experiment
from gormley_vision.config import default_config
from gormley_vision.files import path_flag, write_json
from gormley_vision.models.vit import SIZES
from gormley_vision.training.task import first_state

SIZE, PATCH, CLASSES = 32, 4, 10


def ours(batch: int, overrides: dict) -> Callable[[], None]:
    """Return a function that runs one step of the task, and waits for it."""
    config = default_config("classification")
    config.data.update(image_size=SIZE, channels=3, batch_size=batch)
    config.vit.update(**SIZES["Ti"]._asdict(), patch_size=PATCH, gelu="erf", **overrides)
    config.optimizer.update(weight_decay=0.05, clip_norm=0.0)
    names = tuple(map(str, range(CLASSES)))
    task = experiment.make_task(config.to_dict(), experiment.described(config, names, 50_000))
    rng, key = np.random.default_rng(0), jax.random.key(0)
    images = jax.device_put(rng.integers(0, 256, (1, batch, SIZE, SIZE, 3), np.uint8))
    labels = jax.device_put(rng.integers(0, CLASSES, (1, batch), np.int32))
    holder = [jax.jit(partial(first_state, task))(key)]
    step = jax.jit(task.train_step, donate_argnums=0)

    def run() -> None:
        holder[0], _, _ = step(holder[0], {"image": images, "label": labels}, key)
        jax.block_until_ready(holder[0])

    return run


def peers(batch: int, compiled: bool) -> dict[str, Callable[[], None]]:
    """Return {name: step} of timm's ViT, of its ViT with RoPE-Mixed, and of both compiled; or of plain PyTorch."""
    import torch

    width, depth, mlp, heads = SIZES["Ti"]
    common = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": width, "depth": depth, "num_heads": heads}
    nets: dict[str, torch.nn.Module]
    try:
        _stub_torchvision()
        from timm.models.eva import Eva
        from timm.models.vision_transformer import VisionTransformer

        mixed = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "mixed", "attn_type": "rope"}
        mixed |= {"rope_temperature": 10.0, "rope_grid_indexing": "xy", "global_pool": "token"}
        nets = {
            "timm": VisionTransformer(num_classes=CLASSES, **common),
            "timm, RoPE mixed": Eva(num_classes=CLASSES, **common, **mixed),
        }
    except ImportError:
        nets = {"torch.nn": _plain_torch(torch, width, depth, mlp, heads)}
    steps = {name: _torch_step(net, batch) for name, net in nets.items()}
    if compiled:
        steps |= {f"{name}, compiled": _torch_step(torch.compile(net), batch) for name, net in nets.items()}
    return steps


def _torch_step(net, batch: int) -> Callable[[], None]:
    import torch

    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    images = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (batch,))

    def run() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images.float() / 127.5 - 1), labels).backward()
        optimizer.step()

    return run


def _stub_torchvision() -> None:
    """Stub the parts of torchvision that timm imports: it fails with PyTorch's CPU wheel, and is not used here."""
    import torch

    absent = ("", ".ops", ".ops.misc", ".models", ".models.feature_extraction", ".transforms", ".datasets", ".utils")
    for name in (*absent, ".transforms.functional"):
        sys.modules.setdefault(f"torchvision{name}", mock.MagicMock())
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = torch.nn.BatchNorm2d  # type: ignore[attr-defined]


def _plain_torch(torch, width: int, depth: int, mlp: int, heads: int):
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Conv2d(3, width, PATCH, PATCH)
            self.cls = torch.nn.Parameter(torch.zeros(1, 1, width))
            self.positions = torch.nn.Parameter(torch.randn(1, (SIZE // PATCH) ** 2 + 1, width) * 0.02)
            layer = torch.nn.TransformerEncoderLayer(
                width, heads, mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            norm = torch.nn.LayerNorm(width)
            self.encoder = torch.nn.TransformerEncoder(layer, depth, norm, enable_nested_tensor=False)
            self.head = torch.nn.Linear(width, CLASSES)

        def forward(self, images):
            tokens = self.embed(images).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.cls.expand(len(images), -1, -1), tokens], 1) + self.positions
            return self.head(self.encoder(tokens)[:, 0])

    return Net()


def needed_gflop(batch: int) -> float:
    """Return twice the multiply-adds of all matrix products in a step: forward, and twice as much backward."""
    width, depth, mlp, _ = SIZES["Ti"]
    patches = (SIZE // PATCH) ** 2
    tokens = patches + 1
    layer = tokens * (4 * width**2 + 2 * width * mlp) + 2 * tokens**2 * width
    return 6 * batch * (depth * layer + patches * PATCH**2 * 3 * width) / 1e9


def main() -> None:
    """Time all sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each side")
    parser.add_argument("--batch", type=int, default=128, help="batch size")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile, which needs a C++ compiler")
    parser.add_argument("--json", type=path_flag, help="also write the figures to this file")
    options = parser.parse_args()
    others = peers(options.batch, options.compile)
    sides = {
        "gormley_vision": ours(options.batch, {}),
        "gormley_vision, RoPE mixed": ours(options.batch, {"position": "none", "rope": "naver_mixed"}),
        **others,
    }
    ours_of = {name: f"gormley_vision{', RoPE mixed' if 'mixed' in name else ''}" for name in others}
    figures = compare(sides, ours_of, options.steps, needed_gflop(options.batch))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
