"""Protocol-buffer messages declared in code: only the fields that are read, by their numbers, which never change.

The formats of event files and of W&B's logs are public and stable; so neither TensorBoard nor wandb is needed to read
them, and a file that holds more than is declared here is read all the same.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int64": _FIELD.TYPE_INT64,
    "int32": _FIELD.TYPE_INT32,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
Fields = dict[str, tuple[int, str]]
"""Name -> number and type; `*double` is repeated, a capital letter begins the name of another message."""

Undecodable = DecodeError
"""What parsing raises."""


def declare(package: str, messages: dict[str, Fields], oneofs: dict[str, tuple[str, ...]]) -> dict[str, type[Any]]:
    """Message classes by name. `oneofs` names the fields of a message of which one at most is set."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        if name in oneofs:
            message.oneof_decl.add(name="which")
        for field_name, (number, kind) in fields.items():
            plain = kind.removeprefix("*")
            field = message.field.add(name=field_name, number=number)
            field.label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
            if plain in _TYPES:
                field.type = _TYPES[plain]
            else:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{plain}"
            if field_name in oneofs.get(name, ()):
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name in messages}
    return {name: message_factory.GetMessageClass(one) for name, one in found.items()}
