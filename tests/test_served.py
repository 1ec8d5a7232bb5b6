"""The same project, unchanged, on PostgreSQL and a bucket: one whole turn of the loop on real processes."""

import loop_story
import pytest
import s3_server

from everloop.catalog.verify import verify
from everloop.core.errors import PermissionDenied, PolicyRefused
from everloop.store.bucket import BucketStore


@pytest.fixture(scope="module")
def bucket():
    """An S3 server with an empty bucket."""
    with s3_server.serving() as server:
        yield server


def test_one_turn_of_the_loop_on_postgresql_and_a_bucket(bucket, postgresql_url, tmp_path, monkeypatch):
    elsewhere = {
        **bucket.environ,
        "EVERLOOP_DATABASE": postgresql_url,
        "EVERLOOP_OBJECTS": f"s3://{s3_server.BUCKET}/shop",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    story = loop_story.tell(tmp_path / "shop", **elsewhere)
    try:
        assert isinstance(story.early, PolicyRefused)
        assert isinstance(story.own, PermissionDenied | PolicyRefused)
        assert {reply.status_code for reply, _ in story.answers} == {200}
        assert story.alarms
        assert story.retrained.state == "done"
        assert story.back.serving == story.live.target
        workspace = story.shop.workspace
        assert isinstance(workspace.store, BucketStore)
        assert len(list(workspace.store.ids())) > 20
        assert not (story.shop.home / "objects").exists()
        assert not (story.shop.home / "catalog.sqlite").exists()
        assert verify(workspace.catalog, workspace.store, key=workspace.key.public) == []
        assert story.shop.down() == 0
    finally:
        story.shop.close()
