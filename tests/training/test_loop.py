"""The loop, in this process: one compilation, donation, transfers, non-finite steps, what may change on resume."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.errors import UserError
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import start
from gormley_vision.training.loop import Step

TASKS = ("gan", "classification")


class Poisoned:
    """A task whose step spoils something from step `when` on. `what` names it; all else is the task's own."""

    def __init__(self, task, what: str, when: int) -> None:
        self._task, self._what, self._when = task, what, when

    def __getattr__(self, name):
        return getattr(self._task, name)

    def train_step(self, state, batch, key):
        now = state.step + 1 >= self._when
        state, metrics, checks = self._task.train_step(state, batch, key)
        if self._what == "check":
            second, third = list(checks)[1:3]
            checks = checks | {second: checks[second] & ~now, third: checks[third] & ~now}
        elif self._what == "metric":
            metrics = metrics | {"accuracy/train": jnp.where(now, jnp.inf, metrics["accuracy/train"])}
        else:  # the update overflowed, though its loss and gradients did not
            kernel = state.classifier.variables["params"]["head"]["kernel"]
            spoiled = kernel.at[0, 0].set(jnp.where(now, jnp.inf, kernel[0, 0]))
            params = state.classifier.variables["params"] | {
                "head": {**state.classifier.variables["params"]["head"], "kernel": spoiled}
            }
            variables = {**state.classifier.variables, "params": params}
            state = state.replace(classifier=state.classifier.replace(variables=variables))
        return state, metrics, checks


def leaves_of(workdir, step):
    checkpoint = workdir / "checkpoints" / str(step)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {name: np.asarray(x) for name, x in ckpt.read_parts(checkpoint, frozenset(), lambda *_: here).items()}


# What one step is.


@pytest.mark.parametrize("task", TASKS)
def test_step_compiles_once_and_donates_the_state(lab, tmp_path, task):
    run, batches, compiled = lab.compile(lab.config(task), tmp_path)
    state = run.state
    for step in range(3):
        before = state
        batch = jax.device_put(batches.read(step), run.shardings.batch)
        state, metrics, finite = compiled(state, run.resident, batch, run.key)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert compiled.traces == 1
    assert int(state.step) == 3
    assert finite.all()
    assert len(compiled.checks) == len(finite)
    assert all(value.dtype == jnp.float32 for value in metrics.values())
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((run.resident, run.key)))


def test_restored_state_runs_the_same_compiled_step(lab, tmp_path, monkeypatch):
    """A resumed state has the shapes, dtypes, weak types and placement of a fresh one: no second program."""
    steps = []
    make = Step.__init__
    monkeypatch.setattr(Step, "__init__", lambda self, *a: (make(self, *a), steps.append(self))[0])
    config = lab.config(duration="6 steps")
    lab.train({**config, "stop_after": "3 steps"}, tmp_path)
    lab.train(config, tmp_path)
    assert [step.traces for step in steps] == [1, 1]


@pytest.mark.parametrize("placement", ["device", "host"])
def test_implicit_transfer_in_the_loop_is_refused(lab, tmp_path, monkeypatch, placement):
    """The batch handed to the compiled step as numpy: jit would copy it to the device without a word."""
    monkeypatch.setattr(jax, "make_array_from_process_local_data", lambda sharding, array: array)
    with pytest.raises(Exception, match=r"(?i)disallowed host-to-device transfer"):
        lab.train(lab.config(data__placement=placement), tmp_path)


def test_plan_in_steps(lab):
    """4,096 images, 16 a minibatch, 2 minibatches a step: an epoch is 128 steps."""
    config = lab.config(
        "gan",
        gan__discriminator_steps=2,
        duration="2 epochs",
        stop_after="1k images",
        log__every="0.5 epochs",
        log__samples_every="",
        checkpoint__every="10 steps",
        checkpoint__keep_every="64 images",
    )
    assert dataclasses.asdict(start.Plan.of(config, lab.open(config)[1])) == {
        "total": 256,
        "stop_after": 31,  # 31.25
        "log_every": 64,
        "samples_every": 0,
        "checkpoint_every": 10,
        "keep_every": 2,
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"duration": ""}, "duration"),
        ({"duration": "0 steps"}, "duration"),
        ({"duration": "a while"}, "'a while': write '50 epochs'"),
        ({"checkpoint__keep_last": 0}, "checkpoint.keep_last"),
        ({"mesh__data": 9}, "is 9 devices, but there are 8 devices"),
    ],
)
def test_run_that_cannot_be_is_refused(lab, tmp_path, override, message):
    with pytest.raises(UserError) as refusal:
        lab.train(lab.config(**override), tmp_path)
    assert message in str(refusal.value)
    assert not list(tmp_path.iterdir())


