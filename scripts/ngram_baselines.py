"""What a language model has to beat: n-gram models of the same bytes, in bits per byte.

    python scripts/ngram_baselines.py --config=configs/lm_shakespeare.py [--config.data.path=FILE] [--out=FILE]

Counts the bytes of the config's data.split, and evaluates on all of its eval.split: the unigram, the bigram, and an
interpolated Kneser-Ney 5-gram (gormley_vision/metrics/ngrams.py). Every byte but the first is predicted from those
before it, whatever the config's tokenizer; documents follow one another. Compare with `eval/bits_per_byte` of a run,
whose windows give the first tokens little context.
"""

import math

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from absl import flags

    from gormley_vision import command_line
    from gormley_vision.files import refuse_unwritable, user_path, write_json

ORDERS = {"unigram": 1, "bigram": 2, "Kneser-Ney 5-gram": 5}
flags.DEFINE_string("config", None, "The experiment's config file, configs/NAME.py; --config.KEY=VALUE sets a key.")
_OUT = flags.DEFINE_string("out", "", "Write the figures to this JSON file.")


def main(chosen: command_line.Experiment) -> int:
    """Count, evaluate, print."""
    import numpy as np

    from gormley_vision.data.sources import open_source
    from gormley_vision.data.text_source import TextSource
    from gormley_vision.metrics.ngrams import kneser_ney, nats

    config = chosen.config.to_dict()
    if _OUT.value:
        refuse_unwritable(user_path(_OUT.value))
    if not config.get("eval", {}).get("split"):
        raise UserError("this needs text to evaluate on: --config.eval.split=validation")
    texts = []
    for split in (config["data"]["split"], config["eval"]["split"]):
        source = open_source(config["data"] | {"split": split})
        if "[" in split:
            raise UserError(
                f"{split} is a part of windows, and this counts texts: --config.data.held_out=SHARE instead"
            )
        if not isinstance(source, TextSource):
            raise UserError(f"data.source={config['data']['source']!r} is not text: pass a language model's config")
        texts.append(np.concatenate([document.content(0, document.size) for document in source.documents]))
    train, evaluated = texts
    if min(map(len, texts)) < max(ORDERS.values()):
        raise UserError(f"{len(train)} bytes to count and {len(evaluated)} to predict are too few: pass more text")
    print(f"{len(train):,} bytes counted, {len(evaluated) - 1:,} predicted")
    figures = {}
    for name, order in ORDERS.items():
        figures[name] = float(nats(kneser_ney(train, order), evaluated).mean()) / math.log(2)
        print(f"{name:<20} {figures[name]:.4f} bits per byte ({figures[name] * math.log(2):.4f} nats)")
    if _OUT.value:
        write_json(user_path(_OUT.value), {"bits_per_byte": figures, "bytes": [len(train), len(evaluated) - 1]})
    return 0


if __name__ == "__main__":
    with reported():
        command_line.run(main)
