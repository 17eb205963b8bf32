"""A character-level language model on Shakespeare: nanoGPT's recipe for a CPU.

    python train.py --config=configs/lm_shakespeare.py --config.data.path=tinyshakespeare.txt

where the file is char-rnn's data/tinyshakespeare/input.txt (github.com/karpathy/char-rnn), 1,115,394 characters.

Source: nanoGPT (github.com/karpathy/nanoGPT, 3adf61e), "I only have a macbook": 4 layers, 4 heads, width 128, context
    64, batches of 12, 2,000 steps, no dropout, no biases, tied head, learned positions; AdamW of betas 0.9 and 0.99,
    decay 0.1, rate 1e-3 to 1e-4 by half a cosine after 100 steps; the last tenth is held out.
Deviations: windows tile the text and are shuffled, rather than drawn at any offset with replacement; the learned
    positions do not decay; the loss is that of all of the held-out text, rather than of 20 random batches.
Reached here: 1.898 +- 0.011 nats a character (mean and standard deviation of seeds 0, 1, 2), 2.74 bits. The same recipe
    in PyTorch (benchmarks/nano_gpt.py) reached 1.908 (seed 0) and 1.915 (seed 1) on the same text; its README says
    1.88, of 20 random batches. Under two minutes a run on 2 cores of an AMD EPYC, jax 0.10.2. Rotary positions alone,
    in place of learned ones, make it 1.775 +- 0.002: docs/text.md.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("language_modeling")
    config.duration = "2000 steps"
    config.data.update(source="text", path="tinyshakespeare.txt", tokenizer="characters", context=64, batch_size=12)
    config.transformer.update(width=128, depth=4, mlp=512, heads=4, activation="erf", bias=False)
    config.optimizer.update(learning_rate=1e-3, final_rate=0.1, warmup="100 steps", beta2=0.99, weight_decay=0.1)
    config.eval.update(split="validation", every="500 steps")
    config.log.samples_every = "500 steps"
    config.checkpoint.every = "500 steps"
    return shrink(config) if check_arg(arg) else config
