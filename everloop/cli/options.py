"""The options that come before the command, as given on this line."""

from typing import Any

given: dict[str, Any] = {}
"""Setting -> value. They come over environment variables, which come over `everloop.toml`."""
