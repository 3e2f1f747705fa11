# SPDX-License-Identifier: Apache-2.0
"""In which order a retriever is asked the questions of its passages."""

import functools

from jaxtyping import Int
import numpy as np

from realm_jax.data.corpus import PassageCorpus

ENDLESS = 2**60  # Examples: more than any run has steps for.


def title_numbers(
  corpus: PassageCorpus, rows: Int[np.ndarray, "p"]
) -> Int[np.ndarray, "p"]:
  """Returns equal numbers for passages of equal titles, 0 to their count."""
  titles = [corpus.title_ids(int(row)).tobytes() for row in rows]
  return np.unique(titles, return_inverse=True)[1]


class ExampleOrder:
  """Which questions an example has, and which examples come together."""

  def __init__(
    self,
    of_passage: Int[np.ndarray, "n"],
    of_title: Int[np.ndarray, "p"],
    together: int,
    same_title: int,
    seed: int,
  ) -> None:
    """Takes what the order depends on.

    Args:
      of_passage: the number of each question's passage, 0 to p - 1.
      of_title: the number of each passage's title.
      together: q, questions of one passage in an example.
      same_title: examples of one title side by side, where there are so many.
      seed: of the shuffling.
    """
    self._of_passage, self._of_title = of_passage, of_title
    self._together, self._same_title = together, same_title
    self._seed = seed
    self._counts = np.bincount(of_passage)
    self._examples = -(-self._counts // together)  # Of each passage.
    self.epoch = functools.lru_cache(maxsize=2)(self._epoch)

  def __len__(self) -> int:
    """How many examples an epoch has."""
    return int(self._examples.sum())

  def __getitem__(self, place: int) -> Int[np.ndarray, "q"]:
    """Returns the questions of an example, counted on through the epochs."""
    epoch, place = divmod(place, len(self))
    return self.epoch(epoch)[place]

  def _epoch(self, epoch: int) -> Int[np.ndarray, "examples q"]:
    """Returns the questions of each example, in an epoch's order."""
    rng = np.random.default_rng((self._seed, epoch))
    by_passage = _shuffled_by(self._of_passage, rng)
    passage = np.repeat(np.arange(len(self._counts)), self._examples)
    number = _places_in_runs(passage)  # Of an example, in its passage.
    first = np.cumsum(self._counts) - self._counts
    within = number[:, None] * self._together + np.arange(self._together)
    within %= self._counts[passage][:, None]
    asked = by_passage[first[passage][:, None] + within]
    title = self._of_title[passage]
    by_title = _shuffled_by(title, rng)
    place = _places_in_runs(title[by_title])
    group = np.cumsum(place % self._same_title == 0) - 1
    shuffled = rng.permutation(group.max() + 1)[group]
    return asked[by_title][_shuffled_by(shuffled)]


def _shuffled_by(
  keys: np.ndarray, rng: np.random.Generator | None = None
) -> np.ndarray:
  """Returns places in the order of their keys, equal ones as they come.

  With `rng`, equal ones are shuffled.
  """
  places = np.arange(len(keys)) if rng is None else rng.permutation(len(keys))
  return places[np.argsort(keys[places], kind="stable")]


def _places_in_runs(keys: np.ndarray) -> np.ndarray:
  """Returns each place's number in its run of equal, sorted keys."""
  first = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
  return np.arange(len(keys)) - np.repeat(
    first, np.diff(first, append=len(keys))
  )
