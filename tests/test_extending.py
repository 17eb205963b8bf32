"""docs/extending.md, its files written out as they stand: a task from outside the package does all that ours do."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from gormley_vision import experiment, task_modules
from gormley_vision.command_line import load_config_file
from gormley_vision.errors import UserError
from gormley_vision.run import run
from gormley_vision.sampling import restore, sample
from gormley_vision.training import checkpoints

ROOT = Path(__file__).parents[1]
FILES = re.compile(r"^`([\w/]+\.py)`[^\n]*\n\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SMALL = {"data.source": "fake", "data.image_size": 16, "mesh.data": 1}


def write_files(folder):
    for name, text in FILES.findall((ROOT / "docs" / "extending.md").read_text()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of a user's own with the page's files, which is the current one; its modules go when it goes."""
    folder = tmp_path_factory.mktemp("extending")
    write_files(folder)
    before, path = set(sys.modules), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder
    sys.path[:] = path
    task_modules.find.cache_clear()
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def smoke(**changes):
    config = load_config_file("denoise_mnist.py:smoke")
    config.update_from_flattened_dict(SMALL | {key.replace("__", "."): value for key, value in changes.items()})
    return config.to_dict()


def lines_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["time"]
    return lines


def test_a_task_of_ones_own_trains_is_evaluated_and_resumed_to_the_same_bits(folder):
    evaluated = {"eval__split": "test", "eval__every": "4 steps"}
    assert run(smoke(**evaluated), folder / "whole") == 0
    assert run(smoke(**evaluated, stop_after="5 steps"), folder / "parts") == 0
    assert run(smoke(**evaluated), folder / "parts") == 0
    digests = [checkpoints.digest(folder / name / "checkpoints" / "8") for name in ("whole", "parts")]
    assert digests[0] == digests[1]
    lines = lines_of(folder / "whole")
    assert lines == lines_of(folder / "parts")
    assert [line["step"] for line in lines if "eval/error" in line] == [4, 8]
    assert sorted(path.name for path in (folder / "whole" / "samples").iterdir()) == ["00000004.png", "00000008.png"]


def test_a_sampling_option_has_the_range_of_its_field(folder):
    if not (folder / "whole").exists():
        run(smoke(), folder / "whole")
    restored = restore(folder / "whole")
    assert len(sample(restored, num=2, noise=10.0)) == 2
    for wrong, message in ((11.0, "at most 10"), (float("nan"), "finite")):
        with pytest.raises(UserError, match=f"--noise={wrong}: must be .*{message}"):
            sample(restored, num=2, noise=wrong)


