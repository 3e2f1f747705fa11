# SPDX-License-Identifier: Apache-2.0
"""Google's store, as fsspec is told to open it; see `files`."""

from typing import Any

import aiohttp
import gcsfs

# Nobody answers when a link is cut, and gcsfs would wait for ever. Instead it
# asks again, a few times within half a minute. What is large may take long.
REQUEST_TIMEOUT = aiohttp.ClientTimeout(
  total=None, sock_connect=30.0, sock_read=60.0
)


class Store(gcsfs.GCSFileSystem):
  """gcsfs' client, which gives up on requests that nobody answers."""

  def __init__(self, *args: Any, **options: Any) -> None:
    super().__init__(*args, requests_timeout=REQUEST_TIMEOUT, **options)
