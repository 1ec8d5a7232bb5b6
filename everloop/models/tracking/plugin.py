"""What the mlflow client loads from this package, wherever both are installed."""

import secrets


class CallKey:
    """Names every call of the mlflow client (entry point `mlflow.request_header_provider`).

    The client asks once a call, whatever number of times it then sends it; so a server that made a run and whose
    answer was lost makes no second one. Other servers pass the header over.
    """

    def in_context(self) -> bool:
        """Always."""
        return True

    def request_headers(self) -> dict[str, str]:
        """A key that no other call has."""
        return {"Idempotency-Key": secrets.token_hex(16)}
