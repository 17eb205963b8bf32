"""Time a training step and a sampled token of a language model, here and in nanoGPT's recipe in PyTorch, interleaved.

    pip install -e ".[bench]"
    python benchmarks/lm_step.py [--size=cpu|gpu] [--steps=20] [--compile] [--json=results/lm_step.json]

Sizes are nanoGPT's for characters: cpu is 4 layers, 4 heads, width 128, context 64, batch 12; gpu is 6, 6, 384, 256,
64. A timed run is several steps (50, or 1 of the larger), or 256 tokens of a text. Tokens are sampled with the cache,
by computing the whole context again for each (the same model without cache), and by the peer, which does the latter.
"""

import argparse
from collections.abc import Callable
from functools import partial

from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

import jax
import jax.numpy as jnp
import numpy as np
from timing import compare

from gormley_vision import experiment
from gormley_vision.config import default_config
from gormley_vision.data.features import Description, Feature
from gormley_vision.data.tokenizers import Characters
from gormley_vision.files import path_flag, write_json
from gormley_vision.tasks.language_modeling.generation import Choice, Generator, choose, prompt_tokens
from gormley_vision.training.task import first_state

VOCABULARY, TOKENS = 65, 256
SIZES = {"cpu": (4, 4, 128, 64, 12), "gpu": (6, 6, 384, 256, 64)}
PUBLISHED = {"cpu": "0.80M", "gpu": "10.65M"}  # parameters, as nanoGPT prints them
CHOICE = Choice(temperature=0.8, top_k=64)


def make_task(size: str):
    """Make the task of configs/lm_shakespeare.py at a size, for a vocabulary of 65 characters."""
    depth, heads, width, context, batch = SIZES[size]
    config = default_config("language_modeling")
    config.data.update(source="text", context=context, batch_size=batch)
    config.transformer.update(width=width, depth=depth, mlp=4 * width, heads=heads, activation="erf", bias=False)
    config.optimizer.update(learning_rate=1e-3, final_rate=0.1, warmup="100 steps", beta2=0.99, weight_decay=0.1)
    letters = Characters("".join(map(chr, range(32, 32 + VOCABULARY)))).saved()
    tokens = Feature("tokens", (context + 1,), "uint8", tokenizer=letters, vocabulary=VOCABULARY)
    return experiment.make_task(config.to_dict(), Description({"tokens": tokens}, 15_000))


def ours(task, text: np.ndarray, context: int, batch: int, steps: int) -> Callable[[], None]:
    """Return a function that takes `steps` steps, as the loop does with a set on the device."""
    windows = jax.device_put(np.stack([text[i : i + context + 1] for i in range(0, len(text) - context, context)]))
    rng, key = np.random.default_rng(0), jax.random.key(0)

    @partial(jax.jit, donate_argnums=0)
    def step(state, windows, index, key):
        tokens = jnp.take(windows, index, axis=0, mode="clip")
        examples = {"tokens": tokens, "valid": jnp.ones(tokens.shape, bool), "bytes": jnp.zeros(tokens.shape[:2])}
        return task.train_step(state, examples, key)[0]

    holder = [jax.jit(partial(first_state, task))(key)]

    def run() -> None:
        for _ in range(steps):
            index = rng.integers(len(windows), size=(1, batch), dtype=np.int32)
            holder[0] = step(holder[0], windows, index, key)
        jax.block_until_ready(holder[0])

    return run


def samplers(task) -> dict[str, Callable[[], None]]:
    """Return {name: function that generates a text}: with the cache, and without."""
    variables = jax.jit(partial(first_state, task))(jax.random.key(0)).ema
    generator, prompt = Generator(task.model, variables, CHOICE), prompt_tokens(task.tokenizer, "ROMEO:")
    keys = jax.random.split(jax.random.key(0), 8)
    context = task.model.context

    def with_cache() -> None:
        chunks = generator([prompt] * 8, keys)
        for _ in range(TOKENS // generator.chunk):
            next(chunks)

    @jax.jit
    def again(tokens, last, key):
        logits, _ = task.model.apply(variables, tokens)
        return choose(key[None], logits[:, last], CHOICE)

    def without() -> None:
        text = prompt.tolist()
        for number in range(TOKENS):
            window = text[-context:]
            padded = np.zeros((1, context), np.int32)
            padded[0, : len(window)] = window
            text.append(int(again(padded, len(window) - 1, keys[number % 8])[0]))

    return {"gormley_vision, cache": with_cache, "gormley_vision, recomputing": without}


def main() -> None:
    """Time all sides, print, and write the figures if a file is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--steps", type=int, default=20, help="timed runs of each side")
    parser.add_argument("--compile", action="store_true", help="torch.compile the peer's step, too")
    parser.add_argument("--json", type=path_flag, help="file for the figures")
    options = parser.parse_args()
    import torch
    from nano_gpt import GPT, parameter_count, training_step

    depth, heads, width, context, batch = SIZES[options.size]
    text = np.random.default_rng(0).integers(0, VOCABULARY, 1_000_000, np.uint8)
    net = GPT(VOCABULARY, context, width, depth, heads)
    count = parameter_count(net)
    assert f"{count / 1e6:.2f}M" == PUBLISHED[options.size], count
    task, many = make_task(options.size), 50 if options.size == "cpu" else 1
    steps = {"gormley_vision": ours(task, text, context, batch, many)}

    def repeated(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(many):
                step()

        return run

    steps["nanoGPT"] = repeated(training_step(net, text, context, batch))
    pairs = {"nanoGPT": "gormley_vision"}
    if options.compile:
        compiled = torch.compile(GPT(VOCABULARY, context, width, depth, heads))
        steps["nanoGPT, compiled"] = repeated(training_step(compiled, text, context, batch))
        pairs["nanoGPT, compiled"] = "gormley_vision"
    gflop = 6 * batch * context * (count + depth * context * width) / 1e9 * many
    figures = compare(steps, pairs, options.steps, gflop)
    prompt, several = torch.zeros(1, 6, dtype=torch.long), torch.zeros(8, 6, dtype=torch.long)
    texts = samplers(task) | {
        "nanoGPT, one text": lambda: net.generate(prompt, TOKENS),
        "nanoGPT, 8 texts": lambda: net.generate(several, TOKENS),
    }
    pairs = {"nanoGPT, one text": "gormley_vision, cache", "nanoGPT, 8 texts": "gormley_vision, cache"}
    pairs["gormley_vision, recomputing"] = "gormley_vision, cache"
    gflop = 2 * count * TOKENS / 1e9
    figures["texts"] = compare(texts, pairs, options.steps, gflop)
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
