"""Stop whole commands by signals at random moments, and check what is left.

`python tests/end_to_end/random_signals.py --runs 100 --seed 1` prints one line per run and a
summary; it exits with 1 if a run left something behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP)
FORBIDDEN = ("Traceback", "Exception ignored", "This is a bug", "Unexpected ")
_STEM = "mobilenet_v1_0.25_32-random-int8"
_NETWORK = ("--width", "0.25", "--resolution", "32", "--weights", "random")
_EXPORT = ("export", "v1", *_NETWORK, "--int8", "--ptq", "fast", "--out", "out")
_DOCUMENTS = ("--json", "out/report.json")
_TIMEOUT_S = 300
_MARK = "MOBILEDEPLOY_TEST_RUN"


@dataclass(frozen=True)
class Command:
    """A command to interrupt.

    Attributes:
        name: For the table.
        arguments: Of the command line.
    """

    name: str
    arguments: tuple[str, ...]


COMMANDS = (
    Command(
        "export",
        (*_EXPORT, "--calib-data", "pictures", "--format", "onnx", "--format", "tflite"),
    ),
    Command("export pte", (*_EXPORT, "--calib-data", "pictures", "--format", "pte")),
    Command("parity", ("parity", f"out/{_STEM}.onnx", "--html", "out/report.html", *_DOCUMENTS)),
    Command(
        "bench",
        ("bench", *(f"out/{_STEM}.{each}" for each in ("onnx", "tflite", "pte")), *_DOCUMENTS),
    ),
    Command(
        "sweep",
        (
            *("sweep", "--model", "v1", *_NETWORK, "--ptq", "fast,fp32", "--runs", "2"),
            *("--jobs", "2", "--out", "out/sweep", "--calib-data", "pictures", *_DOCUMENTS),
        ),
    ),
)


@dataclass
class Finished:
    """A command that has ended.

    Attributes:
        code: Exit code; negative for a signal that ended the process itself.
        text: What it printed.
        seconds: From its start.
        orphans: Command lines of processes that it left behind.
    """

    code: int
    text: str
    seconds: float
    orphans: list[str]


@dataclass
class Complete:
    """What a command leaves if nothing stops it.

    Attributes:
        seconds: How long it took.
        files: Contents of the files in its folder.
    """

    seconds: float
    files: dict[str, bytes]


@dataclass
class Run:
    """One interrupted command.

    Attributes:
        problems: What is wrong; empty if nothing is.
    """

    command: str
    number: signal.Signals
    after_s: float
    code: int
    problems: list[str] = field(default_factory=list)


class Workplace:
    """A folder with an earlier good export, and what each command leaves if nothing stops it.

    Args:
        root: An empty folder.
        commands: Those that will be interrupted.
    """

    def __init__(self, root: Path, commands: tuple[Command, ...]) -> None:
        self._root = root
        self._template = root / "template"
        for name in ("out", "home", "cache", "tmp", "pictures"):
            (self._template / name).mkdir(parents=True)
        _draw(self._template / "pictures")
        words = [word for command in commands for word in command.arguments]
        named = [each for each in ("onnx", "tflite", "pte") if any(each in word for word in words)]
        formats = [word for each in named for word in ("--format", each)]
        earlier = Command("earlier", (*_EXPORT, "--calib-samples", "4", *formats))
        done = self._finish(self._start(earlier, self._template))
        assert done.code == 0, done.text
        (self._template / "out" / "report.json").write_text("{}")  # as of an earlier run
        self._complete = {command.name: self._run_to_end(command) for command in commands}

    def interrupt(self, command: Command, generator: random.Random) -> Run:
        """Run a command in a copy of the folder, stop it at a random moment, and check the copy."""
        number = generator.choice(SIGNALS)
        after_s = generator.uniform(0, self._complete[command.name].seconds)
        whole_group = generator.random() < 0.5  # Ctrl-C reaches the group, `kill` one process
        with self._copied() as folder:
            before = _contents(folder)
            process = self._start(command, folder)
            time.sleep(after_s)
            if process.poll() is None:
                (os.killpg if whole_group else os.kill)(process.pid, number)
            done = self._finish(process)
            problems = [
                *_wrong_end(done, number),
                *self._left(command, folder, before, done.code == 0),
            ]
        return Run(command.name, number, after_s, done.code, problems)

    def _run_to_end(self, command: Command) -> Complete:
        with self._copied() as folder:
            done = self._finish(self._start(command, folder))
            assert done.code == 0, done.text
            problems = [*_wrong_end(done, None), *_not_empty(folder)]
            assert not problems, problems
            return Complete(done.seconds, _contents(folder))

    def _copied(self) -> _Copy:
        return _Copy(self._template, self._root / "run")

    def _start(self, command: Command, folder: Path) -> _Process:
        foreign = {"TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR"}  # set by a process that uses them
        inherited = {name: each for name, each in os.environ.items() if name not in foreign}
        environment = inherited | {
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "home" / "cache"),
            "XDG_CONFIG_HOME": str(folder / "home" / "config"),
            "MOBILEDEPLOY_CACHE": str(folder / "cache"),
            "TMPDIR": str(folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            _MARK: uuid.uuid4().hex,
        }
        return _Process(command, folder, environment)

    @staticmethod
    def _finish(process: _Process) -> Finished:
        text, _ = process.communicate(timeout=_TIMEOUT_S)
        seconds = time.monotonic() - process.started
        return Finished(process.returncode, text, seconds, _processes_of(process.mark))

    def _left(
        self, command: Command, folder: Path, before: dict[str, bytes], succeeded: bool
    ) -> list[str]:
        """Return what is wrong with the files that a command left."""
        complete = self._complete[command.name].files
        after = _contents(folder)
        problems = _not_empty(folder)
        problems += [f"{name} is gone" for name in before if name not in after]
        new, old = [], []
        for name, content in after.items():
            if name.startswith("out/sweep/"):
                continue
            if content == before.get(name):
                if complete[name] != content:
                    old.append(name)
            elif name not in complete and not name.startswith("cache/"):
                problems.append(f"{name} is left over")
            elif not _is_whole(folder / name, content, complete.get(name)):
                problems.append(f"{name} is not whole")
            elif not name.startswith("cache/"):
                new.append(name)
        artifacts = [name for name in (*new, *old) if _STEM in name]
        if set(artifacts) - set(new) and set(artifacts) - set(old):
            problems.append(f"new {new} beside old {old}")
        if succeeded and old:
            problems.append(f"it succeeded, but kept {old}")
        return problems + _wrong_sweep(folder / "out" / "sweep")


class _Process(subprocess.Popen[str]):
    """A command in a session of its own."""

    def __init__(self, command: Command, folder: Path, environment: dict[str, str]) -> None:
        self.mark = environment[_MARK]
        self.started = time.monotonic()
        super().__init__(
            [Path(sys.executable).parent / "mobiledeploy", *command.arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


class _Copy:
    """A copy of a folder, removed at the end."""

    def __init__(self, template: Path, copy: Path) -> None:
        self._template, self._copy = template, copy

    def __enter__(self) -> Path:
        shutil.copytree(self._template, self._copy)
        return self._copy

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._copy)


def _draw(folder: Path) -> None:
    """Write eight smooth images."""
    generator = np.random.default_rng(0)
    for number in range(8):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
        smooth.save(folder / f"{number}.png")


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files by relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _wrong_end(done: Finished, number: signal.Signals | None) -> list[str]:
    """Return what is wrong with the exit code, the text and the processes of a command."""
    problems = [f"it left the process {line}" for line in done.orphans]
    ends = {0} if number is None else {0, 128 + number}
    # while Python starts and ends, the signal ends it: for shells that is 128 + signal, too
    killed = number is not None and done.code == -number
    if done.code not in ends and not killed:
        problems.append(f"exit code {done.code}: {done.text[-2000:]}")
    found = [text for text in FORBIDDEN if text in done.text]
    began = "Loading" in done.text  # the first step of every command
    if found and (began or not killed):
        problems.append(f"it printed {found}: {done.text[-3000:]}")
    return problems


def _processes_of(mark: str) -> list[str]:
    """Return the command lines of the living processes of a run, whatever session they are in."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended, or belongs to somebody else
            continue
    return found


