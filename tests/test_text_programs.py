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
    figures = json.loads(program("scripts/evaluate.py", f"--workdir={classifier}").stdout)
    assert 0 <= figures["accuracy"] <= 1
    other = [*words, "--config.data.tokenizer=characters", f"--workdir={program.folder / 'other'}"]
    refused = program(*other, fails=True)
    assert f"has another tokenizer: --config.data.tokenizer={encoder}/tokenizer.json" in refused.stderr
    refused = program("scripts/classify.py", f"--workdir={encoder}", *text, fails=True)
    assert "does not classify texts" in refused.stderr


def test_baselines_are_printed(program):
    printed = program("scripts/ngram_baselines.py", "--config=configs/lm_docs.py").stdout
    bits = {line.split()[0]: float(line.split("bits")[0].split()[-1]) for line in printed.splitlines()[1:]}
    assert 8 > bits["unigram"] > bits["bigram"] > bits["Kneser-Ney"] > 1
