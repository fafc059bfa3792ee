"""Make hostile inputs of valid ones. The same random state makes the same input.

Byte mutations find what a parser does with damage. Mutations of values (JSON, YAML) and of members
(zip archives, with right checksums) reach the code behind the parser.
"""

from __future__ import annotations

import io
import json
import zipfile
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    Mutate = Callable[[bytes, Random], bytes]

_INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
_TEXTS = (
    *("", "\0", "\x1b]0;title\x07\x1b[2J", "é\ud7ff\U0001f600", "../../etc/passwd", "/dev/zero"),
    *("a" * 5000, "-1", "1e400", "NaN", "%s%n", "{0.__class__}", "int8", "v2", "inf:1", "\u202e"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, -(2**63), 2**64, 10**30, 10**400, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None], [0] * 2000, {"": {}}),
    *_TEXTS,
)
_TOKENS = (
    *(b"\r", b"\n\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b'"', b"sep=;\n"),
    *(b",,,", b"\t", b":"),
)


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Return the content with up to 16 changed, removed, repeated or inserted stretches."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        random.choice(_BYTE_MUTATIONS)(data, random)
    return bytes(data)


def _flip_bit(data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set_byte(data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))


def _set_integer(data: bytearray, random: Random) -> None:
    """Overwrite an aligned integer: sizes and offsets of flatbuffers, zip archives and images."""
    size = random.choice((2, 4, 8))
    at = random.randrange(len(data)) // size * size
    value = random.choice(_INTERESTING) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, random.choice(("little", "big")))


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _remove(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.randrange(1, 64)]


def _repeat(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    part = data[at : at + random.randrange(1, 64)]
    data[at:at] = part * random.choice((1, 2, 50))


def _insert(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at:at] = random.choice(_TOKENS) + random.randbytes(random.randrange(8))


def _move(data: bytearray, random: Random) -> None:
    at, to = random.randrange(len(data)), random.randrange(len(data))
    size = random.choice((1, 4, 8, 32))
    data[to : to + size] = data[at : at + size]


_BYTE_MUTATIONS = (
    *(_flip_bit, _flip_bit, _set_byte, _set_byte, _set_integer, _set_integer),
    *(_cut, _remove, _repeat, _insert, _move),
)


def mutate_json(content: bytes, random: Random) -> bytes:
    """Return the document with some other values; sometimes with damaged bytes."""
    if random.random() < 0.2:
        return mutate_bytes(content, random)
    document = change_values(json.loads(content), random)
    return json.dumps(document, ensure_ascii=random.random() < 0.9).encode(errors="surrogatepass")


def mutate_yaml(content: bytes, random: Random) -> bytes:
    """Return the document with some other values; sometimes with damaged bytes."""
    if random.random() < 0.3:
        return mutate_bytes(content, random)
    document = change_values(yaml.safe_load(content), random)
    return yaml.safe_dump(document, allow_unicode=True).encode(errors="surrogatepass")


def change_values(document: Any, random: Random) -> Any:
    """Replace, remove, rename or nest some values of a document of lists and dictionaries."""
    holder = [document]
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        place, key = random.choice(list(places(holder)))
        kind = random.randrange(6)
        if kind == 0 and place is not holder:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[random.choice(_TEXTS)] = place.pop(key)
        elif kind == 2:
            place[key] = [deepcopy(place[key]) for _ in range(random.choice((1, 3)))]
        elif kind == 3 and isinstance(place[key], float):
            place[key] *= random.choice((-1, 0, 2, 1e9, 1e-30))
        elif kind == 4:
            other, name = random.choice(list(places(holder)))
            place[key] = deepcopy(other[name])
        else:
            place[key] = deepcopy(random.choice(_VALUES))
    return holder[0]


def places(value: Any) -> Any:
    """Yield (container, key) of every value inside a value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def mutate_zip(content: bytes, random: Random) -> bytes:
    """Return the archive with a damaged, renamed or missing member; sometimes damaged itself."""
    if random.random() < 0.4:
        return mutate_bytes(content, random)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: (info, archive.read(info)) for info in archive.infolist()}
    chosen = random.choice(list(members))
    info, data = members.pop(chosen)
    kind = random.randrange(8)
    if kind == 0:
        members[random.choice(_TEXTS).replace("\0", "") or "x"] = info, data
    elif kind == 1 and data:
        members[chosen] = info, data * random.choice((2, 1000))
    elif kind > 2:
        members[chosen] = info, mutate_bytes(data, random)
    packed = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, (_, member) in members.items():
            archive.writestr(name, member)
    return packed.getvalue()


def mutate_safetensors(content: bytes, random: Random) -> bytes:
    """Return the file with another header, of the right length; sometimes damaged itself."""
    if random.random() < 0.3:
        return mutate_bytes(content, random)
    size = int.from_bytes(content[:8], "little")
    header = mutate_json(content[8 : 8 + size], random)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def mutate_messages(content: bytes, random: Random) -> bytes:
    """Return the JSON text sequence with one other record; sometimes damaged itself."""
    if random.random() < 0.3:
        return mutate_bytes(content, random)
    records = content.split(b"\x1e")
    chosen = random.randrange(1, len(records))
    records[chosen] = mutate_json(records[chosen], random) + b"\n"
    if random.random() < 0.2:
        records.insert(chosen, random.choice(records))
    return b"\x1e".join(records)


def mutate_onnx(content: bytes, random: Random) -> bytes:
    """Return the model with other fields; sometimes damaged itself."""
    if random.random() < 0.5:
        return mutate_bytes(content, random)
    import onnx  # noqa: PLC0415 - the other readers do without

    model = onnx.load_from_string(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        _change_field(model, random)
    return bytes(model.SerializeToString())


def _change_field(model: Any, random: Random) -> None:
    """Change one field, found by a random walk from the root of a protobuf message."""
    message = model
    while True:
        descriptor, value = random.choice(message.ListFields())
        is_list = hasattr(value, "pop")
        if descriptor.message_type is None:
            _set_scalars(message, descriptor, random, is_list=is_list)
            return
        if is_list and random.random() < 0.15:
            kept = random.randrange(len(value))
            value.append(value[kept]) if random.random() < 0.5 else value.pop(kept)
            return
        inner = random.choice(value) if is_list else value
        if not inner.ListFields():
            return
        message = inner


def _set_scalars(message: Any, descriptor: Any, random: Random, *, is_list: bool) -> None:
    old = getattr(message, descriptor.name)
    choices: tuple[Any, ...]
    if descriptor.cpp_type == descriptor.CPPTYPE_STRING:
        is_bytes = descriptor.type == descriptor.TYPE_BYTES
        choices = (b"", b"\xff" * 9) if is_bytes else tuple(t for t in _TEXTS if len(t) < 100)
    elif descriptor.cpp_type in (descriptor.CPPTYPE_FLOAT, descriptor.CPPTYPE_DOUBLE):
        choices = (0.0, -1.0, 1e30, float("nan"), float("inf"))
    elif descriptor.cpp_type == descriptor.CPPTYPE_INT64:
        choices = (0, 1, -1, 3, 7, 1 << 20, 2**31, 2**62, -(2**63))
    else:
        choices = (0, 1, 2, 3, 6, 7, 9, 16, 24)
    value = random.choice(choices)
    if not is_list:
        setattr(message, descriptor.name, value)
    elif old:
        old[random.randrange(len(old))] = value
