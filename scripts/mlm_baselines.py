"""What a masked language model has to beat: the most frequent token, and the token between the same two neighbours.

    python scripts/mlm_baselines.py --config=configs/mlm_text.py --config.data.path=sentences.txt [--out=FILE]

Counts the tokens of the config's data.split, and predicts each token of its eval.split (metrics/cloze.py).
Compare with `eval/loss` and `eval/accuracy` of a run, to which a share of the neighbours is hidden: here both are seen.
"""

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from absl import flags

    from gormley_vision import command_line
    from gormley_vision.files import refuse_unwritable, user_path, write_json

flags.DEFINE_string("config", None, "The experiment's config file, configs/NAME.py; --config.KEY=VALUE sets a key.")
_OUT = flags.DEFINE_string("out", "", "Write the figures to this JSON file.")


def main(chosen: command_line.Experiment) -> int:
    """Count, predict, print."""
    from gormley_vision.data.sources import open_source
    from gormley_vision.metrics.cloze import Cloze

    config = chosen.config.to_dict()
    if _OUT.value:
        refuse_unwritable(user_path(_OUT.value))
    if not config.get("eval", {}).get("split"):
        raise UserError("this needs text to evaluate on: --config.eval.split=validation")
    windows = []
    for split in (config["data"]["split"], config["eval"]["split"]):
        source = open_source(config["data"] | {"split": split})
        if "tokens" not in source.features:
            raise UserError(f"data.source={config['data']['source']!r} is not text: --config.data.source=text")
        examples = [source[index] for index in range(len(source))]
        windows.append([example["tokens"][example["valid"]] for example in examples])
    vocabulary = source.features["tokens"].vocabulary
    figures = Cloze(windows[0], vocabulary).score(windows[1])
    predicted = sum(map(len, windows[1]))
    print(f"{sum(map(len, windows[0])):,} tokens counted, {predicted:,} predicted, {vocabulary:,} in the vocabulary")
    for name, figure in figures.items():
        print(f"{name:<14} loss {figure['loss']:.4f} nats, accuracy {figure['accuracy']:.4f}")
    if _OUT.value:
        write_json(user_path(_OUT.value), {"baselines": figures, "tokens": predicted, "vocabulary": vocabulary})
    return 0


if __name__ == "__main__":
    with reported():
        command_line.run(main)
