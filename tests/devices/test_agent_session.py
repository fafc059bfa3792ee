"""Sessions with processes that crash, hang, print other output, or exit."""

import json
import os
import sys
import time

import pytest

from mobiledeploy.devices import agent_session as session
from mobiledeploy.devices.agent_session import run_session
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import ArtifactError, RuntimeFailedError

AGENT = """
import json, os, signal, sys, time
def send(**message): print("\\x1e" + json.dumps(message), flush=True)
source = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
send(hello={"protocol": 3})
request = json.loads(sys.stdin.buffer.readline())
"""
HELLO = {"hello": {"protocol": 3}}


def unknown_exit(code, output, *, started):
    """Explain no exit code."""


@pytest.fixture
def request_of_two(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"first")
    (tmp_path / "b.pte").write_bytes(b"second")
    paths = (tmp_path / "a.onnx", tmp_path / "b.pte")
    return Request(task="bench", artifacts=paths, inputs=(None, None), rounds=3)


@pytest.fixture
def messages(request_of_two):
    """Run a session with a script in place of the agent; return its messages."""

    def with_script(script, request=request_of_two, **options):
        options = {"uri": "exec:x", "timeout_s": 240, "explain_exit": unknown_exit} | options
        return run_session([sys.executable, "-c", script], request, **options)

    return with_script


def test_messages_are_yielded_until_the_result(messages):
    script = AGENT + "send(progress=0.5); send(result=request['rounds'] + 1); send(progress=9)"
    assert list(messages(script)) == [HELLO, {"progress": 0.5}, {"result": 4}]


def test_files_are_sent_after_the_request_with_their_sha256(messages):
    script = AGENT + (
        "import hashlib\n"
        "files = [(f['name'], f['sha256'], sys.stdin.buffer.read(f['size'])) for f in"
        " request['files']]\n"
        "send(result=[(n, b.decode(), hashlib.sha256(b).hexdigest() == s) for n, s, b in files])"
    )
    *_, last = messages(script)
    assert last["result"] == [["0/a.onnx", "first", True], ["1/b.pte", "second", True]]


def test_a_session_without_a_request_yields_only_hello(messages):
    assert list(messages(AGENT, request=None)) == [HELLO]


def test_other_output_is_separated_from_messages(messages):
    script = AGENT.replace("import json", "print('Welcome to Pi!', flush=True); import json") + (
        "sys.stdout.write('no newline'); send(progress=1); print('{\"result\": 9}', flush=True)\n"
        "send(result=1)"
    )
    assert list(messages(script)) == [HELLO, {"progress": 1}, {"result": 1}]


def test_other_output_is_quoted_in_errors(messages):
    with pytest.raises(RuntimeFailedError) as caught:
        list(messages(AGENT + "print('a banner', flush=True); sys.exit(3)"))
    assert "a banner" in caught.value.message


def test_a_truncated_message_is_ignored(messages):
    script = AGENT + "sys.stdout.write('\\x1e{\"result\": [1, 2'); sys.stdout.flush(); sys.exit(3)"
    with pytest.raises(RuntimeFailedError, match="ended with code 3"):
        list(messages(script))


def test_an_error_message_is_raised_in_its_own_class(messages):
    script = AGENT + "send(error={'type': 'ArtifactError', 'message': 'No.', 'remedy': 'Mend it.'})"
    with pytest.raises(ArtifactError) as caught:
        list(messages(script))
    assert (caught.value.message, caught.value.remedy) == ("No.", "Mend it.")


def test_another_protocol_version_is_refused(messages):
    with pytest.raises(RuntimeFailedError, match="has protocol version 4; expected 3"):
        list(messages(AGENT.replace('"protocol": 3', '"protocol": 4')))


@pytest.mark.parametrize(
    ("death", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.abort()", "was ended by SIGABRT"),
        ("sys.exit(7)", "ended with code 7"),
        ("sys.exit(0)", "ended with code 0"),
        ("send(died={'how': 'was ended by SIGKILL'})", "was ended by SIGKILL"),
    ],
)
def test_a_crash_reports_the_signal_the_artifact_and_the_last_output(messages, death, how):
    script = AGENT + (
        f"send(loading='bad.pte'); print('a\\nxnn: boom', file=sys.stderr, flush=True); {death}"
    )
    with pytest.raises(RuntimeFailedError) as caught:
        list(messages(script))
    assert how in caught.value.message
    assert "bad.pte" in caught.value.message
    assert caught.value.message.endswith("Last output:\na\nxnn: boom")
    assert caught.value.remedy


def test_a_process_that_exits_before_reading_is_reported(messages, tmp_path):
    big = tmp_path / "big.onnx"
    big.write_bytes(b"x" * 10_000_000)
    request = Request(task="outputs", artifacts=(big,), inputs=(None,))
    with pytest.raises(RuntimeFailedError, match="ended with code 5"):
        list(messages("import sys; sys.stdin.close(); sys.exit(5)", request=request))


def test_a_missing_command_is_reported():
    started = run_session(
        ["no-such-program"], None, uri="exec:x", timeout_s=5, explain_exit=unknown_exit
    )
    with pytest.raises(RuntimeFailedError, match="no-such-program cannot be run: No such file"):
        list(started)


@pytest.fixture
def impatient(monkeypatch):
    """Allow no time to clean up after the pipe is closed."""
    monkeypatch.setattr(session, "GRACE_S", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "script",
    [
        AGENT + "send(progress=0); time.sleep(600)",
        "import time; time.sleep(600)",  # never reads
        "import os, time; os.fork(); time.sleep(600)",  # a second process holds the pipes as well
    ],
    ids=["silent", "not reading", "forked"],
)
def test_a_silent_process_is_stopped(messages, tmp_path, script):
    big = tmp_path / "big.onnx"
    big.write_bytes(b"x" * 1_000_000)
    request = Request(task="outputs", artifacts=(big,), inputs=(None,))
    began = time.monotonic()
    with pytest.raises(RuntimeFailedError, match=r"sent nothing for 1 s and was stopped"):
        list(messages(script, request=request, timeout_s=1))
    assert time.monotonic() - began < 240


@pytest.mark.usefixtures("impatient")
def test_messages_reset_the_timeout(messages):
    script = AGENT + "[(send(progress=i), time.sleep(0.6)) for i in range(8)]; send(result=1)"
    assert list(messages(script, timeout_s=3))[-1] == {"result": 1}


def test_closing_the_iterator_ends_the_process(messages, tmp_path):
    ready = tmp_path / "pid"
    script = AGENT + (
        f"open({str(ready)!r}, 'w').write(str(os.getpid())); send(progress=0)\nsys.stdin.read()"
    )
    iterator = messages(script)
    next(iterator)
    next(iterator)
    pid = int(ready.read_text())
    iterator.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_request_message_is_complete(messages, request_of_two):
    *_, last = messages(AGENT + "send(result=request)")
    found = last["result"]
    assert [a["file"] for a in found["artifacts"]] == ["0/a.onnx", "1/b.pte"]
    assert [a["label"] for a in found["artifacts"]] == [str(p) for p in request_of_two.artifacts]
    assert found["limit_s"] == 240
    json.dumps(found)
