"""The messages of the Open Inference Protocol's gRPC service, declared as values.

Source: kserve/open-inference-protocol, `open_inference_grpc.proto`, and the repository extension of Triton. Field
numbers and types are the protocol. They are declared here instead of generated, so that no generated code pins a
version of protobuf, and in a pool of their own, so that a client's copy in the same process does not clash.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}
_PARAMETERS = "InferParameter"
_TENSOR = "name:string datatype:string shape:int64* parameters:{} contents:InferTensorContents"
_LOAD = "repository_name:string model_name:string parameters:{ModelRepositoryParameter}"
_NAMED = "name:string version:string"
_MESSAGES: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string version:string extensions:string*",
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": (
        "name:string versions:string* platform:string "
        "inputs:ModelMetadataResponse.TensorMetadata* outputs:ModelMetadataResponse.TensorMetadata*"
    ),
    "ModelMetadataResponse.TensorMetadata": "name:string datatype:string shape:int64*",
    "InferParameter": (
        "|bool_param:bool |int64_param:int64 |string_param:string |double_param:double |uint64_param:uint64"
    ),
    "InferTensorContents": (
        "bool_contents:bool* int_contents:int32* int64_contents:int64* uint_contents:uint32* uint64_contents:uint64* "
        "fp32_contents:float* fp64_contents:double* bytes_contents:bytes*"
    ),
    "ModelInferRequest": (
        "model_name:string model_version:string id:string parameters:{} inputs:ModelInferRequest.InferInputTensor* "
        "outputs:ModelInferRequest.InferRequestedOutputTensor* raw_input_contents:bytes*"
    ),
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": "name:string parameters:{}",
    "ModelInferResponse": (
        "model_name:string model_version:string id:string parameters:{} outputs:ModelInferResponse.InferOutputTensor* "
        "raw_output_contents:bytes*"
    ),
    "ModelInferResponse.InferOutputTensor": _TENSOR,
    "ModelStreamInferResponse": "error_message:string infer_response:ModelInferResponse",
    "RepositoryIndexRequest": "repository_name:string ready:bool",
    "RepositoryIndexResponse": "models:RepositoryIndexResponse.ModelIndex*",
    "RepositoryIndexResponse.ModelIndex": "name:string version:string state:string reason:string",
    "RepositoryModelLoadRequest": _LOAD,
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": _LOAD,
    "RepositoryModelUnloadResponse": "",
    "ModelRepositoryParameter": "|bool_param:bool |int64_param:int64 |string_param:string |bytes_param:bytes",
}
"""Message -> its fields, numbered from 1: `name:type`, `*` repeated, `{}` a map of text to it, `|` one of several."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="everloop/inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in _MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
        made[name] = message
        for number, field in enumerate(fields.split(), start=1):
            _add(message, name, field, number)
    return file


def _add(message: Any, path: str, text: str, number: int) -> None:
    name, _, kind = text.removeprefix("|").partition(":")
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if text.startswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind.startswith("{"):
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
        value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL)
        _type(value, kind.strip("{}") or _PARAMETERS)
        kind = f"{path}.ParametersEntry*"
    if kind.endswith("*"):
        field.label = _Field.LABEL_REPEATED
    _type(field, kind.removesuffix("*"))


def _type(field: Any, kind: str) -> None:
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


def message(name: str) -> Any:
    """The class of a message, for example `ModelInferRequest`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


METHODS: dict[str, tuple[str, str]] = {
    "ServerLive": ("ServerLiveRequest", "ServerLiveResponse"),
    "ServerReady": ("ServerReadyRequest", "ServerReadyResponse"),
    "ModelReady": ("ModelReadyRequest", "ModelReadyResponse"),
    "ServerMetadata": ("ServerMetadataRequest", "ServerMetadataResponse"),
    "ModelMetadata": ("ModelMetadataRequest", "ModelMetadataResponse"),
    "ModelInfer": ("ModelInferRequest", "ModelInferResponse"),
    "RepositoryIndex": ("RepositoryIndexRequest", "RepositoryIndexResponse"),
    "RepositoryModelLoad": ("RepositoryModelLoadRequest", "RepositoryModelLoadResponse"),
    "RepositoryModelUnload": ("RepositoryModelUnloadRequest", "RepositoryModelUnloadResponse"),
}
"""Calls with one request and one response; `ModelStreamInfer` streams both ways."""
