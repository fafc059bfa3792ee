"""Commands in processes of their own: errors, kills, stopping."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.sweep import commands
from mobiledeploy.sweep.commands import Commands, InterruptedCommandError

STARTED = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n');"


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Let commands be a program of the test; return the file with the ids of its processes."""
    started = tmp_path / "started"
    started.touch()
    real = subprocess.Popen

    def use(code):
        def popen(_, **options):
            return real([sys.executable, "-c", STARTED + code, started], **options)

        monkeypatch.setattr(commands.subprocess, "Popen", popen)
        return started

    return use


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


def test_a_command_that_fails_says_why():
    with pytest.raises(RuntimeFailedError, match="no-such-model") as caught:
        Commands().run(["export", "no-such-model"], threads=1)
    assert not isinstance(caught.value, InterruptedCommandError)


def test_a_command_keeps_no_network_in_the_cache(script):
    """Many points would evict the networks of single exports."""
    script("print(os.environ['MOBILEDEPLOY_KEEP_NETWORKS'])")
    assert Commands().run(["export"], threads=1) == 0


def test_a_command_gets_its_number_of_threads(script):
    script("print(os.environ['OMP_NUM_THREADS'])")
    assert Commands().run(["export"], threads=3) == 3


def test_a_killed_command_runs_once_more(script):
    started = script("time.sleep(60 * (open(sys.argv[1]).read().count('\\n') < 2)); print(7)")
    found = []
    thread = threading.Thread(target=lambda: found.append(Commands().run(["export"], threads=1)))
    thread.start()
    (first,) = wait_for_processes(started, 1)
    os.kill(first, signal.SIGKILL)
    thread.join(60)
    assert found == [7]
    assert len(started.read_text().split()) == 2


def test_a_command_that_is_killed_twice_is_interrupted(script):
    started = script("os.kill(os.getpid(), 9)")
    with pytest.raises(InterruptedCommandError, match="`mobiledeploy export` was killed, twice"):
        Commands().run(["export"], threads=1)
    assert len(started.read_text().split()) == 2


def test_a_crash_is_not_repeated(script):
    started = script("os.abort()")
    with pytest.raises(RuntimeFailedError, match="ended with exit code -6") as caught:
        Commands().run(["export"], threads=1)
    assert not isinstance(caught.value, InterruptedCommandError)
    assert len(started.read_text().split()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Could not write sweep/a: No space left on device.",
        "There is no room for temporary files in /tmp: 1 MB are free, 2 MB are needed.",
    ],
)
def test_a_full_disk_interrupts(script, text):
    script(f"sys.stderr.write({'Error: ' + text!r}); sys.exit(4)")
    with pytest.raises(InterruptedCommandError) as caught:
        Commands().run(["export"], threads=1)
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


WAITS = """
import sys, time
from mobiledeploy.sweep import child

def wait(*_, **options):
    assert options == {"run_name": "__main__", "alter_sys": True}
    print("ready", flush=True)
    time.sleep(60)
    print("still there")

child.runpy.run_module = wait
child.main()
"""
PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())])
"""


def test_a_command_stops_when_its_parent_is_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, WAITS], stdout=subprocess.PIPE, text=True
    )
    with parent.stdout:
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        parent.wait()
        assert parent.stdout.read() == ""  # ends when the command, which holds the pipe, does
