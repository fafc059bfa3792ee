"""What the agent's process may do to us: crash, hang, babble, die; the command survives it."""

import json
import os
import sys
import time

import pytest

from mobiledeploy.devices import agent_session as session
from mobiledeploy.devices.agent_session import converse
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import ArtifactError, RuntimeFailedError

SAY = """
import json, os, signal, sys, time
def say(**message): print("\\x1e" + json.dumps(message), flush=True)
source = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
say(hello={"protocol": 1})
request = json.loads(sys.stdin.buffer.readline())
"""
HELLO = {"hello": {"protocol": 1}}


def no_idea(code, said, *, greeted):
    """Explain nothing."""


@pytest.fixture
def request_of_two(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"first")
    (tmp_path / "b.pte").write_bytes(b"second")
    paths = (tmp_path / "a.onnx", tmp_path / "b.pte")
    return Request(task="bench", artifacts=paths, inputs=(None, None), rounds=3)


@pytest.fixture
def talk(request_of_two):
    """Hold a session with a script in place of the agent; return what was heard."""

    def with_script(script, request=request_of_two, **options):
        options = {"place": "there", "timeout_s": 240, "explain": no_idea} | options
        return converse([sys.executable, "-c", script], request, **options)

    return with_script


def test_messages_arrive_up_to_the_result(talk):
    script = SAY + "say(progress=0.5); say(result=request['rounds'] + 1); say(progress=9)"
    assert list(talk(script)) == [HELLO, {"progress": 0.5}, {"result": 4}]


def test_the_files_follow_the_request_with_their_sha256(talk):
    script = SAY + (
        "import hashlib\n"
        "files = [(f['name'], f['sha256'], sys.stdin.buffer.read(f['size'])) for f in"
        " request['files']]\n"
        "say(result=[(n, b.decode(), hashlib.sha256(b).hexdigest() == s) for n, s, b in files])"
    )
    *_, last = talk(script)
    assert last["result"] == [["0/a.onnx", "first", True], ["1/b.pte", "second", True]]


def test_without_a_request_it_only_says_hello(talk):
    assert list(talk(SAY, request=None)) == [HELLO]


def test_what_others_print_is_kept_apart(talk):
    script = SAY.replace("import json", "print('Welcome to Pi!', flush=True); import json") + (
        "sys.stdout.write('no newline'); say(progress=1); print('{\"result\": 9}', flush=True)\n"
        "say(result=1)"
    )
    assert list(talk(script)) == [HELLO, {"progress": 1}, {"result": 1}]


def test_what_others_print_is_quoted_when_it_fails(talk):
    with pytest.raises(RuntimeFailedError) as caught:
        list(talk(SAY + "print('a banner', flush=True); sys.exit(3)"))
    assert "a banner" in caught.value.message


def test_a_message_that_is_cut_is_no_message(talk):
    script = SAY + "sys.stdout.write('\\x1e{\"result\": [1, 2'); sys.stdout.flush(); sys.exit(3)"
    with pytest.raises(RuntimeFailedError, match="ended with code 3"):
        list(talk(script))


def test_an_error_of_the_agent_is_raised_in_its_own_class(talk):
    script = SAY + "say(error={'type': 'ArtifactError', 'message': 'No.', 'remedy': 'Mend it.'})"
    with pytest.raises(ArtifactError) as caught:
        list(talk(script))
    assert (caught.value.message, caught.value.remedy) == ("No.", "Mend it.")


def test_another_version_of_the_protocol_is_refused(talk):
    with pytest.raises(RuntimeFailedError, match="speaks version 2 of the protocol; expected 1"):
        list(talk(SAY.replace('"protocol": 1', '"protocol": 2')))


@pytest.mark.parametrize(
    ("death", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.abort()", "was ended by SIGABRT"),
        ("sys.exit(7)", "ended with code 7"),
        ("sys.exit(0)", "ended with code 0"),
        ("say(died={'how': 'was ended by SIGKILL'})", "was ended by SIGKILL"),
    ],
)
def test_a_crash_names_the_signal_the_artifact_and_the_last_words(talk, death, how):
    script = SAY + (
        f"say(loading='bad.pte'); print('a\\nxnn: boom', file=sys.stderr, flush=True); {death}"
    )
    with pytest.raises(RuntimeFailedError) as caught:
        list(talk(script))
    assert how in caught.value.message
    assert "bad.pte" in caught.value.message
    assert caught.value.message.endswith("Its last words:\na\nxnn: boom")
    assert caught.value.remedy


def test_one_that_dies_before_it_listens_is_reported(talk, tmp_path):
    big = tmp_path / "big.onnx"
    big.write_bytes(b"x" * 10_000_000)
    request = Request(task="outputs", artifacts=(big,), inputs=(None,))
    with pytest.raises(RuntimeFailedError, match="ended with code 5"):
        list(talk("import sys; sys.stdin.close(); sys.exit(5)", request=request))


def test_a_command_that_is_not_there_is_reported():
    with pytest.raises(RuntimeFailedError, match="no-such-program cannot be run: No such file"):
        list(converse(["no-such-program"], None, place="there", timeout_s=5, explain=no_idea))


@pytest.fixture
def impatient(monkeypatch):
    """No time to clean up after the end of the pipe."""
    monkeypatch.setattr(session, "GRACE_S", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "script",
    [
        SAY + "say(progress=0); time.sleep(600)",
        "import time; time.sleep(600)",  # never reads what it is sent
        "import os, time; os.fork(); time.sleep(600)",  # a second one holds the pipes as well
    ],
    ids=["silent", "deaf", "two"],
)
def test_one_that_falls_silent_is_stopped(talk, tmp_path, script):
    big = tmp_path / "big.onnx"
    big.write_bytes(b"x" * 1_000_000)
    request = Request(task="outputs", artifacts=(big,), inputs=(None,))
    began = time.monotonic()
    with pytest.raises(RuntimeFailedError, match=r"said nothing for 1 s and was stopped"):
        list(talk(script, request=request, timeout_s=1))
    assert time.monotonic() - began < 240


@pytest.mark.usefixtures("impatient")
def test_one_that_keeps_talking_may_take_longer(talk):
    script = SAY + "[(say(progress=i), time.sleep(0.6)) for i in range(8)]; say(result=1)"
    assert list(talk(script, timeout_s=3))[-1] == {"result": 1}


def test_nobody_is_left_behind_when_nobody_listens_any_more(talk, tmp_path):
    ready = tmp_path / "pid"
    script = SAY + (
        f"open({str(ready)!r}, 'w').write(str(os.getpid())); say(progress=0)\nsys.stdin.read()"
    )
    conversation = talk(script)
    next(conversation)
    next(conversation)
    pid = int(ready.read_text())
    conversation.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_request_holds_all_that_was_asked_for(talk, request_of_two):
    *_, last = talk(SAY + "say(result=request)")
    found = last["result"]
    assert [a["file"] for a in found["artifacts"]] == ["0/a.onnx", "1/b.pte"]
    assert [a["label"] for a in found["artifacts"]] == [str(p) for p in request_of_two.artifacts]
    assert found["limit_s"] == 240
    json.dumps(found)
