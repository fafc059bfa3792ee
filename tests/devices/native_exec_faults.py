"""Faults of the native runner on `exec:` devices, and of `--runner` itself."""

import sys

from faults import CORRUPTER, mount_tiny, registry
from native_faults import replace_file

FAULTS = {}
fault = registry(FAULTS)


@fault(4, "There is no native runner for .* on this machine. Try: Run `mobiledeploy device setup")
def exec_runner_is_not_set_up(place):
    return place.exec()


@fault(4, "ended with code 3 before the native runner started. Last output: not today")
def exec_command_does_not_run_the_runner(place):
    place.in_cache()
    script = place.script("refuse", "#!/bin/sh\necho not today >&2; exit 3\n")
    return [f"exec:{script}", "--runner", "native"]


@fault(4, "ended with code 12[67] before the native runner started")
def exec_runner_is_for_another_processor(place):
    bundle = place.in_cache()
    [loader] = bundle.folder.glob("ld-linux-*")
    replace_file(bundle, loader.name, b"\x7fELF\x02\x01\x01" + bytes(100))
    return place.exec()


@fault(4, "ended with code 127 before the native runner started. Last output: .*cannot open")
def exec_program_is_missing(place):
    (place.in_cache().folder / "runner").unlink()
    return place.exec()


@fault(4, "float.onnx needs onnxruntime, which cannot be loaded on the device: .*No such file")
def exec_runtime_is_missing(place):
    (place.in_cache().folder / "libonnxruntime.so.1").unlink()
    return place.exec()


@fault(4, "needs onnxruntime, which cannot be loaded on the device: .*invalid ELF header")
def exec_runtime_is_damaged(place):
    replace_file(place.in_cache(), "libonnxruntime.so.1", b"nonsense" * 100)
    return place.exec()


@fault(4, r"was ended by SIGSEGV. The last artifact that it began to load is .*float\.onnx")
def exec_runtime_crashes_while_loading(place):
    place.breaks(place.in_cache(), AT_LOAD="crash")
    return place.exec()


@fault(4, "was ended by SIGABRT")
def exec_runtime_aborts_while_running(place):
    place.breaks(place.in_cache(), ACT="stop")
    return place.exec()


@fault(4, "was ended by SIGKILL")
def exec_runs_out_of_memory(place):
    """The kernel then sends SIGKILL to the process that runs the artifacts."""
    place.breaks(place.in_cache(), ACT="memory")
    return place.exec()


@fault(4, "was ended by SIGKILL")
def exec_runner_is_killed(place):
    place.breaks(place.in_cache(), ACT="parent")
    return place.exec()


@fault(4, "took more than 2 s and was stopped")
def exec_runtime_hangs(place):
    place.breaks(place.in_cache(), ACT="hang")
    return [*place.exec(), "--timeout", "2"]


@fault(4, "ONNX Runtime failed while running .*: no luck")
def exec_runtime_fails(place):
    place.breaks(place.in_cache(), AT_RUN="refuse")
    return place.exec()


@fault(3, "ONNX Runtime 1.32.0 cannot load .*float.onnx: no luck")
def exec_runtime_rejects_the_model(place):
    place.breaks(place.in_cache(), AT_CREATE="refuse")
    return place.exec()


@fault(1, "differ from this machine.*SQNR -39.8 dB")
def exec_runtime_computes_wrong_outputs(place):
    place.breaks(place.in_cache(), "-DNEGATE")
    return place.exec()


@fault(0, "0 of 60 outputs differ")
def exec_runtime_prints_between_the_messages(place):
    place.breaks(place.in_cache(), ACT="noise")
    return place.exec()


@fault(4, "has [0-9]+ bytes free; [0-9]+ are needed")
def exec_disk_is_full(place):
    place.in_cache()
    mount_tiny(place.tmp)
    return place.exec()


@fault(4, "Could not write .* on the device: No such file")
def exec_temporary_folder_does_not_exist(place):
    place.in_cache()
    return ["exec:env TMPDIR=/nowhere", "--runner", "native"]


@fault(4, "Could not write .* on the device: File too large")
def exec_file_cannot_be_written(place):
    place.in_cache()
    return place.exec("prlimit --fsize=4096")


@fault(4, "arrived damaged: its sha256 is")
def exec_file_is_damaged_in_transit(place):
    place.in_cache()
    return place.exec(f"{sys.executable} {place.script('corrupter.py', CORRUPTER)} flip")


@fault(4, "arrived damaged: its sha256 is")
def exec_connection_is_cut_while_sending(place):
    place.in_cache()
    return place.exec(f"{sys.executable} {place.script('corrupter.py', CORRUPTER)} cut")


@fault(2, r"cannot be bound to the cores \[4095\]; it may use \[")
def exec_has_fewer_cores(place):
    place.in_cache()
    return [*place.exec(), "--cpu-affinity", "4095"]


@fault(4, "Instructions cannot be counted on this device: it does not run under a QEMU")
def exec_does_not_count_instructions(place):
    place.in_cache()
    return [*place.exec(), "--count-instructions"]


@fault(2, "--runner native and another --runner exclude one another")
def two_kinds_of_runners(place):
    return [*place.exec(), "--runner", "executor_runner"]


@fault(2, "The device local runs artifacts in the Python of mobiledeploy")
def local_gets_the_native_runner(_):
    return ["local", "--runner", "native"]
