"""Models of text as a user runs them: train, look, continue a text, evaluate elsewhere, fine-tune, classify."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Runs a program of the repository with one device and its own cache. Returns what it did."""
    folder = tmp_path_factory.mktemp("text")
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache")}

    def run(*words, fails=False):
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert bool(done.returncode) == fails, done.stderr[-3000:]
        return done

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def language_model(program):
    program("train.py", "--config=configs/lm_docs.py:smoke", f"--workdir={program.folder / 'lm'}")
    return program.folder / "lm"


def test_a_language_model_shows_texts_and_continues_prompts(program, language_model):
    shown = (language_model / "samples" / "00000008.txt").read_text()
    assert len(shown.split("\n---\n")) == 4
    last = json.loads((language_model / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["eval/bits_per_byte"] < 8.5
    words = ["scripts/sample.py", f"--workdir={language_model}", "--prompt=The for", "--length=40", "--seed=3"]
    streamed = program(*words).stdout
    assert streamed.startswith("The for")
    out = program.folder / "texts.jsonl"
    program(*words, "--num=3", f"--out={out}")
    texts = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert len(set(texts)) == 3
    assert streamed == texts[0] + "\n"
    assert program(*words, "--num=2").stdout == f"{texts[0]}\n---\n{texts[1]}\n"
    refused = program(*words, "--top_k=-1", fails=True)
    assert "--top_k=-1: must be at least 0" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_language_model_is_evaluated_on_other_text_and_at_another_length(program, language_model):
    (program.folder / "other.txt").write_text("The try statement specifies exception handlers. " * 40)
    words = ["scripts/evaluate.py", f"--workdir={language_model}", "--split=", "--config.data.source=text"]
    words += [f"--data_path={program.folder / 'other.txt'}"]
    whole = json.loads(program(*words).stdout)
    longer = json.loads(program(*words, "--config.data.context=64", "--rope_scaling=ntk").stdout)
    assert {"loss", "bits_per_byte", "accuracy", "examples", "step"} <= whole.keys()
    assert (whole["examples"], longer["examples"]) == (60, 30)
    assert whole["loss"] != longer["loss"]


def test_an_encoder_is_trained_fine_tuned_and_asked(program):
    encoder, classifier = program.folder / "mlm", program.folder / "classifier"
    program("train.py", "--config=configs/mlm_text.py:smoke", f"--workdir={encoder}")
    words = ["train.py", "--config=configs/finetune_text.py:smoke", f"--config.init_from={encoder}"]
    program(*words, f"--workdir={classifier}")
    text = ["--text=This method returns a copy of the string.", "--text=x"]
    answers = program("scripts/classify.py", f"--workdir={classifier}", *text).stdout.splitlines()
    first = json.loads(answers[0])
    assert len(answers) == 2
    assert first["class"] in first["probabilities"]
    assert abs(sum(first["probabilities"].values()) - 1) < 1e-3
    out = program.folder / "figures.json"
    figures = json.loads(program("scripts/evaluate.py", f"--workdir={classifier}", f"--out={out}").stdout)
    assert json.loads(out.read_text()) == figures
    assert 0 <= figures["accuracy"] <= 1
    other = [*words, "--config.data.tokenizer=characters", f"--workdir={program.folder / 'other'}"]
    refused = program(*other, fails=True)
    assert f"has another tokenizer: --config.data.tokenizer={encoder}/tokenizer.json" in refused.stderr
    (program.folder / "lines.txt").write_bytes("\ufeffone\x0btwo\nthree\n".encode())
    answers = program("scripts/classify.py", f"--workdir={classifier}", f"--file={program.folder / 'lines.txt'}").stdout
    assert [json.loads(line)["text"] for line in answers.splitlines()] == ["one\x0btwo", "three"]
    refused = program("scripts/sample.py", f"--workdir={encoder}", "--prompt=hi", fails=True)
    assert "a run of masked_language_modeling has no option --prompt=hi" in refused.stderr
    refused = program("scripts/classify.py", f"--workdir={encoder}", *text, fails=True)
    assert "does not classify texts" in refused.stderr


def test_sentences_are_collected_without_those_tested_on(program):
    for name, text in {"a.tsv": "label\ttext\nx\tOne two.\nx\tthree\n", "b.txt": "four\n\nTHREE !\nfive\n"}.items():
        (program.folder / name).write_text(text)
    (program.folder / "test.tsv").write_text("text\tlabel\nFive ?\tx\n")
    files = [str(program.folder / name) for name in ("a.tsv", "b.txt")]
    out = program.folder / "sentences.txt"
    words = ["scripts/collect_sentences.py", f"--out={out}", "--without", str(program.folder / "test.tsv"), "--texts"]
    program(*words, *files)
    assert out.read_text() == "One two.\nthree\nfour\n"
    (program.folder / "odd.txt").write_text("???\n!!!\nfour  and\tmore\nfour\n")
    program(*words, str(program.folder / "odd.txt"))
    assert out.read_text() == "???\n!!!\nfour and more\nfour\n"
    refused = program(*words, str(program.folder / "none.txt"), fails=True)
    assert "none.txt" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_accuracy_by_labels_is_tabulated_and_drawn(program):
    tables = "label\ttext\n" + "".join(f"{'ab'[i % 2]}\t{['good', 'bad'][i % 2]} word{i}\n" for i in range(60))
    for split in ("train", "test"):
        (program.folder / f"few_{split}.tsv").write_text(tables)
    config = ["--config=configs/finetune_text.py", f"--config.data.path={program.folder / 'few'}"]
    figures = program.folder / "tfidf.json"
    program("scripts/tfidf_baseline.py", *config, "--splits=train[:50%],train", f"--out={figures}")
    assert [row["examples"] for row in json.loads(figures.read_text())["rows"]] == [30, 60]
    run = program.folder / "cnn"
    program("train.py", "--config=configs/cnn_text.py:smoke", f"--workdir={run}")
    out, picture = program.folder / "labels.json", program.folder / "labels.png"
    words = ["scripts/draw_arms.py", "--over=labels", f"--out={out}", f"--picture={picture}", "--arms"]
    printed = program(*words, f"TF-IDF={figures}", f"CNN={program.folder}/c*n").stdout
    assert "| TF-IDF | 100.0 | 100.0 |" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    rows = json.loads(out.read_text())["rows"]
    assert (rows[-1]["arm"], rows[-1]["value"]) == ("CNN", last["eval/accuracy"])
    refused = program(*words[:3], "--picture=x.foo", "--arms", f"CNN={run}", fails=True)
    assert "--picture=x.foo: name it FILE.png" in refused.stderr
    words[1] = "--over=steps"
    assert "has no figures by step" in program(*words, f"TF-IDF={figures}", fails=True).stderr
    printed = program(*words, f"CNN={run}").stdout
    assert f"| CNN | {100 * last['eval/accuracy']:.1f} |" in printed
    assert [row["step"] for row in json.loads(out.read_text())["rows"]] == [4, 8]
    assert "there is no" in program(*words, "x=nowhere*", fails=True).stderr


def test_baselines_are_printed(program):
    printed = program("scripts/mlm_baselines.py", "--config=configs/mlm_text.py:smoke").stdout
    loss = {line.split("loss")[0].strip(): float(line.split()[-4]) for line in printed.splitlines()[1:]}
    assert loss["most frequent"] > loss["trigram"] > 1
    printed = program("scripts/ngram_baselines.py", "--config=configs/lm_docs.py").stdout
    bits = {line.split()[0]: float(line.split("bits")[0].split()[-1]) for line in printed.splitlines()[1:]}
    assert 8 > bits["unigram"] > bits["bigram"] > bits["Kneser-Ney"] > 1
