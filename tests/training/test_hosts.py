"""Several real processes over loopback: one run, whoever dies, whoever is asked to stop."""

import contextlib
import http.server
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gormley_vision.training import checkpoints as ckpt

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

FLAGS = ("--config=configs/vit_mnist.py:smoke", "--config.data.source=fake", "--config.data.image_size=16")
FLAGS += ("--config.vit.patch_size=8", "--config.checkpoint.every=4 steps", "--config.checkpoint.keep_last=9")


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def digest_of(workdir):
    return ckpt.digest(workdir / "checkpoints" / "8")


@contextlib.contextmanager
def devices(programs, count):
    """Each process that starts in here has so many."""
    before = programs.environment
    programs.environment = before | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    yield
    programs.environment = before


@pytest.fixture(scope="module", autouse=True)
def _quick_to_compile(programs):
    """Each process compiles for itself, and no promise here is about optimized programs."""
    before = programs.environment
    programs.environment = before | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    yield
    programs.environment = before


@pytest.fixture(scope="module")
def launch(programs):
    """A function: run so many processes under scripts/launch.py; status and what it said."""

    def run(workdir, processes, *flags):
        words = ["scripts/launch.py", f"--processes={processes}", "--", "train.py", f"--workdir={workdir}"]
        return programs.finish(programs.start([sys.executable, *words, *FLAGS, *flags]))

    return run


@pytest.fixture(scope="module")
def of_two(programs, launch, tmp_path_factory):
    """The folder of a run by two processes of two devices."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    with devices(programs, 2):
        status, said = launch(workdir, 2)
    assert status == 0, said
    assert "4 devices (data 4)" in said
    assert said.count("step 8/8") == 1, "one process speaks"
    return workdir


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def side_by_side(programs, workdir, *flags):
    """Two processes without a parent that watches."""
    shared = [sys.executable, "train.py", f"--workdir={workdir}", f"--coordinator={free_address()}", "--processes=2"]
    return [programs.start([*shared, f"--process={i}", *FLAGS, *flags]) for i in (0, 1)]


def processes_of(workdir, flag):
    """Process numbers of those whose command line names the run and the flag."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            if f"--workdir={workdir}" in words and flag in words:
                found.append(int(path.parent.name))
    return found


