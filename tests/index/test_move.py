# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from realm_jax import checkpoints, config
from realm_jax.config import OpenQaConfig, RefreshConfig, ScannConfig
from realm_jax.data.corpus_build import build_corpus
from realm_jax.data.records import Document
from realm_jax.data.tokenize import train_tokenizer
from realm_jax.index.corpora import Corpora
from realm_jax.index.move import use_corpus
from tests.index.conftest import publish, save_checkpoints


@pytest.fixture
def begun(workdir, run):
  """A run's directory with checkpoint 0, and (**changes) -> None."""
  save_checkpoints(workdir, run, [0])

  def change(**changes):
    changed = dataclasses.replace(run, **changes)
    (workdir / "config.json").write_text(config.dumps(changed))

  return workdir, change


def test_the_newest_index_is_the_first_to_be_made_again(
  begun, corpus, edited_corpus, other_corpus
):
  workdir, _ = begun
  for step in (10, 20):
    publish(workdir, step, corpus)
  publish(workdir, 30, other_corpus)  # No business of the run's.
  move = use_corpus(workdir, edited_corpus.directory)
  assert (move.number, move.from_step) == (1, 20)
  assert move.fingerprint == edited_corpus.fingerprint
  assert Corpora(corpus, workdir).moves()[1:] == (move,)
  # Nothing is served of the second corpus yet, and a third may take over.
  assert use_corpus(workdir, other_corpus.directory).from_step == 20


def test_without_any_index_the_whole_run_moves(begun, edited_corpus):
  workdir, _ = begun
  assert use_corpus(workdir, edited_corpus.directory).from_step == 0


def test_moves_follow_one_another(begun, corpus, edited_corpus, other_corpus):
  workdir, _ = begun
  use_corpus(workdir, edited_corpus.directory, from_step=50)
  with pytest.raises(ValueError, match="from_step=40 is too early: 50"):
    use_corpus(workdir, other_corpus.directory, from_step=40)
  with pytest.raises(ValueError, match="already, from checkpoint 50"):
    use_corpus(workdir, edited_corpus.directory)
  assert use_corpus(workdir, corpus.directory).from_step == 50


@pytest.mark.parametrize(
  # Refreshes at 10, 20, ...; the index of 0 and of 10 are there, so the
  # trainer takes no step from 20 + lag on, and assigns a few more.
  ("lag", "lookahead", "first"),
  [(5, 4, 30), (9, 4, 30), (10, 4, 40), (5, 9, 30), (5, 10, 40)],
)
def test_under_lockstep_a_move_is_in_time_on_every_host(
  begun, corpus, edited_corpus, run, lag, lookahead, first
):
  workdir, change = begun
  change(
    refresh=RefreshConfig(policy="lockstep", every_steps=10, lag_steps=lag),
    retrieval=dataclasses.replace(run.retrieval, lookahead=lookahead),
  )
  for step in (0, 10):
    publish(workdir, step, corpus)
  with pytest.raises(ValueError, match=f"{first - 10} is too early: {first} "):
    use_corpus(workdir, edited_corpus.directory, from_step=first - 10)
  with pytest.raises(ValueError, match="no refresh step"):
    use_corpus(workdir, edited_corpus.directory, from_step=first + 1)
  assert use_corpus(workdir, edited_corpus.directory).from_step == first


def test_under_lockstep_the_last_refresh_may_be_past(
  begun, corpus, run, edited_corpus
):
  workdir, change = begun
  refresh = RefreshConfig(policy="lockstep", every_steps=10, lag_steps=5)
  change(num_steps=25, refresh=refresh)
  for step in (0, 10, 20):
    publish(workdir, step, corpus)
  with pytest.raises(ValueError, match="the run ends at 25"):
    use_corpus(workdir, edited_corpus.directory)
  save_checkpoints(workdir, run, [25])
  (workdir / checkpoints.TRAINING_DONE).touch()
  assert use_corpus(workdir, edited_corpus.directory).from_step == 25


def test_a_corpus_that_cannot_serve_the_run_is_refused_before_anything(
  begun, run, corpus, edited_corpus, tokenizer, tmp_path
):
  workdir, change = begun
  words = [Document(uid="a", title="river", text="king " * 60)]
  other = train_tokenizer(["other text"], 100, tmp_path / "tokenizer")
  strange = build_corpus(words, other, tmp_path / "strange", 32)
  long = build_corpus(words, tokenizer, tmp_path / "long", 64)

  def refused(directory, match):
    with pytest.raises(ValueError, match=match):
      use_corpus(workdir, directory)

  refused(strange.directory, "prepare it with --tokenizer=")
  refused(long.directory, r"passage of 6\d tokens.*--max_pieces=32")
  change(stage="openqa", openqa=OpenQaConfig(beam=61))
  refused(edited_corpus.directory, "has 60 passages, and openqa.beam is 61")
  scann = dataclasses.replace(
    run.retrieval, backend="scann", scann=ScannConfig(num_leaves=61)
  )
  change(retrieval=scann)
  refused(edited_corpus.directory, "num_leaves")
  change(stage="mlm")
  refused(edited_corpus.directory, "no index")
  refused(corpus.directory, "no index")
  assert not (workdir / "corpora").exists()


def test_a_run_that_has_not_begun_cannot_move(workdir, edited_corpus):
  with pytest.raises(FileNotFoundError, match="no checkpoint"):
    use_corpus(workdir, edited_corpus.directory)
