# SPDX-License-Identifier: Apache-2.0
"""gcp-storage-emulator, with two things that it lacks.

TensorStore asks again for what it has read before by its generation, which a
real store tells with each object, and fails where it was never told. And gcsfs
ends a part of an upload by a line feed, which the emulator takes together with
a carriage return before it, the last byte of one upload of binary data in 256.
"""

import sys

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_download = objects.download
_read_raw_data = server._read_raw_data
_GCSFS_BOUNDARY = b"\n--==0=="


def _download_with_generation(request, response, storage, *args, **kwargs):
  bucket, name = request.params["bucket_name"], request.params["object_id"]
  try:
    stored = storage.get_file_obj(bucket, name)
    response["x-goog-generation"] = stored["generation"]
  except NotFound:
    pass  # What is asked next says so.
  _download(request, response, storage, *args, **kwargs)


def _read_parts_that_end_in_two_bytes(request_handler):
  data = _read_raw_data(request_handler)
  if request_handler.headers.get_content_type() == "multipart/related":
    return data.replace(_GCSFS_BOUNDARY, b"\r" + _GCSFS_BOUNDARY)
  return data


def environment(address: str) -> dict[str, str]:
  """Returns what makes the clients of Google's store ask this one."""
  return {
    "STORAGE_EMULATOR_HOST": address,
    "TENSORSTORE_GCS_HTTP_URL": address,
    # Nothing is to be asked of Google, from a machine that may be offline.
    "NO_GCE_CHECK": "true",
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
  }


if __name__ == "__main__":
  objects.download = _download_with_generation
  server._read_raw_data = _read_parts_that_end_in_two_bytes
  # It makes its table of handlers when it is imported.
  from gcp_storage_emulator.__main__ import main

  sys.exit(main())