@pytest.mark.parametrize("sizes", [(8, 1), (2, 4)])
def test_eight_devices_make_the_steps_of_one(folder, sizes):
    one, eight = folder / "one", folder / f"eight{sizes}"
    if not one.exists():
        run(smoke(), one)
    run(smoke(mesh__data=sizes[0], mesh__fsdp=sizes[1]), eight)
    for a, b in zip(lines_of(one), lines_of(eight), strict=True):
        assert a["step"] == b["step"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_ones_own_model_and_objective_take_the_place_of_the_packages(folder):
    from gormley_vision.config import default_config, shrink

    config = shrink(default_config("distance_gan"))
    config.update_from_flattened_dict(SMALL | {"stop_after": "2 steps"})
    assert run(config.to_dict(), folder / "distance") == 0
    assert len(lines_of(folder / "distance")) == 2
    task = experiment.make_task(config.to_dict(), experiment.described(config, (), 64))
    assert float(task.objective.generator(np.array([1.0, 4.0]), None)) == 1.5
    tree = jax.eval_shape(task.init, jax.random.key(0)).discriminator.variables["params"]
    assert sorted(tree) == ["Conv_0", "Dense_0"]


def test_a_data_set_of_ones_own_is_learned(folder):
    """Whether stripes lie or stand is said by two pixels: a ViT knows after 40 steps."""
    config = load_config_file(f"{ROOT}/configs/vit_mnist.py:smoke")
    config.update_from_flattened_dict(SMALL | {"data.source": "mine.stripes", "duration": "40 steps"})
    config.update_from_flattened_dict({"vit.patch_size": 4, "optimizer.learning_rate": 1e-2, "eval.split": "train"})
    assert run(config.to_dict(), folder / "stripes") == 0
    assert lines_of(folder / "stripes")[-1]["eval/accuracy"] > 0.9


BIGRAMS = '''
"""Which byte follows which: a table of logits, learned. No image is anywhere in it."""
import flax.struct, jax, jax.numpy as jnp, optax
from typing import Any
from gormley_vision.fields import EVALUATION_FIELDS
from gormley_vision.samples import Texts

FIELDS = {**EVALUATION_FIELDS}

def needs(config):
    return {"tokens": "tokens", "valid": "mask"}

def make(config, data):
    return Bigrams()

@flax.struct.dataclass
class State:
    step: Any
    table: Any
    opt_state: Any

def losses(table, tokens, valid):
    logits = table[tokens[:, :-1].astype(jnp.int32)]
    found = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:].astype(jnp.int32))
    return found.mean(-1, where=valid[:, 1:])

class Bigrams:
    afterwards, optimizer = "read {workdir}/samples", optax.adam(0.3)

    def init(self, key):
        table = jnp.zeros((256, 256))
        return State(jnp.zeros((), jnp.int32), table, self.optimizer.init(table))

    def train_step(self, state, batch, key):
        of_table = lambda table: losses(table, batch["tokens"][0], batch["valid"][0]).mean()
        loss, gradient = jax.value_and_grad(of_table)(state.table)
        update, opt_state = self.optimizer.update(gradient, state.opt_state)
        return State(state.step + 1, state.table + update, opt_state), {"loss": loss}, {"loss": jnp.isfinite(loss)}

    def eval_step(self, state, batch):
        found = losses(state.table, batch["tokens"], batch["valid"])
        return {"loss": jnp.sum(found * batch["mask"]), "count": jnp.sum(batch["mask"])}

    def preview(self, state, key):
        def follow(byte, _):
            return jnp.argmax(state.table[byte]), byte
        return jax.lax.scan(follow, jnp.int32(ord("a")), None, 8)[1]

    def show(self, preview):
        return Texts((bytes(preview.tolist()).decode(),))
'''


def test_a_task_without_an_image_learns_from_text(folder):
    """Of `abcd` over and over each byte tells the next; the last step's sample is the alphabet as far as it goes."""
    from gormley_vision.config import default_config

    (folder / "bigrams.py").write_text(BIGRAMS)
    (folder / "text").mkdir()
    (folder / "text" / "train.txt").write_text("abcd" * 500)
    (folder / "text" / "test.txt").write_text("cdab" * 100)
    config = default_config("bigrams")
    changes = {"data.source": "text", "data.path": "text", "data.context": 16, "data.batch_size": 8}
    changes |= {"duration": "30 steps", "eval.split": "test", "eval.every": "15 steps", "mesh.fsdp": 8}
    config.update_from_flattened_dict(changes)
    assert run(config.to_dict(), folder / "bigrams") == 0
    assert (folder / "bigrams" / "samples" / "00000030.txt").read_text() == "abcdabcd\n"
    line = lines_of(folder / "bigrams")[-1]
    assert line["eval/loss"] < 0.01
    config.data.source, config.data.path = "mnist_5k", ""
    config.data.context = 256  # the default, as this source reads none
    with pytest.raises(
        UserError, match=r"data\.source=mnist_5k makes images, but this task's config has no data\.image"
    ):
        run(config.to_dict(), folder / "none")


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("unshown", "    def show(", "    def shown(", "has preview and no show"),
        ("unevaluated", "    **EVALUATION_FIELDS,\n", "", "has eval_step, and its FIELDS lack EVALUATION_FIELDS"),
    ],
)
def test_parts_that_do_not_belong_together_are_told_before_the_first_step(folder, name, old, new, fault):
    config = variant(folder, name, {old: new})
    if "EVALUATION" in fault:
        del config["eval"]
    with pytest.raises(UserError, match=f"the task {name!r} {fault}"):
        run(config, folder / name)


def test_what_is_no_task_is_refused_by_what_it_lacks(folder):
    with pytest.raises(UserError, match=r"task='denoisng': there is no module 'denoisng' in .*'classification', 'gan'"):
        task_modules.find("denoisng")
    with pytest.raises(UserError, match="json lacks FIELDS and make"):
        task_modules.find("json")
    (folder / "broken_task.py").write_text("import not_installed_anywhere")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        task_modules.find("broken_task")


def variant(folder, name, changes):
    """Write a copy of the page's task with `changes`, {old text: new}, under another name. Returns its config."""
    for file in ("denoising", "denoising_task"):
        text = (folder / f"{file}.py").read_text().replace("from denoising_task", f"from {name}_task")
        for old, new in changes.items():
            text = text.replace(old, new)
        (folder / f"{file.replace('denoising', name)}.py").write_text(text)
    return {**smoke(), "task": name}


DECLARED = [
    ('Field(1e-3, "step size of Adam", at_least=0, at_most=10)', "1e-3", "FIELDS must be {name: Field}"),
    ('SAMPLING = {"noise"', 'SAMPLING = {"seed"', "SAMPLING names 'seed', a flag of every task"),
    ("def needs(config):", "needs = {'image': 'image'}\ndef unused(config):", "needs must be a function"),
    ("SAMPLING =", 'TENSOR_KEYS = ("denoising.widht",)\nSAMPLING =', "TENSOR_KEYS names 'denoising.widht', which"),
    ("SAMPLING =", "EVALUATION = ['noise']\nSAMPLING =", "EVALUATION must be {flag: key}"),
]


@pytest.mark.parametrize(("old", "new", "fault"), DECLARED)
def test_a_module_that_declares_nonsense_is_refused_by_name(folder, old, new, fault, request):
    name = f"declared_{request.node.callspec.indices['old']}"
    config = variant(folder, name, {old: new.replace("\\n", "\n")})
    with pytest.raises(UserError, match=re.escape(fault)) as refusal:
        run(config, folder / name)
    assert name in str(refusal.value)


