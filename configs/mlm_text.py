"""Masked language modelling of one's own text: an encoder that configs/finetune_text.py fine-tunes.

    python train.py --config=configs/mlm_text.py --config.data.path=sentences.txt

Source: BERT (Devlin et al. 2018, arXiv:1810.04805): 15 % of tokens, of which 80 % become [MASK] and 10 % another token;
    as in Cramming (Geiping & Goldstein 2022, arXiv:2212.14034) pre-norm, a gated MLP, no biases, no dropout, and no
    next-sentence task.
Deviations: tiny, with rotary positions and Muon; byte pairs of one's own text; windows of 64 tokens at any sentence.
Reached here: on the held-out tenth of 19,418 sentences of TREC, SST-2 and Subj (docs/text.md), of hidden tokens 33.7 %
    at 3.660 nats, where counting the two neighbours gives 31.0 % at 3.926; one seed, beside other programs, in an hour
    on 2 cores of an AMD EPYC. A later run, on 19,397 sentences, one core: 32.9 % at 3.732 (counting: 31.0 %, 3.924).
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("masked_language_modeling")
    config.duration = "40 epochs"
    config.data.update(source="text", path="sentences.txt", tokenizer="bpe", vocabulary=4096, context=64, batch_size=64)
    config.transformer.update(width=128, depth=4, mlp=344, heads=4, position="none", rope="llama")
    config.transformer.update(activation="geglu", norm="rms", bias=False)
    config.optimizer.update(name="muon", learning_rate=3e-3, momentum=0.95, warmup="200 steps", weight_decay=0.1)
    config.eval.update(split="validation", every="5 epochs")
    return shrink(config) if check_arg(arg) else config
