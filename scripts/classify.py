"""Classify texts by a trained run of text classification: the most probable classes, as JSON lines.

    python scripts/classify.py --workdir=runs/finetune_text --text="How far is it to the moon ?"
    python scripts/classify.py --workdir=runs/finetune_text --file=questions.txt [--step=N]

Prints one JSON line for each text (of --file, each line): the text, its most probable class, and all probabilities.
"""

import argparse
import json

from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag, read_lines, typed_text


def main() -> None:
    """Restore, classify, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", required=True, type=path_flag, help="the run's folder")
    parser.add_argument("--text", action="append", default=[], help="a text; may be given several times")
    parser.add_argument("--file", type=path_flag, help="a file with one text in each line")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    options = parser.parse_args()
    texts = [typed_text(text, "--text") for text in options.text]
    if options.file:
        texts += read_lines(options.file)
    if not texts:
        raise UserError("nothing to classify: --text='...' or --file=FILE with a text in each line")
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore
    from gormley_vision.training.task import Classifies

    start_jax()
    run = restore(options.workdir, options.step)
    if not isinstance(run.task, Classifies):
        raise UserError(f"a run of {run.config['task']} does not classify texts: pass one of text_classification")
    for text, row in zip(texts, run.task.classify(run.state, texts), strict=True):
        probabilities = {name: round(float(p), 4) for name, p in zip(run.class_names, row, strict=True)}
        best = max(probabilities, key=lambda name: probabilities[name])
        print(json.dumps({"text": text, "class": best, "probabilities": probabilities}, ensure_ascii=False))


if __name__ == "__main__":
    with reported():
        main()
