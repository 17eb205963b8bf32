"""What people type and where they run it: paths, flags, seeds, and output into a file."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gormley_vision.errors import UserError
from gormley_vision.files import read_lines, typed_text, user_path
from gormley_vision.randomness import run_key

ROOT = Path(__file__).parents[1]


def test_a_home_is_expanded_and_an_object_store_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x"
    assert user_path("a~/x") == Path("a~/x")
    for address in ("gs://bucket/x", "s3://b", "gs:/bucket"):
        with pytest.raises(UserError, match="mount the bucket"):
            user_path(address)
    with pytest.raises(UserError, match="write the folder out"):
        user_path("~no-such-user-here/x")


def test_paths_are_expanded_in_one_place():
    folders = ("scripts", "benchmarks", "gormley_vision")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    for word in ("expanduser", "type=Path", "Path.home"):
        assert [path.name for path in files if word in path.read_text()] == (
            ["files.py"] if word == "expanduser" else []
        )


def test_lines_end_at_line_feeds_alone_without_marks(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_bytes("\ufeffone\x0btwo\u2028three\r\n\nfour".encode())
    assert read_lines(file) == ["one\x0btwo\u2028three", "", "four"]
    file.write_bytes(b"one\n")
    assert read_lines(file) == ["one"]
    file.write_bytes(b"")
    assert read_lines(file) == []
    file.write_bytes(b"one\n\xff")
    with pytest.raises(UserError, match=r"lines.txt is not UTF-8: byte 4"):
        read_lines(file)
    with pytest.raises(UserError, match=r"none.txt: No such file .*; pass a text file"):
        read_lines(tmp_path / "none.txt")


def test_what_a_terminal_garbles_is_refused():
    assert typed_text("čo?", "--text") == "čo?"
    with pytest.raises(UserError, match="--prompt is not UTF-8 at character 1"):
        typed_text("a" + os.fsdecode(b"\xff"), "--prompt")


def test_every_bit_of_a_seed_counts():
    seeds = [0, 7, 2**32, 2**32 + 7, 2**62 + 7, 2**63 - 1]
    keys = [jax.random.key_data(run_key(seed)).tolist() for seed in seeds]
    assert len({tuple(key) for key in keys}) == len(seeds)
    assert keys[1] == jax.random.key_data(jax.random.key(7)).tolist()  # as runs of older versions drew
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match="at least 0 and below"):
            run_key(seed)


def train_py(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, env=os.environ | environment
    )


def test_flags_as_people_type_them():
    done = train_py("--config=configs/vit_mnist.py", "--print_config", "--config.data.flip")
    assert done.returncode == 0, done.stderr
    assert "data.flip = True" in done.stdout
    done = train_py("--config=configs/vit_mnist.py", "--config.data.flip", "--print_config", "--noconfig.data.flip")
    assert "data.flip = False" in done.stdout
    done = train_py("--config=configs/vit_mnist.py", "--print_config", "--config.data.flip", "false")
    assert done.returncode == 2
    assert "false: does not belong to a flag" in done.stderr


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            ("--config=configs/dcgan_mnist.py", "--config.data.path=photos"),
            "--config.data.source=tfds (or folder, npz, hf, text, table)",
        ),
        (("--config=configs/finetune_folder.py:smoke", "--config.data.path=/no/such"), "data.source='fake'"),
        (("--config=configs/dcgan_mnist.py", "--workdir=gs://bucket/x"), "mount the bucket"),
        (("--config=configs/dcgan_mnist.py", "--config.seed=9223372036854775808"), "at most 9223372036854775807"),
        (("--config=configs/dcgan_mnist.py", "--seed=3"), "a key of the config is written --config.seed=VALUE"),
        (("--config=configs/dcgan_mnist.py", "--batch_size=3"), "is written --config.data.batch_size=VALUE"),
        (("--config=configs/dcgan_mnist.py", "--print_confg"), "Did you mean: print_config?"),
        (("--config=configs/dcgan_mnist.py", "--processes=0"), "--processes=0"),
        (("--config=configs/dcgan_mnist.py", "--coordinator=foo"), "write HOST:PORT of process 0"),
        (("--config=configs/dcgan_mnist.py", "--coordinator=localhost:abc"), "write HOST:PORT of process 0"),
    ],
)
def test_what_would_have_no_effect_is_refused(words, advice):
    done = train_py(*words)
    assert done.returncode == 2
    assert advice in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_output_into_a_file_is_plain_and_whole_whatever_the_environment(tmp_path):
    words = ("--config=configs/dcgan_mnist.py:smoke", "--config.data.source=fake", "--config.data.image_size=16")
    done = train_py(*words, f"--workdir={tmp_path / 'run[1]'}", FORCE_COLOR="1", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert [f"step {step}/8" in done.stderr for step in range(1, 9)] == [True] * 8
    assert "Unable to initialize backend" not in done.stderr


@pytest.mark.slow
def test_a_home_that_is_nowhere_is_one_line(tmp_path):
    words = ("--config=configs/dcgan_mnist.py:smoke", "--config.data.source=fake", "--config.data.image_size=16")
    done = train_py(*words, f"--workdir={tmp_path}", HOME="/proc/nowhere", XDG_CACHE_HOME="")
    assert done.returncode == 2
    assert "Choose another folder: --config.data.cache_dir=FOLDER" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plan.py --config=configs/vit_mnist.py --batch_sizes=a,b", "--batch_sizes=a,b: write integers above 0"),
        ("plan.py --config=configs/vit_mnist.py --classes=-3", "--classes=-3"),
        ("plan.py --config=configs/vit_mnist.py --price=-3", "--price=-3"),
        ("plan.py --config=configs/vit_mnist.py --out=README.md/x.json", "(a file is where a folder should be)"),
        (
            "launch.py --processes=2 train.py --config=x.py",
            "come after --: python scripts/launch.py --processes=2 -- train.py --config=x.py",
        ),
        (
            "launch.py --processes=2 -- python3 train.py --config=x.py",
            "python3 is not part of the command: python scripts/launch.py --processes=2 -- train.py --config=x.py",
        ),
        ("launch.py --processes=2 python train.py --config=x.py", "--processes=2 -- train.py --config=x.py"),
        ("launch.py --processes=2 -- trian.py", "trian.py: no such file in "),
        ("label_agreement.py --workdir=nope --num=0", "--num=0: at least 1"),
        ("resolution_table.py --sizes 28 --workdirs nope", "no run in nope: there is no config.json"),
        ("resolution_table.py --sizes 28 --workdirs tests/golden/run_gan", "pass runs of a Vision Transformer"),
        ("replay.py --step=1 --workdir=nope", "no run in nope: there is no config.json"),
        pytest.param(
            "replay.py --step=9 --workdir=tests/golden/run_gan",
            "--step=9 is not a step of this run",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_script_cannot_do_is_refused_in_a_line_before_the_work(words, message):
    name, *flags = words.split()
    done = subprocess.run([sys.executable, f"scripts/{name}", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
