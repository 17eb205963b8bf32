"""What a text classifier has to beat: TF-IDF of words and pairs of words, and logistic regression.

    python scripts/tfidf_baseline.py --config=configs/finetune_text.py --config.data.path=trec \\
        [--splits="train[:10%],train[10%:20%]"] [--out=FILE]

Trains on each of --splits, by default the config's data.split, and prints the accuracy on its eval.split. The strength
of the regularisation is chosen by cross-validation on the training texts: five folds, or as many as the most frequent
class has texts. `pip install -e
".[quickstart]"` brings scikit-learn.
"""

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from absl import flags

    from gormley_vision import command_line
    from gormley_vision.files import refuse_unwritable, user_path, write_json

flags.DEFINE_string("config", None, "The experiment's config file, configs/NAME.py; --config.KEY=VALUE sets a key.")
_SPLITS = flags.DEFINE_list("splits", [], "Parts to train on, one after another.")
_OUT = flags.DEFINE_string("out", "", "Write the figures to this JSON file.")


def main(chosen: command_line.Experiment) -> int:
    """Fit, evaluate, print."""
    config = chosen.config.to_dict()
    if _OUT.value:
        refuse_unwritable(user_path(_OUT.value))
    if not config.get("eval", {}).get("split"):
        raise UserError("this needs texts to evaluate on: --config.eval.split=test")
    import warnings

    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    from gormley_vision.data import slices
    from gormley_vision.data.table_source import TableSource, open_table

    def read(split: str) -> tuple[list[str], list[str]]:
        if config["data"]["source"] != "table":
            raise UserError("this reads tables: --config.data.source=table --config.data.path=FILE.tsv")
        source: TableSource = open_table(config["data"] | {"split": slices.name_of(split), "tokenizer": "bytes"})
        ids = slices.ids(split, len(source))
        return [source.texts[i] for i in ids], [source.class_names[source.labels[i]] for i in ids]

    evaluated, expected = read(config["eval"]["split"])
    rows = []
    for split in _SPLITS.value or [config["data"]["split"]]:
        texts, labels = read(split)
        if len(set(labels)) < 2:
            raise UserError(f"data.split={split} has texts of one class, {labels[0]!r}: take more, or other texts")
        folds = min(5, max(labels.count(label) for label in set(labels)))
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
        model = make_pipeline(words, LogisticRegression(max_iter=2000))
        if folds > 1:
            model = GridSearchCV(model, {"logisticregression__C": [1.0, 10.0, 100.0, 1000.0]}, cv=folds)
        with warnings.catch_warnings():  # a class with fewer texts than folds is in some of them
            warnings.filterwarnings("ignore", "The least populated class")
            model.fit(texts, labels)
        accuracy = float(np.mean(model.predict(evaluated) == np.array(expected)))
        print(f"{split}: {len(texts):,} texts, {len(evaluated):,} evaluated: accuracy {accuracy:.4f}")
        rows.append({"split": split, "examples": len(texts), "value": accuracy})
    if _OUT.value:
        write_json(user_path(_OUT.value), {"evaluated": len(evaluated), "rows": rows})
    return 0


if __name__ == "__main__":
    with reported():
        command_line.run(main)
