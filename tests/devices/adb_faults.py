"""Faults of `adb://` devices, and of their `--runner`."""

import os

from faults import registry, when

FAULTS = {}
fault = registry(FAULTS)


@fault(4, "adb is not installed. Try: Install Android's platform-tools")
def adb_is_not_installed(place):
    os.environ["PATH"] = str(place.tools)
    return ["adb://"]


@fault(4, "adb finds no phone. Try: Enable USB debugging")
def adb_finds_no_phone(_):
    return ["adb://"]


@fault(2, r"adb finds several phones: .* \(device\), .* \(device\). Try: Choose one")
def adb_finds_several_phones(place):
    place.phones()
    place.phones()
    return ["adb://"]


@fault(2, "adb finds no phone emulator-5554; it finds 127.0.0.1:")
def adb_finds_another_phone(place):
    place.phones()
    return ["adb://emulator-5554"]


@fault(4, "is 'unauthorized'; expected 'device'. Try: Unlock it and allow USB debugging")
def adb_phone_is_unauthorized(place):
    place.phones("unauthorized")
    return ["adb://"]


@fault(4, "is 'offline'; expected 'device'. Try: Unplug it")
def adb_phone_is_offline(place):
    return [f"adb://{place.phones('offline').serial}"]


@fault(2, "No --runner is onnxruntime_perf_test, which runs .onnx files on Android")
def adb_runner_is_for_another_format(place):
    place.phones()
    return ["adb://", "--runner", str(place.script("executor_runner", "#!/bin/sh"))]


@fault(2, "--runner .*/other is not a runner")
def adb_runner_is_another_program(place):
    place.phones()
    return ["adb://", "--runner", str(place.script("other", "#!/bin/sh"))]


@fault(2, "--runner PATH applies to adb:// devices only")
def exec_gets_runner_option(place):
    return [place.python(), "--runner", "onnxruntime_perf_test"]


@fault(4, "`adb .* push .* ended with code 1")
def adb_connection_is_cut_while_sending(place):
    place.phones().cut_after_bytes = 1000
    return with_runner(place, "sleep 1")


@fault(4, "No space left on device")
def adb_disk_is_full(place):
    place.phones().disk_is_full = True
    return with_runner(place, "sleep 1")


@fault(4, "arrived damaged on adb://: its sha256 is")
def adb_file_is_damaged_in_transit(place):
    place.phones().flips_a_byte = True
    return with_runner(place, "sleep 1")


@fault(4, "on adb:// ended with code 139")
def adb_runner_crashes(place):
    place.phones()
    return with_runner(place, "kill -SEGV $$")


@fault(4, "on adb:// ended with code 126. Last output: .*Exec format error")
def adb_runner_is_for_another_processor(place):
    place.phones()
    runner = place.tools / "onnxruntime_perf_test"
    runner.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    return ["adb://", "--runner", str(runner)]


@fault(4, "does not print its times. Last output: all is well")
def adb_runner_prints_something_else(place):
    place.phones()
    return with_runner(place, "echo all is well")


@fault(4, "`adb shell` took more than 5 s and was stopped")
def adb_runner_hangs(place):
    place.phones()
    return [*with_runner(place, "exec sleep 1000"), "--timeout", "5"]


@fault(4, "The connection to adb:// broke")
def adb_connection_is_cut_while_running(place):
    phone = place.phones()
    when(place.tools / "cut", phone.cut)
    return with_runner(place, f"touch {place.tools / 'cut'}; exec sleep 1000")


def with_runner(place, script):
    """Return a phone with a perf_test that is a shell script."""
    runner = place.script("onnxruntime_perf_test", f"#!/bin/sh\n{script}\n")
    return ["adb://", "--runner", str(runner)]
