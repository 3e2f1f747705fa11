# SPDX-License-Identifier: Apache-2.0
"""gcp-storage-emulator, with a header that its downloads lack.

TensorStore asks again for what it has read before by its generation, which a
real store tells with each object, and fails where it was never told.
"""

import sys

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_download = objects.download


def _download_with_generation(request, response, storage, *args, **kwargs):
  bucket, name = request.params["bucket_name"], request.params["object_id"]
  try:
    stored = storage.get_file_obj(bucket, name)
    response["x-goog-generation"] = stored["generation"]
  except NotFound:
    pass  # What is asked next says so.
  _download(request, response, storage, *args, **kwargs)


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
  # It makes its table of handlers when it is imported.
  from gcp_storage_emulator.__main__ import main

  sys.exit(main())
