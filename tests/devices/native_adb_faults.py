"""Faults of the native runner on `adb://` devices."""

from faults import registry, when
from native_faults import replace_file

FAULTS = {}
fault = registry(FAULTS)


@fault(
    4, "adb:// has no native runner of this version. Try: Run `mobiledeploy device setup adb://`"
)
def adb_runner_is_not_set_up(place):
    place.phones()
    return ["adb://"]


@fault(2, "There is no Python on Android")
def adb_gets_the_python_runner(place):
    place.phones()
    return ["adb://", "--runner", "python"]


@fault(4, "on adb:// ended with code 126 before it started. Last output: .*Permission denied")
def adb_policy_forbids_to_run_the_runner(place):
    bundle = place.on_phone(place.phones())
    [loader] = bundle.folder.glob("ld-linux-*")
    content = loader.read_bytes()
    replace_file(bundle, loader.name, content)
    loader.chmod(0o644)  # root may not run it either
    return ["adb://"]


@fault(4, "was ended by SIGSEGV. The last artifact that it began to load is .*float.onnx")
def adb_runtime_crashes(place):
    place.breaks(place.on_phone(place.phones()), AT_CREATE="fatal")
    return ["adb://"]


@fault(4, "was ended by SIGKILL")
def adb_phone_kills_the_runtime(place):
    place.breaks(place.on_phone(place.phones()), ACT="memory")
    return ["adb://"]


@fault(4, "took more than 3 s and was stopped")
def adb_runtime_hangs(place):
    place.breaks(place.on_phone(place.phones()), ACT="hang")
    return ["adb://", "--timeout", "3"]


@fault(4, "The connection to adb:// broke. .*Check the cable")
def adb_connection_is_cut_while_running(place):
    phone, mark = place.phones(), place.tools / "mark"
    place.breaks(place.on_phone(phone), f'-DMARK="{mark}"', ACT="hang")
    when(mark, phone.cut)
    return ["adb://"]


@fault(4, "The connection to adb:// broke")
def adb_connection_is_cut_while_sending(place):
    phone = place.phones()
    place.on_phone(phone)
    phone.cut_input_after_bytes = 20_000
    return ["adb://"]


@fault(1, "differ from this machine.*SQNR -39.8 dB")
def adb_runtime_computes_wrong_outputs(place):
    place.breaks(place.on_phone(place.phones()), "-DNEGATE")
    return ["adb://"]


@fault(2, r"cannot be bound to the cores \[4095\]")
def adb_has_fewer_cores(place):
    place.on_phone(place.phones())
    return ["adb://", "--cpu-affinity", "4095"]
