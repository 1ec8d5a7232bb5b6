"""What nobody foresaw: an id for whoever asked, and under that id the rest in the process's log."""

import secrets
import sys
import time
import traceback

from everloop.core.errors import EverloopError, unforeseen


def told(request: str, error: Exception) -> EverloopError:
    """Write a fault to the log (its id, the request, where it was raised) and return what callers may know of it."""
    identity = f"fault-{secrets.token_hex(4)}"
    raised = "".join(traceback.format_exception(error))
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {identity}: {request}\n{raised}")
    sys.stderr.flush()
    return unforeseen(identity)
