"""Commands in processes of their own: processes that are kept, errors, kills, stopping."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.sweep import child_process, commands
from mobiledeploy.sweep.commands import Commands, InterruptedCommandError

PROGRAM = """
import json, os, sys, time
STARTED = {started!r}
with open(STARTED, "a") as file:
    file.write(f"{{os.getpid()}}\\n")

def answer(code=0, stdout="", stderr="", memory_bytes=0):
    print(json.dumps(dict(locals())), flush=True)

for line in sys.stdin:
    arguments = json.loads(line)
    {code}
"""


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Let commands be a program of the test; return the file with the ids of its processes."""
    started = tmp_path / "started"
    started.touch()
    real = subprocess.Popen

    def use(code):
        def popen(_, **options):
            program = PROGRAM.format(started=str(started), code=code)
            return real([sys.executable, "-c", program], **options)

        monkeypatch.setattr(child_process.subprocess, "Popen", popen)
        return started

    return use


@pytest.fixture
def running():
    """Commands whose processes end with the test."""
    with Commands() as made:
        yield made


def wait_for_processes(started, count):
    deadline = time.monotonic() + 60
    while len(found := started.read_text().split()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(each) for each in found]


def test_the_last_error_of_a_command_is_kept():
    text = "step\nError: The images have no labels.\nTry: add a\nlabels.csv\n"
    assert commands._error_of(text) == "The images have no labels."
    assert commands._error_of("killed") == "killed"


def test_a_command_that_fails_says_why(running):
    with pytest.raises(RuntimeFailedError, match="no-such-model") as caught:
        running.run(["export", "no-such-model"], threads=1)
    assert not isinstance(caught.value, InterruptedCommandError)


def test_a_command_keeps_no_network_in_the_cache(script, running):
    """Many points would evict the networks of single exports."""
    script("answer(stdout=os.environ['MOBILEDEPLOY_KEEP_NETWORKS'])")
    assert running.run(["export"], threads=1) == 0


def test_a_command_gets_its_number_of_threads_and_its_arguments(script, running):
    script("answer(stdout=json.dumps([os.environ['OMP_NUM_THREADS'], *arguments]))")
    assert running.run(["export", "v2"], threads=3) == ["3", "export", "v2"]


def test_a_process_is_kept_for_the_next_command(script, running):
    started = script("answer(stdout='1')")
    for _ in range(3):
        running.run(["export"], threads=1)
    (process,) = wait_for_processes(started, 1)
    running.close()
    assert len(started.read_text().split()) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_another_number_of_threads_needs_another_process(script, running):
    started = script("answer(stdout='1')")
    for threads in (1, 2, 1, 2):
        running.run(["export"], threads=threads)
    assert len(started.read_text().split()) == 2


def test_a_process_that_holds_much_memory_is_not_kept(script, running):
    started = script(f"answer(stdout='1', memory_bytes={commands._MOST_BYTES + 1})")
    for _ in range(2):
        running.run(["export"], threads=1)
    assert len(started.read_text().split()) == 2


def test_a_process_of_its_own_runs_nothing_before_or_after(script, running):
    started = script("answer(stdout='1')")
    for shared in (True, False, True):
        running.run(["export"], threads=1, shared=shared)
    assert len(started.read_text().split()) == 2


def test_a_process_whose_command_failed_is_not_kept(script, running):
    started = script("answer(stderr='Error: no', code=4); break")
    for _ in range(2):
        with pytest.raises(RuntimeFailedError, match="no"):
            running.run(["export"], threads=1)
    assert len(started.read_text().split()) == 2


def test_a_process_that_is_killed_between_two_commands_costs_nothing(script, running):
    started = script("answer(stdout='7')")
    running.run(["export"], threads=1)
    (process,) = wait_for_processes(started, 1)
    os.kill(process, signal.SIGKILL)
    assert running.run(["export"], threads=1) == 7


def test_a_killed_command_runs_once_more(script, running):
    started = script("time.sleep(60 * (len(open(STARTED).readlines()) < 2)); answer(stdout='7')")
    found = []
    thread = threading.Thread(target=lambda: found.append(running.run(["export"], threads=1)))
    thread.start()
    (first,) = wait_for_processes(started, 1)
    os.kill(first, signal.SIGKILL)
    thread.join(60)
    assert found == [7]
    assert len(started.read_text().split()) == 2


def test_a_command_that_is_killed_twice_is_interrupted(script, running):
    started = script("os.kill(os.getpid(), 9)")
    with pytest.raises(InterruptedCommandError, match="`mobiledeploy export` was killed, twice"):
        running.run(["export"], threads=1)
    assert len(started.read_text().split()) == 2


def test_a_crash_is_not_repeated(script, running):
    started = script("os.abort()")
    with pytest.raises(RuntimeFailedError, match="ended with exit code -6") as caught:
        running.run(["export"], threads=1)
    assert not isinstance(caught.value, InterruptedCommandError)
    assert len(started.read_text().split()) == 1


def test_the_last_words_of_a_crash_are_its_error(script, running):
    """Also after more than a pipe holds, which nobody else reads."""
    script("os.write(2, b'x\\n' * 100_000 + b'no such kernel\\n'); os.abort()")
    with pytest.raises(RuntimeFailedError, match=r"no such kernel$"):
        running.run(["export"], threads=1)


@pytest.mark.parametrize(
    "text",
    [
        "Could not write sweep/a: No space left on device.",
        "There is no room for temporary files in /tmp: 1 MB are free, 2 MB are needed.",
    ],
)
def test_a_full_disk_interrupts(script, running, text):
    script(f"answer(stderr={'Error: ' + text!r}, code=4)")
    with pytest.raises(InterruptedCommandError) as caught:
        running.run(["export"], threads=1)
    assert caught.value.message == text


def test_stopping_ends_all_commands_and_starts_no_more(script):
    started = script("time.sleep(60)")
    running, failures = Commands(), []

    def run():
        try:
            running.run(["export"], threads=1)
        except InterruptedCommandError as error:
            failures.append(error.message)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for_processes(started, 2)
    running.stop()
    for thread in threads:
        thread.join(60)
    run()
    assert failures == ["The sweep was stopped."] * 3
    assert len(started.read_text().split()) == 2
