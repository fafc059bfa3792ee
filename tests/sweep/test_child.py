"""The process that runs commands for a sweep."""

import json
import os
import subprocess
import sys

WAITS = """
import os, time
from mobiledeploy.sweep import child

def wait(*_, **options):
    assert options == {"run_name": "__main__", "alter_sys": True}
    os.write(2, b"ready\\n")
    time.sleep(60)
    os.write(2, b"still there\\n")

child.runpy.run_module = wait
child.main()
"""
PARENT = """
import os, subprocess, sys
options = {"stdin": subprocess.PIPE, "text": True}
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], **options)
child.stdin.write("[]\\n")
child.stdin.flush()
child.wait()
"""


def ask(*commands):
    """Let one process run commands; return its answers and its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "mobiledeploy.sweep.child", str(os.getpid())],
        input="".join(json.dumps(each) + "\n" for each in commands),
        capture_output=True,
        text=True,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def test_commands_run_one_after_the_other_in_one_process():
    (first, second), code = ask(["--version"], ["--version"])
    assert first["stdout"].startswith("mobiledeploy ")
    assert first["memory_bytes"] > 1e7
    assert {**second, "memory_bytes": 0} == {**first, "memory_bytes": 0}
    assert (first["code"], code) == (0, 0)


def test_a_process_ends_with_the_command_that_failed():
    (answer,), code = ask(["export", "no-such-model"], ["--version"])
    assert answer["code"] == code == 2
    assert "Error: " in answer["stderr"]
    assert "no-such-model" in answer["stderr"]
    assert answer["stdout"] == ""


def test_a_command_stops_when_its_parent_is_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, WAITS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with parent.stdout:
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        parent.wait()
        assert parent.stdout.read() == ""  # ends when the command, which holds the pipe, does
