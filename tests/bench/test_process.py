"""The benchmark's child may crash, hang or babble: the command survives and says what happened."""

import json
import sys
import time

import pytest

from mobiledeploy.bench import process
from mobiledeploy.bench.process import converse
from mobiledeploy.errors import ArtifactError, RuntimeFailedError

SAY = """
import json, os, signal, sys, time
def say(**message): print(json.dumps(message), flush=True)
request = json.load(sys.stdin)
"""


@pytest.fixture
def child(monkeypatch):
    """Let `converse` start a script in place of the real child."""

    def use(script):
        monkeypatch.setattr(process, "_COMMAND", (sys.executable, "-c", script))

    return use


def test_messages_arrive_up_to_the_result(child):
    child(SAY + "say(progress=0.5); say(result=request['x'] + 1); say(progress=9)")
    assert list(converse({"x": 1})) == [{"progress": 0.5}, {"result": 2}]


def test_an_error_of_the_child_is_raised_in_its_own_class(child):
    child(SAY + "say(error={'type': 'ArtifactError', 'message': 'No.', 'remedy': 'Mend it.'})")
    with pytest.raises(ArtifactError) as caught:
        list(converse({}))
    assert (caught.value.message, caught.value.remedy) == ("No.", "Mend it.")


@pytest.mark.parametrize(
    ("death", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.abort()", "was ended by SIGABRT"),
        ("sys.exit(7)", "ended with code 7"),
        ("sys.exit(0)", "ended with code 0"),
    ],
)
def test_a_crash_names_the_signal_the_artifact_and_the_last_words(child, death, how):
    child(
        SAY
        + f"say(loading='bad.pte'); print('a\\nxnn: boom', file=sys.stderr, flush=True); {death}"
    )
    with pytest.raises(RuntimeFailedError) as caught:
        list(converse({}))
    assert how in caught.value.message
    assert "bad.pte" in caught.value.message
    assert caught.value.message.endswith("Its last words:\na\nxnn: boom")
    assert caught.value.remedy


def test_a_child_that_dies_before_it_listens_is_reported(child):
    child("import sys; sys.stdin.close(); sys.exit(5)")
    with pytest.raises(RuntimeFailedError, match="ended with code 5"):
        list(converse({"padding": "x" * 10_000_000}))


def test_a_child_that_falls_silent_is_stopped(child):
    child(SAY + "say(progress=0); time.sleep(600)")
    began = time.monotonic()
    with pytest.raises(RuntimeFailedError, match=r"said nothing for 1.5 s and was stopped"):
        list(converse({}, silence_s=1.5))
    assert time.monotonic() - began < 60


def test_a_child_that_keeps_talking_may_take_longer(child):
    child(SAY + "[(say(progress=i), time.sleep(0.4)) for i in range(6)]; say(result=1)")
    assert list(converse({}, silence_s=1.5))[-1] == {"result": 1}


def test_no_child_is_left_behind_when_nobody_listens_any_more(child, tmp_path):
    ready = tmp_path / "pid"
    child(
        SAY + f"open({str(ready)!r}, 'w').write(str(os.getpid())); say(progress=0); time.sleep(600)"
    )
    conversation = converse({})
    next(conversation)
    pid = int(ready.read_text())
    conversation.close()
    with pytest.raises(ProcessLookupError):
        __import__("os").kill(pid, 0)


def test_the_real_child_keeps_stdout_for_messages(float_onnx):
    request = {
        "artifacts": [str(float_onnx)],
        "threads": 1,
        "rounds": 2,
        "warmup": 0,
        "seed": 0,
        "duration_s": None,
    }
    messages = list(converse(request))
    assert messages[0] == {"loading": str(float_onnx)}
    assert set(messages[-1]["result"]) == {"fresh", "times_ms"}
    json.dumps(messages)
