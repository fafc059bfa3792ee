"""The composite action and the job of docs/how-to/ci.md: parsed, and their commands run.

What only GitHub can do (checkout, setup-python, upload, pip from the network) is parsed, not run.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from test_parity_and_exit_codes import trained_checkpoint
from tiny import CONFIG

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
JOBS = [
    yaml.safe_load(block)
    for block in re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs/how-to/ci.md").read_text(), re.MULTILINE | re.DOTALL
    )
]
STEPS = JOBS[0]["jobs"]["int8"]["steps"]
GATE = next(step for step in STEPS if step.get("uses") == "./.mobiledeploy")
TORCH = "pip install --no-deps torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu"


def step(steps, name):
    return next(step for step in steps if step.get("name") == name)


def inputs_of(given):
    """Return the inputs of the action as GitHub fills them in."""
    assert set(given) <= set(ACTION["inputs"])
    known = {name: entry.get("default") for name, entry in ACTION["inputs"].items()} | given
    assert None not in known.values(), "an input that is required is missing"
    return known


def evaluate(text, inputs):
    """Replace `${{ inputs.NAME }}`; any other expression is a KeyError or stays visible."""
    return re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda match: inputs[match[1]], text)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The files that docs/how-to/ci.md expects in a repository; the network is untrained."""
    folder = tmp_path_factory.mktemp("project")
    generator = np.random.default_rng(2)
    for kind in ("calibration", "evaluation"):
        (folder / "photos" / kind).mkdir(parents=True)
    for number in range(4):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
        for kind in (
            "calibration",
            "evaluation",
        ):  # the same images: an untrained network does not generalise
            smooth.save(folder / "photos" / kind / f"{number}.png")
    trained_checkpoint(folder / "model.pth")
    return folder


@pytest.fixture(scope="module")
def run(project, console_script, offline_environment):
    """Run a step's script as GitHub does: `bash -e -o pipefail` on a file."""

    def run(script, environment=()):
        path = project / "script.sh"
        path.write_text(script)
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", path],
            cwd=project,
            env=offline_environment
            | {"PATH": f"{console_script.parent}{os.pathsep}{os.environ['PATH']}"}
            | dict(environment),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def gate(project, run):
    """Run the action's second step with the inputs of the job, some of them replaced."""
    (project / "exports").mkdir()
    script = step(STEPS, "Export")["run"].rstrip() + f" --config {CONFIG} --no-parity\n"
    done = run(script)
    assert done.returncode == 0, done.stderr

    def gate(**replaced):
        inputs = inputs_of(GATE["with"] | replaced)
        ladder = step(ACTION["runs"]["steps"], "Check parity")
        environment = {name: evaluate(text, inputs) for name, text in ladder["env"].items()}
        assert "${{" not in ladder["run"], "an input pasted into a script could run as code"
        summary = {"GITHUB_STEP_SUMMARY": str(project / "summary.md")}
        return run(ladder["run"], environment | summary)

    return gate


def test_the_composite_action_installs_like_the_readme():
    assert ACTION["runs"]["using"] == "composite"
    steps = ACTION["runs"]["steps"]
    assert all(entry["shell"] == "bash" for entry in steps)
    install = step(steps, "Install mobiledeploy")
    assert install["if"] == "inputs.install == 'true'"
    first, second = install["run"].strip().splitlines()
    assert first == f"python -m {TORCH}"
    assert second == 'python -m pip install "$GITHUB_ACTION_PATH"'
    assert TORCH in (ROOT / "README.md").read_text()
    assert TORCH in step(STEPS, "Install")["run"]
    assert TORCH in JOBS[1]["int8"]["script"]


def test_the_documented_inputs_are_those_of_the_action():
    page = (ROOT / "docs/how-to/ci.md").read_text()
    rows = page[page.index("| input |") :].split("\n\n")[0].splitlines()[2:]
    assert [re.match(r"\| `(\w+)` \|", row)[1] for row in rows] == list(ACTION["inputs"])
    assert f"`{ACTION['inputs']['reports']['default']}`" in page


def test_reports_are_uploaded_even_if_the_gate_fails():
    upload = step(STEPS, "Upload")
    assert upload["if"] == "always()"
    assert ACTION["inputs"]["reports"]["default"] in upload["with"]["path"].split()
    assert "when" in JOBS[1]["int8"]["artifacts"]


@pytest.mark.ci
def test_the_job_exports_passes_its_gate_and_writes_every_report(project, gate):
    done = gate(options="--min-sqnr 0 --min-agreement 0")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (project / "mobiledeploy-reports").iterdir()}
    assert names == {"parity.json", "parity.xml", "parity.md", "parity.html"}
    assert (project / "summary.md").read_text().startswith("## ✅ Parity holds")
    assert {path.suffix for path in (project / "exports").iterdir()} == {".onnx", ".pte", ".json"}


@pytest.mark.ci
def test_the_gate_fails_if_the_network_misses_a_limit(project, gate):
    (project / "summary.md").unlink(missing_ok=True)
    done = gate(artifacts="exports/*.onnx", options="--min-sqnr 99")
    assert done.returncode == 1
    assert "Parity failed at the rung 'integers'" in " ".join(done.stderr.split())
    assert (project / "summary.md").read_text().startswith("## ❌ Parity FAILED")
    empty = gate(artifacts="exports/*.tflite")
    assert empty.returncode == 3