# Non-finite steps.


@pytest.mark.parametrize(("what", "when"), [("check", 4), ("metric", 4), ("state", 3)])  # logs come at 4 and not at 3
def test_non_finite_step_is_named_and_never_saved(lab, tmp_path, what, when):
    config = lab.config(checkpoint__every="1 steps", checkpoint__keep_last=99, log__every="2 steps")
    with pytest.raises(UserError) as stop:
        lab.train(config, tmp_path, wrap=lambda task: Poisoned(task, what, when))
    name = {
        "check": "classifier/gradient/class_token",
        "metric": "metric/accuracy/train",
        "state": "state/classifier/variables/params/head/kernel",
    }[what]
    assert f"step {when}: {name} is not finite" in str(stop.value)
    assert f"python scripts/replay.py --workdir={tmp_path} --step={when}" in str(stop.value)
    folder = tmp_path / "checkpoints"
    assert ckpt.steps_of(folder) == list(range(1, when)), "all good steps are saved, the last one too"
    for step in ckpt.steps_of(folder):
        assert ckpt.find_damage(folder / str(step)) == ""
        assert all(np.isfinite(x).all() for x in leaves_of(tmp_path, step).values())
    assert all(json.loads(line)["step"] < when for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_non_finite_step_between_saves_is_found_one_step_late(lab, tmp_path):
    config = lab.config(checkpoint__every="", log__every="", log__samples_every="")
    with pytest.raises(UserError, match="step 3: "):
        lab.train(config, tmp_path, wrap=lambda task: Poisoned(task, "check", 3))
    assert ckpt.steps_of(tmp_path / "checkpoints") == []


@pytest.mark.slow
def test_exploding_run_ends_with_status_2_and_replay_names_the_same_tensor(programs, tmp_path):
    explode = {
        f"{player}_optimizer__{key}": value
        for player in ("generator", "discriminator")
        for key, value in (("name", "momentum_sgd"), ("learning_rate", "1e6"))
    }
    status, errors = programs.train(tmp_path, **explode, checkpoint__every="1 steps", checkpoint__keep_last=9)
    assert status == 2, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    step, _, rest = line.removeprefix("error: step ").partition(": ")
    name = rest.split(" is not finite")[0]
    assert ckpt.steps_of(tmp_path / "checkpoints") == list(range(1, int(step)))
    for saved in ckpt.steps_of(tmp_path / "checkpoints"):
        assert all(np.isfinite(x).all() for x in leaves_of(tmp_path, saved).values())
    before = sorted(path for path in tmp_path.rglob("*") if ".lock" not in path.name)
    replayed = programs.script("replay", f"--workdir={tmp_path}", f"--step={step}")
    assert replayed.returncode == 0, replayed.stderr
    found = [line.split()[-1] for line in replayed.stdout.splitlines() if line.startswith("  NOT FINITE")]
    assert found[0] == name
    assert "first operation with a NaN or infinity: " in replayed.stdout
    assert sorted(path for path in tmp_path.rglob("*") if ".lock" not in path.name) == before


# The rest.


def test_loop_is_its_steps_done_by_hand(after_steps, lab, finished, tmp_path):
    """Step t reads batch t, from 0: as replay and every restart assume."""
    task, reference = finished
    _, mine, _ = after_steps(lab.config(task), tmp_path, 8)
    theirs = leaves_of(reference, 8)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name].tobytes() != theirs[name].tobytes()] == []


def test_profile_traces_the_operations_of_the_step_and_not_python(lab, tmp_path, said):
    assert lab.train(lab.config(duration="2 steps"), tmp_path, profile=True) == 0
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"jit_step" in trace.read_bytes()
    assert b"$loop.py" not in trace.read_bytes()
    assert any(f"wrote a trace: open {tmp_path / 'profile'}" in line for line in said)


def test_checkpoint_describes_itself(finished):
    task, workdir = finished
    meta = ckpt.read_meta(workdir / "checkpoints" / "8")
    assert meta["step"] == 8
    assert meta["config"] == json.loads((workdir / "config.json").read_text())
    assert meta["config"]["task"] == task
    assert meta["data"]["length"] == 4096
    assert len(meta["data"]["class_names"]) == 10
    assert {"processor", "cores", "mesh", "XLA_FLAGS", "jax", "jaxlib"} <= meta["environment"].keys()
