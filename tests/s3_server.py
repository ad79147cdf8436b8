"""An S3 server on loopback: moto, with one bucket. The environment variables lead every S3 client of a test to it."""

from __future__ import annotations

import logging
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET = "eicorpus-test"


def environment(endpoint: str) -> dict[str, str]:
    """Variables of a client of this server."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def running_s3_server() -> Iterator[str]:
    """Its endpoint, with an empty bucket BUCKET. The variables are set while the block runs."""
    from moto.server import ThreadedMotoServer  # slow to import

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    before = {name: os.environ.get(name) for name in environment(endpoint)}
    os.environ.update(environment(endpoint))
    try:
        put_raw(endpoint, "", b"")
        yield endpoint
    finally:
        server.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def put_raw(endpoint: str, key: str, data: bytes) -> None:
    """Make an object, or with no key the bucket, without a client that checks names. The key is percent-encoded."""
    url = f"{endpoint}/{BUCKET}/{key}" if key else f"{endpoint}/{BUCKET}"
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, method="PUT", data=data, headers=headers)
    urllib.request.urlopen(request).close()
