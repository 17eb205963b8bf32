"""What pre-training is worth to a classifier of sentences, by the number of labelled ones: TREC and SST-2.

    python scripts/collect_sentences.py --texts trec_train.tsv sst2_train.tsv subj_sentences.txt \\
        --without trec_test.tsv sst2_dev.tsv sst2_test.tsv --out=sentences.txt
    python scripts/sweep.py --config=configs/sweeps/text_labels.py --jobs=2

with the tables in the current folder. One masked language model of these sentences; then it fine-tuned, a linear probe
of it, the same network from scratch, and a convolutional one, each with 1, 10 and 100 % of the labels and three seeds,
which at 1 and 10 % have other sentences. docs/text.md has the table, and TF-IDF beside it.
"""

from collections.abc import Iterator
from typing import Any

from gormley_vision.sweeps.draws import run_of

BASE = "configs/finetune_text.py"
METRIC = "eval/accuracy"
PRETRAINED = {"NAME": "pre-trained", "BASE": "configs/mlm_text.py", "data.path": "sentences.txt"}
START = {"init_from": run_of(PRETRAINED), "data.tokenizer": run_of(PRETRAINED) + "/tokenizer.json"}
ARMS: dict[str, dict[str, Any]] = {
    "fine-tuned": START | {"optimizer.layer_decay": 1.0},
    "probe": START | {"text_classification.only_head": True, "optimizer.learning_rate": 1e-2},
    "scratch": {"optimizer.layer_decay": 1.0},
    "cnn": {"BASE": "configs/cnn_text.py"},
}
STEPS = {1: 100, 10: 300, 100: 1000}  # by the percentage of labelled sentences


def sweep() -> Iterator[dict[str, Any]]:
    """73 runs."""
    yield PRETRAINED
    for name, context in (("trec", 40), ("sst2", 56)):
        for arm, overrides in ARMS.items():
            for percent, steps in STEPS.items():
                for seed in (0, 1, 2):
                    part = f"train[{seed * percent}%:{(seed + 1) * percent}%]" if percent < 100 else "train"
                    yield overrides | {
                        "NAME": f"{name} {arm}",
                        "data.path": name,
                        "data.context": context,
                        "data.split": part,
                        "duration": f"{steps} steps",
                        "eval.every": f"{steps} steps",
                        "seed": seed,
                    }
