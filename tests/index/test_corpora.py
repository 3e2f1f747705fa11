# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.index import store
from realm_jax.index.corpora import Corpora, Move, open_corpora, write_move
from tests.index.conftest import publish, to


def name(step, corpus):
  return store.version_name(step, corpus.fingerprint)


@pytest.fixture
def corpora(tmp_path, corpus):
  return Corpora(corpus, tmp_path)


def test_a_run_that_has_not_moved_has_one_corpus(corpora, corpus):
  (begin,) = corpora.moves()
  assert (begin.number, begin.from_step) == (0, 0)
  assert corpora.open(begin) is corpus
  assert corpora.version_name(70) == name(70, corpus)


def test_a_move_is_seen_by_who_looks_again_and_by_who_begins_later(
  tmp_path, corpora, corpus, edited_corpus
):
  assert len(corpora.moves()) == 1
  write_move(tmp_path, to(edited_corpus, from_step=20))
  for each in (corpora, Corpora(corpus, tmp_path)):
    assert [each.of_step(step).number for step in (0, 19, 20, 99)] == [
      0,
      0,
      1,
      1,
    ]
    assert each.open(each.of_step(20)).fingerprint == edited_corpus.fingerprint


def test_a_number_is_given_once(tmp_path, edited_corpus, other_corpus):
  write_move(tmp_path, to(edited_corpus, from_step=20))
  with pytest.raises(FileExistsError, match="meanwhile"):
    write_move(tmp_path, to(other_corpus, from_step=30))


def test_versions_in_force_are_over_the_corpus_of_their_checkpoint(
  tmp_path, corpora, corpus, edited_corpus, other_corpus
):
  write_move(tmp_path, to(edited_corpus, from_step=20))
  names = [
    name(step, of)
    for step in (10, 20)
    for of in (corpus, edited_corpus, other_corpus)
  ]
  assert corpora.in_force(names) == [name(10, corpus), name(20, edited_corpus)]
  assert corpora.known(names) == [*names[:2], *names[3:5]]


def test_the_last_move_with_an_index_is_served(
  tmp_path, corpora, corpus, edited_corpus
):
  old = [name(step, corpus) for step in (0, 10, 20)]
  assert corpora.newest([]) is None
  assert corpora.newest(old) == old[-1]
  # One of before the move, as `build-index --corpus` makes it.
  early = name(10, edited_corpus)
  write_move(tmp_path, to(edited_corpus, from_step=20))
  assert corpora.newest([*old, early]) == old[-1]
  new = name(20, edited_corpus)
  assert corpora.newest([*old, early, new]) == new
  # A slow builder's, begun before the move.
  late = name(30, corpus)
  assert corpora.newest([*old, early, new, late]) == new


def test_a_move_back_is_a_move(tmp_path, corpora, corpus, edited_corpus):
  write_move(tmp_path, to(edited_corpus, from_step=20))
  write_move(tmp_path, to(corpus, from_step=20, number=2))
  assert corpora.version_name(20) == name(20, corpus)
  assert corpora.newest([name(20, edited_corpus)]) == name(20, edited_corpus)
  both = [name(20, corpus), name(20, edited_corpus)]
  assert corpora.newest(both) == both[0]
  numbers = [corpora.move_of(version).number for version in both]
  assert numbers == [2, 1]


def test_a_strange_corpus_is_named(corpora, other_corpus):
  with pytest.raises(ValueError, match="none of this run's"):
    corpora.of_version(name(20, other_corpus))


def test_a_directory_with_another_corpus_than_was_moved_to_is_refused(
  tmp_path, corpora, edited_corpus, other_corpus
):
  wrong = dict(
    vars(to(edited_corpus, from_step=20)), directory=str(other_corpus.directory)
  )
  write_move(tmp_path, Move(**wrong))
  with pytest.raises(ValueError, match="put that one back"):
    corpora.of_version(name(20, edited_corpus))


def test_a_corpus_that_is_gone_is_named(tmp_path, corpora, edited_corpus):
  gone = dict(vars(to(edited_corpus, from_step=20)), directory="gone")
  write_move(tmp_path, Move(**gone))
  with pytest.raises(ValueError, match="gone, to which the run moved"):
    corpora.of_version(name(20, edited_corpus))


def test_a_malformed_move_is_named(tmp_path, corpora):
  (tmp_path / "corpora").mkdir()
  (tmp_path / "corpora" / "00001.json").write_text("{}")
  with pytest.raises(ValueError, match=r"00001\.json is not a move"):
    corpora.moves()


def test_one_corpus_can_be_asked_for_whatever_the_run_has_moved_to(
  workdir, run, corpus, edited_corpus
):
  write_move(workdir, to(edited_corpus, from_step=0))
  old, new = publish(workdir, 10, corpus), publish(workdir, 10, edited_corpus)
  assert open_corpora(workdir, run).newest_version(workdir) == new
  alone = open_corpora(workdir, run, str(corpus.directory))
  assert alone.newest_version(workdir) == old


def test_a_corpus_without_a_version_is_told_how_to_get_one(
  tmp_path, corpora, other_corpus
):
  published = publish(tmp_path, 20, other_corpus)
  with pytest.raises(FileNotFoundError, match=f"{published}.*build-index"):
    corpora.newest_version(tmp_path)
