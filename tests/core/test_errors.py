"""The one error tree is what its docstring draws."""

import re

from everloop.core import errors
from everloop.core.errors import EverloopError, StorageFull


def test_the_drawing_is_the_tree():
    drawn = dict(re.findall(r"(\w+)\s+\d{3}\s+(\w+)", errors.__doc__))
    real = {
        name: thing.code
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, EverloopError)
    }
    statuses = dict(re.findall(r"(\w+)\s+(\d{3})\s+\w+", errors.__doc__))
    assert drawn == real
    assert {name: int(status) for name, status in statuses.items()} == {n: getattr(errors, n).status for n in real}
    assert len(set(real.values())) == len(real)


def test_a_problem_is_rfc_9457():
    assert StorageFull("full", hint="free some", where="here").problem() == {
        "type": "urn:everloop:error:storage_full",
        "title": "StorageFull",
        "status": 507,
        "detail": "full",
        "code": "storage_full",
        "hint": "free some",
        "details": {"where": "here"},
    }
    assert set(EverloopError("x").problem()) == {"type", "title", "status", "detail", "code"}
