"""Debian packages for tests."""

import io
import lzma
import tarfile


def package(files):
    """Return a Debian package: a Unix archive with a compressed tar archive in it.

    Args:
        files: Name -> content; None for a link to the file "api.h" beside it.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data or b"")
            if data is None:
                entry.type, entry.size, entry.linkname = tarfile.SYMTYPE, 0, "api.h"
            tar.addfile(entry, io.BytesIO(data or b""))
    data = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        ("data.tar.xz", lzma.compress(packed.getvalue())),
    ):
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    return data
