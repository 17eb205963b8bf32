"""Signals as terminals, shells and supervisors send them, and output that nobody reads any more."""

import os
import pty
import signal
import socket
import subprocess
import sys
import time

import pytest

from gormley_vision.signals import at_once, handled

# What the loop does with signals, without jax: it works in steps, and saves when asked to end.
LOOP = """
import atexit, time
from gormley_vision.errors import reported
from gormley_vision.signals import Interrupts, handled
atexit.register(print, 'an orderly end')
interrupts = Interrupts()
with reported(), handled(interrupts.receive):
    print('ready', flush=True)
    while not interrupts.signal:
        time.sleep(0.01)
    print('signal', interrupts.signal, flush=True)
    time.sleep(SAVING)
"""


def looping(saving: float, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
    """A process whose saving takes so many seconds; it has printed 'ready'."""
    command = [*prefix, sys.executable, "-c", LOOP.replace("SAVING", str(saving))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_for_an_orderly_end(number):
    process = looping(saving=0)
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert output.decode() == f"signal {number.value}\nan orderly end\n"
    assert b"again ends at once" in errors
    assert process.returncode == 0


# Before the loop: ours, native code that hears no handler of Python's, and a callback that swallows what is raised.
BEFORE = """
import gc, sys, time, zlib
from gormley_vision.errors import reported
with reported():
    def swallow(phase, info):
        if phase == 'start':
            print('ready', flush=True)
            time.sleep(30)
    {work}
print('went on', flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    "work",
    [
        "print('ready', flush=True); time.sleep(30)",
        "print('ready', flush=True); zlib.compress(bytes(1 << 31), 9)",
        "gc.callbacks.append(swallow); gc.collect()",
    ],
    ids=["python", "native", "callback"],
)
def test_before_the_loop_a_signal_ends_the_process_at_once_with_a_line(number, work):
    command = [sys.executable, "-c", BEFORE.format(work=work)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors.decode()) == (128 + number, b"", f"stopped by {number.name}\n")
    assert time.monotonic() - began < 1


def test_the_loop_gives_the_signals_back():
    program = (
        "import time; from gormley_vision.errors import reported\n"
        "from gormley_vision.signals import Interrupts, handled\n"
        "interrupts = Interrupts()\n"
        "with reported():\n"
        "    with handled(interrupts.receive):\n"
        "        print('in the loop', flush=True)\n"
        "        while not interrupts.signal: time.sleep(0.01)\n"
        "    print('after it', flush=True); time.sleep(30)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in (b"in the loop\n", b"after it\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.endswith(b"stopped by SIGINT\n")


def test_a_signal_of_the_loop_is_not_told_to_who_watches_outside_it():
    """Else the watcher, which is a thread, may learn of it after the loop, and end a program that had saved."""
    with at_once():
        watched = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(watched)
        with handled(lambda number, frame: None):
            assert signal.set_wakeup_fd(-1) == -1
        assert signal.set_wakeup_fd(watched) == watched != -1


def test_a_forked_child_is_not_the_program():
    program = (
        "import os, signal, time; from gormley_vision.errors import reported\n"
        "with reported():\n"
        "    child = os.fork()\n"
        "    if not child: print('ready', flush=True); time.sleep(30)\n"
        "    time.sleep(0.2); os.kill(child, signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "ready\n143\n"


@pytest.mark.slow
def test_one_of_several_processes_is_stopped_before_the_loop_too(programs, tmp_path):
    """The handler that jax sets as it joins others only takes a note of SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = (
        "import jax, os, signal, time; from gormley_vision.errors import reported\n"
        "from gormley_vision.signals import at_once\n"
        "with reported():\n"
        f"    jax.distributed.initialize({address!r}, 1, 0)\n"
        "    with at_once(): os.kill(os.getpid(), signal.SIGTERM); time.sleep(20); print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=programs.environment)
    assert (done.returncode, done.stdout) == (143, "")
    assert "stopped by SIGTERM" in done.stderr


@pytest.mark.slow
def test_training_is_stopped_by_one_signal_wherever_it_comes(programs, tmp_path):
    """From the first import to the first step: always one line, no trace, and no run that goes on."""
    for i in range(12):
        process = programs.start(programs.command(tmp_path / f"{i}", duration="100000 steps"))
        time.sleep(0.15 + 0.35 * i)
        process.send_signal(signal.SIGINT)
        status, errors = programs.finish(process)
        assert status == 130, errors
        assert "Traceback" not in errors
        assert "stopped by SIGINT" in errors or "saved at step" in errors


def test_the_same_signal_twice_within_milliseconds_is_one_request():
    process = looping(saving=0.3)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.005)
    output, _ = process.communicate(timeout=20)
    assert output.endswith(b"an orderly end\n")
    assert process.returncode == 0


def test_a_signal_more_than_a_second_later_ends_at_once_but_a_hangup_does_not():
    process = looping(saving=60)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"signal 2\n"
    time.sleep(1.2)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output == b""


def test_under_nohup_a_hangup_is_no_request():
    process = looping(saving=0, prefix=("sh", "-c", "trap '' HUP; exec \"$@\"", "sh"))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert output.startswith(b"signal 15\n")


def test_a_reader_that_is_gone_costs_nothing():
    """Ctrl-C on `... 2>&1 | tee log`, where tee dies first."""
    process = looping(saving=0)
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0


def test_a_terminal_that_is_gone_costs_nothing():
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", LOOP.replace("SAVING", "0")]
    process = subprocess.Popen(command, stdout=terminal, stderr=terminal, start_new_session=True)
    assert os.read(controller, 5) == b"ready"
    os.close(terminal)
    os.close(controller)  # every write fails with EIO from now on
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=20) == 0


def test_closed_output_is_nobody_elses_file(tmp_path):
    """`train.py >&- 2>&-`: the first file opened must not get the number that messages go to."""
    program = (
        "import os, sys; from gormley_vision.errors import reported\n"
        "with reported():\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    print('lost'); print('lost', file=sys.stderr); os.write(2, b'lost')\n"
        "    file.write(str(file.fileno())); file.close()\n"
    )
    subprocess.run(
        f"exec {sys.executable} -c '{program.replace(chr(39), chr(34))}' >&- 2>&- <&-", shell=True, check=True
    )
    assert int((tmp_path / "file").read_text()) > 2
