"""What a database's failure means to Everloop: the one translation from drivers' errors to the error tree."""

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from everloop.core.errors import Conflict, CorruptObject, EverloopError, InvalidInput, StorageFull, Unavailable

_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_READONLY, _SQLITE_IOERR = 5, 6, 8, 10
_SQLITE_CORRUPT, _SQLITE_FULL, _SQLITE_CANTOPEN, _SQLITE_NOTADB = 11, 13, 14, 26
_SQLITE_SHM = {(10 | n << 8) for n in (19, 20, 21)}  # SHMSIZE, SHMLOCK, SHMMAP: the index of the log cannot grow
_NO_SPACE = "No space is left for the database"


def translated(error: DBAPIError, shown: str) -> EverloopError:
    """The error of the tree for a driver's `error`; `shown` is the database's URL without its password.

    What is a defect of ours (wrong SQL, say) becomes a plain `EverloopError`.
    """
    cause = error.orig
    full_code = getattr(cause, "sqlite_errorcode", None)
    if full_code is not None:
        return _of_sqlite(full_code, str(cause), shown) or _other(error)
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return _of_postgresql(state, str(cause), shown) or _other(error)
    if error.connection_invalidated or type(cause).__name__ in {"OperationalError", "ConnectionTimeout"}:
        return Unavailable(
            f"{shown} does not answer: {_line(cause)}", hint="is the database running, and the URL right?"
        )
    return _other(error)


def _of_sqlite(full_code: int, text: str, shown: str) -> EverloopError | None:
    code = full_code & 0xFF
    if code == _SQLITE_FULL or full_code in _SQLITE_SHM:
        return StorageFull(f"{_NO_SPACE} {shown}", hint="free some space and try again; nothing was half written")
    if code in {_SQLITE_BUSY, _SQLITE_LOCKED}:
        return Unavailable(f"{shown} stayed locked by another process", hint="try again; a long transaction is open")
    if code in {_SQLITE_CANTOPEN, _SQLITE_READONLY, _SQLITE_IOERR}:
        return Unavailable(f"{shown}: {text}", hint="check that the file and its folder can be written by this user")
    if code in {_SQLITE_CORRUPT, _SQLITE_NOTADB}:
        return CorruptObject(f"{shown}: {text}", hint="restore the catalog from a backup")
    return None


def _of_postgresql(state: str, text: str, shown: str) -> EverloopError | None:
    if state in {"53100", "53200"}:
        return StorageFull(f"{_NO_SPACE} {shown}", hint="free space on the database's machine and try again")
    if state in {"40001", "40P01"}:
        return Conflict("another transaction came in between", hint="run it again; nothing was written", retry=True)
    if state == "55P03":
        return Unavailable(f"{shown} stayed locked by another transaction", hint="try again")
    if state.startswith("28") or state == "3D000":
        return Unavailable(f"{shown} refuses: {text.splitlines()[0]}", hint="check user, password and database name")
    if state.startswith(("08", "53", "57P")):
        return Unavailable(f"{shown} does not answer: {text.splitlines()[0]}", hint="is the database running?")
    return None


def _unfit(text: str) -> InvalidInput:
    return InvalidInput(f"the database cannot hold a value: {text.splitlines()[0]}", hint="64 bits, text without NUL")


def _other(error: DBAPIError) -> EverloopError:
    if isinstance(error, DataError):  # of PostgreSQL, or of psycopg, which refuses NUL in text itself
        return _unfit(str(error.orig))
    if isinstance(error, IntegrityError):
        return Conflict(
            f"the database refuses the row: {_line(error.orig)}",
            hint="it exists already, or names something that does not",
        )
    return EverloopError(f"the database refuses a statement: {_line(error.orig)}", hint="this is a defect; report it")


def _line(cause: BaseException | None) -> str:
    return (str(cause).splitlines() or [""])[0]
