"""The peer of lm_step.py: nanoGPT's network and loop in PyTorch, written from its README and configuration.

    python benchmarks/nano_gpt.py --text=tinyshakespeare.txt [--seed=0]

trains it by the CPU recipe, and prints its loss over all of the held-out tenth.

Pre-norm blocks with a fused projection of queries, keys and values, causal `scaled_dot_product_attention`, GELU by erf,
no biases, the head tied to the embedding, a table of positions; AdamW whose decay spares vectors, gradients clipped to
norm 1, batches of windows at random offsets; sampling that computes the whole context again for each token.
"""

import argparse
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gormley_vision.files import path_flag


class Block(nn.Module):
    """One layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, T, D] to [B, T, D]."""
        batch, length, width = x.shape
        parts = self.qkv(self.norm_1(x)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """The network: tokens [B, T] to logits [B, T, V]."""

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.context = context
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5 if residual else 0.02)

    def forward(self, tokens: torch.Tensor, last: bool = False) -> torch.Tensor:
        """Return logits, of the last token only if `last`."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return functional.linear(x[:, -1:] if last else x, self.tokens.weight)

    @torch.no_grad()
    def generate(self, tokens: torch.Tensor, count: int, temperature: float = 0.8, top_k: int = 200) -> torch.Tensor:
        """Append `count` tokens to [B, T]."""
        for _ in range(count):
            logits = self(tokens[:, -self.context :], last=True)[:, -1] / temperature
            least = torch.topk(logits, min(top_k, logits.shape[-1])).values[:, [-1]]
            probabilities = functional.softmax(logits.masked_fill(logits < least, -float("inf")), dim=-1)
            tokens = torch.cat([tokens, torch.multinomial(probabilities, 1)], dim=1)
        return tokens


def parameter_count(net: nn.Module) -> int:
    """Return the number of parameters without the table of positions, as nanoGPT prints it."""
    return sum(p.numel() for name, p in net.named_parameters() if name != "positions.weight")


def training_step(
    net: nn.Module, text: np.ndarray, context: int, batch: int, rate: Callable[[int], float] = lambda step: 1e-3
) -> Callable[[], None]:
    """Return a function that takes one step on windows of tokens [N], with the learning rate of step 0, 1, ..."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    numbers = itertools.count()

    def run() -> None:
        step = next(numbers)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        starts = torch.randint(len(text) - context, (batch,))
        x = torch.stack([torch.from_numpy(text[i : i + context].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(text[i + 1 : i + 1 + context].astype(np.int64)) for i in starts])
        logits = net(x)
        functional.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def main() -> None:
    """Train by the CPU recipe, and print the loss over all of the held-out tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, type=path_flag, help="tinyshakespeare.txt")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    text = options.text.read_text()
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    tokens = np.array([numbers[character] for character in text], np.uint16)
    cut, context, steps, warmup = int(0.9 * len(tokens)), 64, 2000, 100
    net = GPT(len(numbers), context, 128, 4, 4)

    def rate(step: int) -> float:
        if step < warmup:
            return 1e-3 * (step + 1) / (warmup + 1)
        return 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) * 9e-4

    run = training_step(net, tokens[:cut], context, 12, rate)
    for _ in range(steps):
        run()
    held = torch.from_numpy(tokens[cut:].astype(np.int64))
    with torch.no_grad():
        losses = [
            functional.cross_entropy(net(held[None, i : i + context])[0], held[i + 1 : i + 1 + context])
            for i in range(0, len(held) - context, context)
        ]
    print(f"seed {options.seed}: {torch.stack(losses).mean():.4f} nats a character")


if __name__ == "__main__":
    main()
