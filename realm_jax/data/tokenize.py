# SPDX-License-Identifier: Apache-2.0
"""Text to BERT word pieces, with the characters that each piece covers."""

from collections import Counter
from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import json
import os
import re

from etils import epath
from jaxtyping import Int32
import numpy as np
import regex
import tokenizers

from realm_jax import files

TOKENIZER_FILE = "tokenizer.json"
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUES = "##"
# Characters of their own that belong to the letter before them. BERT strips
# them, and the library ends a word's last piece before those of its last one.
_ACCENTS = regex.compile(r"\p{Mn}+")
# Each mark is a piece of its own to BERT. Where English text has no space
# before or after it, the library's decoder leaves one mostly.
_MARKS = (
  re.compile(r"(?<=\w) ?([-\u2013/]) ?(?=\w)"),  # 1990-1995
  re.compile(r"(?<=[^\Ws]) ?(['\u2019]) ?(?=\w)"),  # o'neil, but workers' party
  re.compile(r"(?<=s) ?(['\u2019]) ?(?=s\b)"),  # paris's
  re.compile(r"(?<=\d) ?([.:]) ?(?=\d)"),  # 3.5
  re.compile(r"(?<=\d) ?(,) ?(?=\d{3}\b)"),  # 1,000
  re.compile(r"(?<=\b[^\W\d]) ?(\.) ?(?=[^\W\d]\b)"),  # u.s.
  re.compile(r"([$(]) (?=\w)"),
  re.compile(r"(?<=\w) ([%)])"),
)


@dataclasses.dataclass(frozen=True)
class Encoding:
  """A text's word pieces, special tokens excluded."""

  ids: Int32[np.ndarray, "n"]
  starts: Int32[np.ndarray, "n"]  # First character of each piece.
  ends: Int32[np.ndarray, "n"]  # One past its last, accents included.

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, pieces: slice) -> "Encoding":
    return Encoding(self.ids[pieces], self.starts[pieces], self.ends[pieces])


class Tokenizer:
  """A BERT-style tokenizer: WordPiece with [PAD] [UNK] [CLS] [SEP] [MASK]."""

  def __init__(self, backend: tokenizers.Tokenizer) -> None:
    """Wraps a backend, whose truncation and padding are switched off.

    Raises:
      ValueError: a special token is missing.
    """
    backend.no_truncation()
    backend.no_padding()
    self._backend = backend
    vocabulary = backend.get_vocab()
    missing = [token for token in _SPECIALS if token not in vocabulary]
    if missing:
      raise ValueError(
        f"The tokenizer has no {missing}; BERT's five special tokens "
        f"{list(_SPECIALS)} are needed."
      )
    self.pad_id = vocabulary["[PAD]"]
    self.unk_id = vocabulary["[UNK]"]
    self.cls_id = vocabulary["[CLS]"]
    self.sep_id = vocabulary["[SEP]"]
    self.mask_id = vocabulary["[MASK]"]
    # Ids may have gaps: what matters is the rows of the embedding table.
    self.vocab_size = max(vocabulary.values()) + 1
    canonical = json.dumps(json.loads(backend.to_str()), sort_keys=True)
    self.fingerprint = hashlib.sha256(canonical.encode()).hexdigest()

  def encode(self, text: str) -> Encoding:
    """Returns the pieces of one text."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    """Returns the pieces of each text, computed on all cores."""
    texts = list(texts)
    found = self._backend.encode_batch(texts, add_special_tokens=False)
    return [_to_encoding(*pair) for pair in zip(texts, found, strict=True)]

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Returns the text of pieces, spaced as English usually is.

    What the vocabulary does not tell apart is lost, case and accents mostly.
    """
    text = self._backend.decode([int(i) for i in ids], skip_special_tokens=True)
    for mark in _MARKS:
      text = mark.sub(r"\1", text)
    return text

  def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
    """Returns each piece as the vocabulary spells it, "##" included."""
    return [self._backend.id_to_token(int(i)) or "" for i in ids]

  def save(self, directory: epath.PathLike) -> None:
    """Writes `tokenizer.json`, which `load_tokenizer` and HF libraries read."""
    folder = epath.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_whole(folder / TOKENIZER_FILE, self._backend.to_str())


def _to_encoding(text: str, found: tokenizers.Encoding) -> Encoding:
  offsets = np.array(found.offsets, np.int32).reshape(-1, 2)
  starts, ends = offsets[:, 0].copy(), offsets[:, 1].copy()
  for accents in _ACCENTS.finditer(text):
    piece = int(np.searchsorted(ends, accents.start(), side="right")) - 1
    if piece >= 0 and ends[piece] == accents.start():
      following = starts[piece + 1 : piece + 2]
      ends[piece] = min([accents.end(), *following])
  return Encoding(np.array(found.ids, np.int32), starts, ends)


