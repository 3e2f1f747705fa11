# SPDX-License-Identifier: Apache-2.0
"""Every test runs on 8 simulated CPU devices, with strict shapes."""

import os

# Compiling is most of a test's time: spare LLVM's optimiser. Subprocesses
# inherit it.
os.environ["XLA_FLAGS"] = (
  "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
  + os.environ.get("XLA_FLAGS", "")
)

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

from etils import epath
import fsspec
import jax
import pytest

from realm_jax.data import corpus, corpus_build, tokenize
from realm_jax.data.records import Document
from tests import gcs_server

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def tiny_documents() -> list[Document]:
  """40 made-up countries: facts in 3 to 8 short sentences each."""
  syllables = ["ba", "ko", "ri", "mu", "te", "sa", "lo", "ni"]
  names = [
    (syllables[i % 8] + syllables[(i // 8 + i) % 8] + "dia").capitalize()
    for i in range(40)
  ]
  documents = []
  for i, name in enumerate(names):
    capital = (syllables[(3 * i) % 8] + syllables[i // 8] + "ton").capitalize()
    sentences = [
      f"The capital of {name} is {capital}.",
      f"It became free on {i % 28 + 1} May {1800 + 3 * i}.",
      f"{100 + 7 * i} km of road lead to {names[(i + 1) % 40]}.",
    ]
    sentences += [
      f"In {1900 + j} the harvest fell by {i + j}%." for j in range(i % 6)
    ]
    documents.append(
      Document(title=name, text=" ".join(sentences), uid=f"country-{i}")
    )
  return documents


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory) -> tokenize.Tokenizer:
  """400 word pieces, trained on `tiny_documents`; saved in a folder."""
  texts = [f"{d.title} {d.text}" for d in tiny_documents()]
  return tokenize.train_tokenizer(
    texts, 400, tmp_path_factory.mktemp("tiny") / "tokenizer"
  )


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory, tiny_tokenizer) -> corpus.PassageCorpus:
  """`tiny_documents` in passages of 48 pieces at most; the longer are split."""
  return corpus_build.build_corpus(
    tiny_documents(),
    tiny_tokenizer,
    tmp_path_factory.mktemp("tiny") / "corpus",
    max_pieces=48,
  )


@pytest.fixture(scope="session")
def store_url():
  """The bucket of an object store that runs as a process of its own."""
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  server = subprocess.Popen(
    [
      *[sys.executable, "-m", "tests.gcs_server", "start", "--quiet"],
      *["--host=127.0.0.1", f"--port={port}", "--in-memory"],
      "--default-bucket=bucket",
    ],
    stderr=subprocess.DEVNULL,  # A traceback for each client that is killed.
    start_new_session=True,  # Ctrl-C is for its clients first.
  )
  address = f"http://127.0.0.1:{port}"
  with pytest.MonkeyPatch.context() as patch:
    for name, value in gcs_server.environment(address).items():
      patch.setenv(name, value)
    try:
      _wait_for(address)
      yield "gs://bucket"
    finally:
      server.kill()
      server.wait()


def _wait_for(address):
  deadline = time.monotonic() + 60
  while True:
    try:
      urllib.request.urlopen(address).close()
      return
    except urllib.error.URLError:
      assert time.monotonic() < deadline
      time.sleep(0.05)


@pytest.fixture(scope="session")
def s3_store_url():
  """As `store_url`, of a store that speaks S3."""
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  server = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "--port", str(port)],
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  address = f"http://127.0.0.1:{port}"
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("AWS_ENDPOINT_URL", address)
    patch.setenv("AWS_ACCESS_KEY_ID", "none")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
      _wait_for(address)
      fsspec.filesystem("s3").mkdir("bucket")
      yield "s3://bucket"
    finally:
      server.kill()
      server.wait()


@pytest.fixture
def s3_url(s3_store_url, tmp_path, monkeypatch):
  """As `url`, in S3."""
  monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
  return f"{s3_store_url}/{uuid.uuid4().hex}"


@pytest.fixture
def url(store_url, tmp_path, monkeypatch):
  """A workdir in a store that no other test uses; copies go to `tmp_path`."""
  monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
  return f"{store_url}/{uuid.uuid4().hex}"


@pytest.fixture
def nfs(tmp_path, monkeypatch):
  """A folder that stands for one on the network; copies go to `tmp_path`."""
  monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("REALM_COPY", str(tmp_path / "nfs"))
  return epath.Path(tmp_path / "nfs")


@pytest.fixture(
  params=["url", "nfs", pytest.param("s3_url", marks=pytest.mark.slow)]
)
def place(request):
  """Where folders lie of which a host has copies."""
  return epath.Path(request.getfixturevalue(request.param))
