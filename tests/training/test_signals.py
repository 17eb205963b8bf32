"""Signals as terminals, shells and supervisors send them, and output that nobody reads any more."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

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