def test_two_processes_equal_one_with_as_many_devices(programs, of_two, tmp_path):
    with devices(programs, 4):
        status, said = programs.finish(programs.start([sys.executable, "train.py", f"--workdir={tmp_path}", *FLAGS]))
    assert status == 0, said
    for mine, theirs in zip(metrics_of(tmp_path), metrics_of(of_two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_layers_that_two_processes_share_make_the_same_steps(programs, launch, of_two, tmp_path):
    with devices(programs, 1):
        status, said = launch(tmp_path, 2, "--config.mesh.tensor=2")
    assert status == 0, said
    assert "2 devices (tensor 2)" in said
    for mine, theirs in zip(metrics_of(tmp_path), metrics_of(of_two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


def test_a_signal_to_the_second_saves_both_at_one_step_and_the_rerun_ends_with_the_same_bits(
    programs, launch, of_two, tmp_path
):
    long = ("--config.duration=8 steps", "--config.log.samples_every=1 steps")
    with devices(programs, 2):
        processes = side_by_side(programs, tmp_path, *long)
        programs.wait_for_step(processes[0], tmp_path, 1)
        processes[1].send_signal(signal.SIGTERM)
        ends = [programs.finish(process) for process in processes]
        saved = ckpt.steps_of(tmp_path / "checkpoints")
        if saved[-1] < 8:  # else the signal came with the last steps, and there was nothing left to stop
            assert [status for status, _ in ends] == [143, 143], ends
        status, said = launch(tmp_path, 2, *long)
    assert status == 0, said
    assert digest_of(tmp_path) == digest_of(of_two)


def test_another_layout_goes_on_with_the_same_data_and_the_same_collectives_give_the_same_bits(
    programs, launch, of_two, tmp_path
):
    """Four processes of one device exchange as two of two do; one process with one device does not."""
    with devices(programs, 1):
        status, said = launch(tmp_path / "one", 4, "--config.stop_after=4 steps")
        assert status == 0, said
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        ends = [launch(tmp_path / "one", 1)]
    with devices(programs, 2):
        ends.append(launch(tmp_path / "two", 2))
    for status, said in ends:
        assert status == 0, said
        assert "continuing after step 4 of 8" in said
    assert digest_of(tmp_path / "two") == digest_of(of_two)
    for mine, theirs in zip(metrics_of(tmp_path / "one"), metrics_of(of_two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)


SLURM = {"SLURM_JOB_ID": "{job}", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
SLURM |= {"SLURM_PROCID": "{i}", "SLURM_LOCALID": "{i}"}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "{job}.0;tcp://127.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}
OPEN_MPI |= {"OMPI_COMM_WORLD_RANK": "{i}", "OMPI_COMM_WORLD_LOCAL_RANK": "{i}"}


METADATA = {"GCE_METADATA_IP": "{metadata}"}
KUBERNETES = METADATA | {"TPU_WORKER_HOSTNAMES": "localhost,localhost", "TPU_WORKER_ID": "{i}"}
# What jax finds out about the machine: that it has TPU chips, and whether to ask the metadata server who it is.
HAS_CHIPS = "from jax._src.clusters import cloud_tpu_cluster; cloud_tpu_cluster.running_in_cloud_tpu_vm = True\n"
ASKS = f"import os\n{HAS_CHIPS}from gormley_vision.libtpu import QUIET\nfor name in QUIET: del os.environ[name]\n"


@pytest.fixture
def metadata():
    """Addresses of two servers that answer as Cloud TPU's do, each to one host of two."""

    def answering(host):
        known = {"agent-worker-number": str(host), "worker-network-endpoints": "a:0:127.0.0.1,b:1:127.0.0.1"}

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(known.get(self.path.rpartition("/")[2], "").encode())

            def log_message(self, *_):
                pass

        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)

    servers = [answering(host) for host in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"127.0.0.1:{server.server_address[1]}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("variables", "first"),
    [(SLURM, ""), (OPEN_MPI, ""), (METADATA, ASKS), (KUBERNETES, HAS_CHIPS)],
    ids=["slurm", "open_mpi", "tpu_pod", "tpu_pod_on_kubernetes"],
)
def test_a_clusters_variables_tell_who_is_here(variables, first, metadata):
    """A TPU pod is known by its metadata servers, which are real ones here, and by its chips, which are not."""
    code = f"{first}from gormley_vision.training import hosts; import jax; hosts.initialize('', 1, 0, 30)\n"
    code += "print(jax.process_index(), jax.process_count(), hosts.is_first())"
    job = str(os.getpid())  # its port follows from it
    processes = []
    for i in range(2):
        told = {name: value.format(job=job, i=i, metadata=metadata[i]) for name, value in variables.items()}
        processes.append(
            subprocess.Popen([sys.executable, "-c", code], env=os.environ | told, stdout=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert said == ["0 2 True", "1 2 False"]


@pytest.mark.parametrize("which", [0, 1])
def test_where_one_is_killed_the_other_ends_within_the_heartbeat(programs, tmp_path, which):
    heartbeat = 5
    processes = side_by_side(programs, tmp_path, f"--heartbeat={heartbeat}", "--config.duration=100000 steps")
    programs.wait_for_step(processes[0], tmp_path, 2)
    processes[which].kill()
    killed = time.monotonic()
    other = processes[1 - which]
    other.communicate(timeout=60)
    assert other.returncode
    assert time.monotonic() - killed < heartbeat + 3  # the runtime looks once a second, and needs time to die
    processes[which].communicate()


STEP = """
import sys, time, types
import jax, numpy as np
from gormley_vision.training import hosts, loop, sharding

address, i = sys.argv[1], int(sys.argv[2])
hosts.initialize(address, 2, i, 30)
shardings = sharding.Shardings(sharding.make_mesh({"data": 0, "fsdp": 1, "tensor": 1}, 2, 1), ())
task = types.SimpleNamespace(train_step=lambda state, batch, key: (state, {"sum": batch.sum()}, {}))
run = loop.Step(task, lambda resident, batch: batch, {}, shardings)
batch = hosts.put_global(np.full((1, 1), i + 1.0), shardings.batch)
lower, wait = run.lower, loop.wait_for_all


def late(*arguments):
    time.sleep(2 * i)
    return lower(*arguments)


def timed(point):
    times.append(time.time())
    wait(point)
    times.append(time.time())


times, run.lower, loop.wait_for_all = [], late, timed
total = float(run({}, {}, batch, None)[1]["sum"])
print(*times, total)
"""


def test_no_process_begins_before_all_have_compiled(programs):
    """Else the one whose program is cached waits in its first collective, and fails after Gloo's 30 seconds."""
    words = [sys.executable, "-c", STEP, free_address()]
    processes = [programs.start([*words, str(i)]) for i in range(2)]
    ends = [process.communicate(timeout=60)[0].splitlines()[-1].split() for process in processes]
    compiled, began, sums = zip(*(map(float, end) for end in ends), strict=True)
    assert sums == (3, 3)
    assert compiled[1] - compiled[0] > 1
    assert min(began) >= max(compiled)


def test_the_launcher_says_who_died_in_one_line(programs, tmp_path):
    words = ["scripts/launch.py", "--processes=2", "--", "train.py", f"--workdir={tmp_path}"]
    parent = programs.start([sys.executable, *words, *FLAGS, "--config.duration=100000 steps"])
    programs.wait_for_step(parent, tmp_path, 2)
    (second,) = processes_of(tmp_path, "--process=1")
    os.kill(second, signal.SIGKILL)
    status, said = programs.finish(parent)
    assert status == 128 + 9
    assert said.splitlines()[-1] == (
        "error: process 1 of 2 was ended by SIGKILL; the same command continues after the last checkpoint"
    )
    assert "***" not in said
    assert "Traceback" not in said
    assert not processes_of(tmp_path, "--process=0")


def test_who_reports_anothers_death_before_the_system_does_is_not_blamed(tmp_path, capfd):
    script = runpy.run_path(str(ROOT / "scripts" / "launch.py"))
    reports = "print('step 1\\nTraceback (most recent call last):', flush=True); import time; time.sleep(60)"
    dies = "import os, time; time.sleep(0.5); os.kill(os.getpid(), 9)"
    outputs = [tmp_path / "0.log", tmp_path / "1.log"]
    processes = []
    for code, output in zip((reports, dies), outputs, strict=True):
        with output.open("wb") as file:
            processes.append(subprocess.Popen([sys.executable, "-c", code], stdout=file, stderr=file))
    assert script["watch"](processes, outputs) == 128 + 9
    said = capfd.readouterr().err
    assert "process 1 of 2 was ended by SIGKILL" in said
    assert "Traceback" not in said


def test_a_mistake_is_said_once(launch, tmp_path):
    status, said = launch(tmp_path, 2, "--config.data.batch_size=17")
    assert status == 2
    assert said.count("data.batch_size=17 does not divide over 2 devices") == 1
    assert "Traceback" not in said
