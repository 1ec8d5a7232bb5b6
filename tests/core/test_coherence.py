"""What fits together in an endpoint revision."""

import pytest

from everloop.core.coherence import check_revision
from everloop.core.ids import object_id

MODEL, OTHER, SERVICE, VIEW, NEWER = (object_id(t) for t in (b"m", b"o", b"s", b"v", b"w"))
MANIFESTS = {
    MODEL: {"service": SERVICE},
    OTHER: {"service": object_id(b"another service")},
    SERVICE: {"views": {"load": VIEW}},
    VIEW: {},
    NEWER: {},
}
REVISION = {"models": {"champion": MODEL}, "service": SERVICE, "views": {"load": VIEW}}


def test_a_revision_whose_parts_fit_is_coherent():
    assert check_revision(REVISION, MANIFESTS) == ()
    assert check_revision({"models": {"champion": NEWER}, "service": None, "views": {}}, MANIFESTS) == ()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"models": {}}, "models"),
        ({"views": None}, "views"),
        ({"models": {"champion": "delay v7"}}, "model:champion"),
        ({"models": {"champion": object_id(b"absent")}}, "model:champion"),
        ({"models": {"champion": MODEL, "challenger": OTHER}}, "model:challenger"),
        ({"views": {"load": NEWER}}, "view:load"),
        ({"views": {}}, "view:load"),
        ({"service": object_id(b"absent")}, "service"),
    ],
)
def test_what_does_not_fit_is_named(change, part):
    assert part in [found.part for found in check_revision({**REVISION, **change}, MANIFESTS)]
