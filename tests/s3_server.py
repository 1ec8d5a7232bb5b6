"""A real S3 server over HTTP (moto's) with one bucket, that can be told to fail one call in ten."""

import threading
from contextlib import contextmanager

import boto3
import httpx2
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "loop"


class Faulty:
    """Answers 503 to every tenth call while `on`, and like S3 to an old token while `expired`."""

    def __init__(self, app):
        self.app, self.calls, self.failed, self.on = app, 0, 0, False
        self.expired = False

    def __call__(self, environ, start_response):
        self.calls += 1
        if self.expired:
            start_response("400 Bad Request", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"]
        if self.on and self.calls % 10 == 0:
            self.failed += 1
            start_response("503 Slow Down", [("Content-Type", "text/plain")])
            return [b"slow down"]
        return self.app(environ, start_response)


@contextmanager
def serving():
    """Run the server; gives its `url`, the `environ` that opens it, and `on` to switch its faults."""
    app = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    app.url = f"http://127.0.0.1:{server.server_port}"
    app.environ = {
        "AWS_ENDPOINT_URL": app.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    app.client = boto3.client(
        "s3", endpoint_url=app.url, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    httpx2.post(f"{app.url}/moto-api/reset").raise_for_status()  # what it stores is the process's, not the server's
    app.client.create_bucket(Bucket=BUCKET)
    try:
        yield app
    finally:
        app.client.close()
        server.shutdown()
        thread.join(10)
        server.server_close()
