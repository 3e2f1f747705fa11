# SPDX-License-Identifier: Apache-2.0
import socket
import threading

import aiohttp
import fsspec
import pytest

from realm_jax import files, gcs

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("url", ["gs://bucket/a", "gcs://bucket/a"])
def test_a_url_is_opened_by_the_client_with_time_outs(url):
  assert files.is_url(url)
  assert fsspec.get_filesystem_class(url.partition(":")[0]) is gcs.Store


def test_a_request_that_nobody_answers_is_asked_again(monkeypatch):
  limits = aiohttp.ClientTimeout(total=None, sock_read=1.0)
  monkeypatch.setattr(gcs, "REQUEST_TIMEOUT", limits)
  with socket.create_server(("127.0.0.1", 0)) as server:
    asked = []

    def answer_all_but_the_first():
      for connection in iter(lambda: server.accept()[0], None):
        asked.append(connection)
        if len(asked) > 1:
          connection.recv(1 << 16)
          connection.sendall(NOT_FOUND)

    threading.Thread(target=answer_all_but_the_first, daemon=True).start()
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    store = gcs.Store(
      endpoint_url=address, token="anon", skip_instance_cache=True
    )
    with pytest.raises(FileNotFoundError):
      fsspec.asyn.sync(store.loop, store._call, "GET", "b/bucket/o/name")
    assert len(asked) > 1
