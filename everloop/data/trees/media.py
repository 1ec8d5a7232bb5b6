"""Media types of files: by the ending of the name, else by the first bytes.

The table is part of what a version's rows say, so it is our own and the same on every machine: no system file is read.
"""

from collections.abc import Mapping

UNKNOWN = "application/octet-stream"
HEAD = 16
"""First bytes of a file that `media_type` looks at."""

_ENDINGS: Mapping[str, str] = {
    "3gp": "video/3gpp",
    "aac": "audio/aac",
    "aif": "audio/aiff",
    "aiff": "audio/aiff",
    "avi": "video/x-msvideo",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "csv": "text/csv",
    "dcm": "application/dicom",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "flac": "audio/flac",
    "gif": "image/gif",
    "gz": "application/gzip",
    "heic": "image/heic",
    "htm": "text/html",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "m4a": "audio/mp4",
    "m4v": "video/mp4",
    "md": "text/markdown",
    "mid": "audio/midi",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "npy": "application/x-npy",
    "npz": "application/x-npz",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "png": "image/png",
    "py": "text/x-python",
    "rst": "text/x-rst",
    "rtf": "application/rtf",
    "srt": "application/x-subrip",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "tsv": "text/tab-separated-values",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
    "zst": "application/zstd",
}
_BEGINNINGS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftyp", "video/mp4"),
)


def media_type(path: str, head: bytes) -> str:
    """The media type of a file with this name, whose content begins with `head`; `UNKNOWN` for other things."""
    found = _ENDINGS.get(path.rpartition("/")[2].rpartition(".")[2].lower())
    if found is None:
        found = next((media for at, begin, media in _BEGINNINGS if head.startswith(begin, at)), UNKNOWN)
    return found


def is_text(media: str) -> bool:
    """Whether people can read the bytes as they are."""
    return media.startswith("text/") or media in (
        "application/json",
        "application/jsonl",
        "application/xml",
        "application/yaml",
        "application/x-subrip",
        "image/svg+xml",
    )
