"""Content-addressed objects: bytes, known by the digest of what they are. One small module a verb."""

from everloop.store.directory import DirectoryStore
from everloop.store.location import access, open_store
from everloop.store.sweep import Swept
from everloop.store.transfer import transfer

__all__ = ["DirectoryStore", "Swept", "access", "open_store", "transfer"]