def load_tokenizer(name: str | os.PathLike[str]) -> Tokenizer:
  """Loads a tokenizer from a folder or by its Hugging Face name.

  A folder, which may be in a store, needs `tokenizer.json`, or BERT's
  `vocab.txt` (lower-cased unless its `tokenizer_config.json` says otherwise).

  Raises:
    ValueError: an existing folder without a tokenizer, or one that is not
      BERT-style.
    OSError: no such folder, nor such a name on the hub.
  """
  folder = epath.Path(name)
  file = folder / TOKENIZER_FILE
  if not files.is_url(name) and not folder.is_dir():
    # Slow to import, and most runs have their tokenizer in a folder.
    from transformers import AutoTokenizer

    try:
      found = AutoTokenizer.from_pretrained(str(name))
    except OSError as error:
      raise OSError(
        f"There is no folder {str(name)!r} (looked for in {os.getcwd()}), and "
        f"the Hugging Face hub gives no tokenizer of that name: {error}"
      ) from error
    return Tokenizer(found.backend_tokenizer)
  if file.exists():
    try:
      return Tokenizer(
        tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
      )
    except Exception as error:  # The library raises no narrower class.
      raise ValueError(
        f"{file}: not a BERT-style tokenizer: {error}"
      ) from error
  if (folder / "vocab.txt").exists():
    return _from_vocabulary_file(folder)
  raise ValueError(
    f"{folder} holds no tokenizer: it has neither {TOKENIZER_FILE} nor "
    "vocab.txt."
  )


def _from_vocabulary_file(folder: epath.Path) -> Tokenizer:
  settings = folder / "tokenizer_config.json"
  lowercase = True
  if settings.exists():
    lowercase = json.loads(settings.read_text())["do_lower_case"]
  lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
  vocabulary = {token: row for row, token in enumerate(lines)}
  return Tokenizer(_wordpiece(vocabulary, lowercase=lowercase))


def _wordpiece(
  vocabulary: dict[str, int], *, lowercase: bool
) -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer(
    tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
  )
  backend.normalizer = tokenizers.normalizers.BertNormalizer(
    lowercase=lowercase
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  backend.decoder = tokenizers.decoders.WordPiece(prefix=_CONTINUES)
  specials = [token for token in _SPECIALS if token in vocabulary]
  backend.add_special_tokens(specials)
  if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
    # For others who load the file; here rows are laid out by `collate`.
    backend.post_processor = tokenizers.processors.BertProcessing(
      ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
  return backend


def train_tokenizer(
  texts: Iterable[str],
  vocab_size: int,
  directory: str | os.PathLike[str],
) -> Tokenizer:
  """Trains a lower-cased WordPiece vocabulary and saves it in `directory`.

  The same texts give the same vocabulary, in any process.

  Args:
    texts: held in memory together: of a large corpus, give a sample.
    vocab_size: pieces at most, special tokens included.
    directory: gets `tokenizer.json`.

  Raises:
    ValueError: no text, or a vocabulary too small for the alphabet.
  """
  texts = list(texts)
  blank = _wordpiece({"[UNK]": 0}, lowercase=True)
  alphabet = _alphabet(texts, blank.normalizer, limit=max(64, vocab_size // 16))
  if not alphabet:
    raise ValueError("No text to train a vocabulary on.")
  # The library numbers continuations ("##a") in the random order of a hash
  # table, and breaks ties between merges by number. Naming them all
  # beforehand fixes the order. Specials: the one list kept as it stands.
  first = [*_SPECIALS, *alphabet, *(_CONTINUES + c for c in alphabet)]
  if vocab_size < len(first):
    raise ValueError(
      f"vocab_size ({vocab_size}) is below {len(first)}: the text has "
      f"{len(alphabet)} common characters, each a piece at the start of a "
      f"word and one inside, and there are {len(_SPECIALS)} special tokens."
    )
  trainer = tokenizers.trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    special_tokens=first,
    initial_alphabet=alphabet,
    limit_alphabet=len(alphabet),
    continuing_subword_prefix=_CONTINUES,
    show_progress=False,
  )
  blank.train_from_iterator(texts, trainer)
  vocabulary = blank.get_vocab(with_added_tokens=False)
  tokenizer = Tokenizer(_wordpiece(vocabulary, lowercase=True))
  tokenizer.save(directory)
  return tokenizer


def _alphabet(
  texts: Sequence[str],
  normalizer: tokenizers.normalizers.Normalizer,
  limit: int,
) -> list[str]:
  """Returns the most frequent characters, in code point order."""
  counts: Counter[str] = Counter()
  for text in texts:
    counts.update(normalizer.normalize_str(text))
  letters = [c for c in counts if not c.isspace()]
  letters.sort(key=lambda c: (-counts[c], c))
  return sorted(letters[:limit])
