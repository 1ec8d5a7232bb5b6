"""The operations of folders: the files of a version, and what one looks like."""

from everloop import data
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, operation
from everloop.core.errors import PermissionDenied
from everloop.core.grants import Target
from everloop.data import trees
from everloop.data.heads import find_version
from everloop.data.operations import OfData

MOST = 1000


class ListFiles(OfData):
    """Files of a version of a folder, in order of path; `prefix` is what their paths begin with."""

    prefix: str = ""
    offset: int = 0
    limit: int = 100


class FileRow(Answer):
    """One file."""

    path: str
    size: int
    media_type: str
    digest: str


class FileList(Answer):
    """Some files of a version."""

    id: str
    name: str
    number: int
    files: int
    """How many begin with the prefix."""
    bytes: int
    items: list[FileRow]


class OfFile(OfData):
    """One file of a version; `edge` is the side of a thumbnail in pixels."""

    path: str
    edge: int = 256


class PreviewView(Answer):
    """What a file looks like."""

    path: str
    size: int
    media_type: str
    kind: str
    text: str
    image: str
    audio: str
    width: int
    height: int
    note: str


def _on(ctx: Context, cmd: OfData) -> Target:
    return Target("data", find_version(ctx, cmd.version, cmd.environment).name, cmd.environment)


def _on_list(ctx: Context, cmd: ListFiles) -> Target:
    return _on(ctx, cmd)


def _on_file(ctx: Context, cmd: OfFile) -> Target:
    return _on(ctx, cmd)


@operation("data.files", needs="read", on=_on_list, audit="denied", reads=True, engine=True)
def list_files(ctx: Context, cmd: ListFiles) -> FileList:
    """The files of a version of a folder."""
    row = find_version(ctx, cmd.version, cmd.environment)
    tree = trees.open_tree(ctx, row.id)
    found = [file for file in tree if file.path.startswith(cmd.prefix)]
    start = max(cmd.offset, 0)
    return FileList(
        id=row.id,
        name=row.name,
        number=row.number,
        files=len(found),
        bytes=sum(file.size for file in found),
        items=[
            FileRow(path=file.path, size=file.size, media_type=file.media_type, digest=file.digest)
            for file in found[start : start + min(max(cmd.limit, 0), MOST)]
        ],
    )


@operation("data.preview", needs="read", on=_on_file, audit="denied", reads=True, engine=True)
def preview_file(ctx: Context, cmd: OfFile) -> PreviewView:
    """A thumbnail of an image, the beginning of a text, a short recording.

    A tag on `digest` says that contents are not to be shown.
    """
    row = find_version(ctx, cmd.version, cmd.environment)
    tag = data.manifest_of(ctx, row.id)["tags"].get("digest")
    if tag is not None:
        raise PermissionDenied(f"the files of data/{row.name} are tagged {tag}", hint="check them out to see them")
    shown = trees.preview(trees.open_tree(ctx, row.id), cmd.path, min(max(cmd.edge, 16), 1024))
    return PreviewView(**{name: getattr(shown, name) for name in PreviewView.model_fields})