def _not_empty(folder: Path) -> list[str]:
    """Return what lies in the folders that a command leaves empty, and hidden files anywhere."""
    left = [path for name in ("tmp", "home") for path in (folder / name).rglob("*")]
    hidden = [path for path in folder.rglob(".*") if path not in left]
    return [f"{path.relative_to(folder)} is left over" for path in (*left, *hidden)]


def _is_whole(path: Path, content: bytes, complete: bytes | None) -> bool:
    """Return whether a file is what the command writes if nothing stops it."""
    if path.suffix == ".network":  # torch does not write the same bytes twice
        return hashlib.sha256(content[32:]).digest() == content[:32]
    if path.suffix == ".html":  # with times
        return content.rstrip().endswith(b"</html>")
    if path.name == "report.json" or path.parent.name == "matplotlib":
        try:
            return set(json.loads(content)) == set(json.loads(complete or b"{}"))
        except ValueError:
            return False
    return content == complete


def _wrong_sweep(folder: Path) -> list[str]:
    """Return what is wrong with the results and artifacts of a sweep."""
    if not folder.exists():
        return []
    problems = [
        f"{path.name} has no manifest"
        for path in folder.rglob("*.onnx")
        if not path.with_name(f"{path.name}.json").is_file()
    ]
    known = {".onnx", ".json", ".sqlite"}
    files = [path for path in folder.rglob("*") if path.is_file()]
    problems += [f"{path.name} is left over" for path in files if path.suffix not in known]
    database = folder / "sweep.sqlite"
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
        problems += [] if answer == "ok" else [f"the results are damaged: {answer}"]
    return problems


def main() -> None:
    """Interrupt commands as often as asked for, one at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for number in SIGNALS:  # a background job ignores some, and so would the commands
        signal.signal(number, signal.SIG_DFL)
    generator = random.Random(options.seed)
    ends: Counter[str] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as root:
        place = Workplace(Path(root), COMMANDS)
        for index in range(options.runs):
            run = place.interrupt(COMMANDS[index % len(COMMANDS)], generator)
            bad += bool(run.problems)
            ends[f"{run.command}, {run.number.name}: exit code {run.code}"] += 1
            problems = "".join(f"\n    {problem}" for problem in run.problems)
            when = f"{run.number.name} after {run.after_s:.1f} s"
            sys.stdout.write(f"{index:3} {run.command}, {when}: {run.code}{problems}\n")
            sys.stdout.flush()
    sys.stdout.writelines(f"{count:3} x {end}\n" for end, count in sorted(ends.items()))
    sys.stdout.write(f"{options.runs} runs, {bad} with problems\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
