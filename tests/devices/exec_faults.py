"""Faults of `exec:` devices, and of options that do not fit a device."""

import os
import sys

from faults import CORRUPTER, CRASH, RAISE, mount_tiny, registry, when_loading, when_running
from real_parts import program

from mobiledeploy.devices import agent_session as session
from mobiledeploy.devices.qemu import plugin as qemu_plugin

FAULTS = {}
fault = registry(FAULTS)

HANG = "#!/bin/sh\nsleep 1000\n"


@fault(2, "exec: has no command")
def exec_has_no_command(_):
    return ["exec:"]


@fault(2, "No closing quotation")
def exec_quotation_is_not_closed(_):
    return ["exec:python 'x"]


@fault(2, "'telnet://pi' is not a device")
def unknown_kind_of_device(_):
    return ["telnet://pi"]


@fault(4, "no-such-program cannot be run: No such file")
def exec_command_does_not_exist(_):
    return ["exec:no-such-program"]


@fault(4, "ended with code 3 before Python started. Last output: not today")
def exec_command_is_not_python(place):
    return [f"exec:{place.script('refuse', '#!/bin/sh' + chr(10) + 'echo not today >&2; exit 3')}"]


@fault(4, "sent nothing for 1 s and was stopped")
def exec_command_hangs(place):
    session.GRACE_S = 0.5
    return [f"exec:{place.script('hang', HANG)}", "--timeout", "1"]


@fault(4, "Python 3.9 or later is needed; this is Python")
def exec_python_is_too_old(place):
    return [place.python("import sys; sys.version_info = (3, 8, 0)")]


@fault(4, "float.onnx needs onnxruntime, which cannot be imported .* device setup")
def exec_has_no_runtime(place):
    return [place.python("import sys; sys.modules['onnxruntime'] = None")]


@fault(4, "A module cannot be imported on the device: .*numpy")
def exec_has_no_numpy(place):
    return [place.python("import sys; sys.modules['numpy'] = None")]


@fault(4, r"was ended by SIGSEGV. The last artifact that it began to load is .*float\.onnx")
def exec_runtime_crashes_while_loading(place):
    return [place.python(when_loading(CRASH))]


@fault(4, "was ended by SIGABRT")
def exec_runtime_aborts_while_running(place):
    return [place.python(when_running("os.abort()"))]


@fault(4, "was ended by SIGKILL")
def exec_runs_out_of_memory(place):
    """The kernel then sends SIGKILL to the process that runs the artifacts."""
    return [place.python(when_running("os.kill(os.getpid(), signal.SIGKILL)"))]


@fault(4, "was ended by SIGKILL")
def exec_agent_is_killed(place):
    kill = "(os.kill(os.getppid(), signal.SIGKILL), time.sleep(1000))"
    return [place.python(when_running(kill))]


@fault(4, "took more than 2 s and was stopped")
def exec_runtime_hangs(place):
    return [place.python(when_running("time.sleep(1000)")), "--timeout", "2"]


@fault(4, "ONNX Runtime failed while running .*: no luck")
def exec_runtime_fails(place):
    return [place.python(when_running(RAISE))]


@fault(1, r"differ from this machine.*SQNR -39.8 dB")
def exec_runtime_computes_wrong_outputs(place):
    return [place.python(when_running("[-x for x in run(*a)]"))]


@fault(3, "ONNX Runtime .* cannot load .*float.onnx: no luck")
def exec_runtime_rejects_the_model(place):
    return [place.python(when_loading(RAISE))]


@fault(4, "has [0-9]+ bytes free; [0-9]+ are needed")
def exec_disk_is_full(place):
    mount_tiny(place.tmp)
    return [place.python()]


@fault(4, "Could not write .* on the device: File too large")
def exec_file_cannot_be_written(place):
    return [place.python(before="prlimit --fsize=4096")]


@fault(4, "arrived damaged: its sha256 is")
def exec_file_is_damaged_in_transit(place):
    corrupter = place.script("corrupter.py", CORRUPTER)
    return [place.python(before=f"{sys.executable} {corrupter} flip")]


@fault(4, "arrived damaged: its sha256 is")
def exec_connection_is_cut_while_sending(place):
    corrupter = place.script("corrupter.py", CORRUPTER)
    return [place.python(before=f"{sys.executable} {corrupter} cut")]


@fault(0, "0 of 60 outputs differ")
def exec_prints_between_the_messages(place):
    noise = "(os.write(1, b'noise'), print('{\"result\": 1}'), run(*a))[-1]"
    return [place.python("print('Welcome!', flush=True)", when_running(noise))]


@fault(2, r"cannot be bound to the cores \[4095\]")
def exec_has_fewer_cores(place):
    return [place.python(), "--cpu-affinity", "4095"]


@fault(2, "--python applies to ssh:// devices only")
def exec_gets_python_option(place):
    return [place.python(), "--python", "python3"]


@fault(4, "Instructions cannot be counted on this device: it does not run under a QEMU")
def exec_does_not_count_instructions(place):
    return [place.python(), "--count-instructions"]


@fault(4, r"ended with code 1 before Python started. Last output: .*ould not load plugin")
def exec_qemu_cannot_load_the_plugin(place):
    program("qemu-aarch64", "qemu-user")
    os.environ["MOBILEDEPLOY_CACHE"] = str(place.tools)
    qemu_plugin.build().write_bytes(b"nothing")
    return ["exec:qemu-aarch64 /no/python", "--count-instructions"]


@fault(4, "could not be compiled with `/nowhere/cc`. Last output: .*No such file")
def no_compiler_for_the_plugin(place):
    os.environ |= {"MOBILEDEPLOY_CACHE": str(place.tools / "cache"), "CC": "/nowhere/cc"}
    return [place.python(), "--count-instructions"]