MADE = [
    ('return {"image": "image"}', 'return ["image"]', r"needs\(config\) of the task returns \['image'\]: write"),
    ('return {"image": "image"}', 'return {"image": "pixels"}', "kinds are image, label,"),
    ("    afterwards = ", "    later = ", "lacks afterwards: see docs/extending.md"),
    (
        '{"error": jnp.sum(error * batch["mask"]), "count":',
        '{"error": jnp.sum(error), "n":',
        "error, n, .* return 'count'",
    ),
    ("    step: jax.Array", "    steps: jax.Array", "init returns has no `step`, an int32"),
]


@pytest.mark.parametrize(("old", "new", "fault"), MADE)
def test_a_task_that_makes_nonsense_is_refused_by_name(folder, old, new, fault, request):
    name = f"made_{request.node.callspec.indices['old']}"
    config = variant(folder, name, {old: new})
    config["eval"] = {"split": "test", "every": "1 steps"}
    with pytest.raises(UserError, match=fault):
        run(config, folder / name)


def test_smoke_values_for_no_key_are_refused(folder):
    variant(folder, "unsmoked", {'"denoising.width": 8': '"denoising.widht": 8'})
    from gormley_vision.config import default_config, shrink

    with pytest.raises(
        UserError, match=r"smoke\(config\) of the task 'unsmoked' sets keys that it lacks: denoising.widht"
    ):
        shrink(default_config("unsmoked"))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("self.identity = ", "self.described = ", "Stripes: it has no identity"),
        ("def __len__", "def length", "it has no __len__"),
        ('"size": self.size, "split"', '"size": np.int64(3), "split"', "its identity is not plain JSON .*int64"),
        ('"label": Feature("label", (), "int32", self.class_names)', '"label": "int32"', "its features are not"),
    ],
)
def test_a_source_that_lacks_something_is_refused_by_name(folder, old, new, fault, request):
    name = f"source_{request.node.callspec.indices['old']}"
    text = (folder / "mine" / "stripes.py").read_text()
    assert old in text
    (folder / f"mine/{name}.py").write_text(text.replace(old, new))
    config = load_config_file(f"{ROOT}/configs/vit_mnist.py:smoke")
    config.update_from_flattened_dict(SMALL | {"data.source": f"mine.{name}", "vit.patch_size": 4})
    with pytest.raises(UserError, match=fault):
        run(config.to_dict(), folder / name)


@pytest.mark.slow
def test_the_programs_kill_resume_plan_sweep_and_sample_it(tmp_path):
    """As processes in a user's folder, whose only tie to the package is its path."""
    write_files(tmp_path)
    (tmp_path / "rates.py").write_text(
        'BASE = "denoise_mnist.py:smoke"\nMETRIC = "loss"\nHIGHER_IS_BETTER = False\n'
        'FIXED = {"data.source": "fake", "data.image_size": 16}\n'
        'def sweep():\n    for rate in (1e-3, 1e-2):\n        yield {"optimizer.learning_rate": rate}\n'
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS")
    base = ["--config=denoise_mnist.py:smoke", "--config.data.source=fake", "--config.data.image_size=16"]

    def program(name, *words):
        return subprocess.Popen(
            [sys.executable, str(ROOT / name), *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def done(name, *words):
        process = program(name, *words)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        return output

    long = [*base, "--config.duration=400 steps", "--config.log.every=1 steps", "--config.checkpoint.every=20 steps"]
    done("train.py", *long, "--workdir=whole")
    process = program("train.py", *long, "--workdir=killed")
    while process.poll() is None and not list((tmp_path / "killed").glob("checkpoints/[1-9]*0")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done("train.py", *long, "--workdir=killed")
    digests = [checkpoints.digest(tmp_path / name / "checkpoints" / "400") for name in ("whole", "killed")]
    assert digests[0] == digests[1]
    done("scripts/plan.py", *base, "--topology=here", "--out=plan.json")
    (report,) = json.loads((tmp_path / "plan.json").read_text())["reports"]
    assert report["memory"]["parameters"] == 4 * (3 * 3 * 8 + 8 + 3 * 3 * 8 + 1)  # two convolutions, 1 to 8 to 1
    help_text = done("scripts/sample.py", "--workdir=whole", "--help")
    assert "--noise" in help_text
    assert "--interpolate" not in help_text
    done("scripts/sample.py", "--workdir=whole", "--noise=0.5", "--num=3", "--out=some.npz")
    assert np.load(tmp_path / "some.npz")["images"].shape == (3, 16, 16, 1)
    assert json.loads(done("scripts/evaluate.py", "--workdir=whole", "--split=test").splitlines()[-1])["error"] > 0
    done("scripts/sweep.py", "--config=rates.py", "--workdir=sweep")
    assert len(list((tmp_path / "sweep").glob("*/checkpoints/8"))) == 2
