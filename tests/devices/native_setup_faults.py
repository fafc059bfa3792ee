"""Faults of `device setup`, which installs the native runner."""

import os
import shutil
from pathlib import Path

from faults import mount_tiny, registry
from native_faults import built_folder

from mobiledeploy.devices.native.bundle import Bundle, runner_key, write_bundle

FAULTS = {}
fault = registry(FAULTS)


@fault(2, "telnet://pi cannot be set up")
def setup_of_an_unknown_device(_):
    return ["telnet://pi"]


@fault(4, "There is no C.. compiler for")
def setup_without_a_compiler(place):
    os.environ["PATH"] = str(place.tools)
    os.environ["CXX"] = "/nowhere/c++"
    return ["exec:env"]


@fault(2, "is not a bundle of the native runner")
def setup_with_another_file(place):
    return ["exec:env", "--bundle", str(place.artifact)]


@fault(2, "runs Darwin; the native runner needs Linux")
def setup_of_a_mac(place):
    place.script("uname", "#!/bin/sh\necho Darwin\n")
    return [over(place, f"PATH={place.tools}:$PATH"), *bundled(place)]


@fault(2, "is for x86_64; adb:// has aarch64|is for aarch64; adb:// has x86_64")
def setup_with_a_bundle_for_another_processor(place):
    place.phones(architecture="aarch64" if os.uname().machine == "x86_64" else "x86_64")
    return ["adb://", *bundled(place)]


@fault(4, "could not install .*No space left on device")
def setup_over_ssh_fills_the_disk(place):
    place.home.mkdir()
    mount_tiny(place.home)
    return [place.ssh.uri, *bundled(place)]


@fault(4, "could not install .*mkdir: cannot create directory")
def setup_over_ssh_cannot_write(place):
    place.home.touch()
    return [place.ssh.uri, *bundled(place)]


@fault(4, "could not install .*(arrived damaged|tar: )")
def setup_over_adb_is_damaged_in_transit(place):
    place.phones().flips_input = True
    return ["adb://", *bundled(place)]


@fault(4, "could not install or find the native runner")
def setup_over_adb_is_cut_while_sending(place):
    place.phones().cut_input_after_bytes = 1_000_000
    return ["adb://", *bundled(place)]


@fault(4, "could not install .*tar: not found|could not install .*tar: No such")
def setup_of_a_phone_without_tar(place):
    phone = place.phones()
    tools = place.tools / "phone"
    tools.mkdir()
    for name in ("sh", "sha256sum", "mkdir", "rm", "mv", "echo", "readlink"):
        (tools / name).symlink_to(shutil.which(name))
    uname = Path(phone.environment["PATH"].split(":")[0]) / "uname"
    (tools / "uname").symlink_to(uname)
    phone.environment["PATH"] = str(tools)
    return ["adb://", *bundled(place)]


def bundled(place):
    """Return the options that pass this machine's runner as a file."""
    path = place.built / f"bundle-{os.uname().machine}-{runner_key()}.tar.gz"
    if not path.exists():
        write_bundle(Bundle.open(built_folder(place.built)), path)
    return ["--bundle", str(path)]


def over(place, variables):
    """Return the ssh server; its commands run with other variables."""
    client = place.tools / "ssh"
    real = place.ssh.folder / "bin" / "ssh"
    client.write_text(
        "#!/bin/sh\nfor last; do :; done\ncase $last in sh*) n=$#; i=0\n"
        "for word; do i=$((i+1)); [ $i = 1 ] && set --; "
        f'[ $i = $n ] && word="{variables.replace("$", chr(92) + "$")} $word"; '
        'set -- "$@" "$word"; done;; esac\n'
        f'exec {real} "$@"\n'
    )
    client.chmod(0o755)
    os.environ["PATH"] = f"{place.tools}:{os.environ['PATH']}"
    return place.ssh.uri
