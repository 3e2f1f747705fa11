# SPDX-License-Identifier: Apache-2.0
"""Every stage of the comparison, by size: "cpu" or "gpu".

    ict ──────────────────────────► qa_ict
     │ └──► dpr_ict ──────────────► qa_dpr_ict
     └─ realm (and reading) ──────► qa_realm
         └► dpr_realm ────────────► qa_dpr_realm
                                     qa_closed         qa_bm25

All start from all-MiniLM-L6-v2, and every `qa` but the closed book's from one
`reader` besides, which has learned to read the block that a question's answer
is in. Rows of one table differ in what is drawn here alone: the four dense `qa`
have one config, but for where their retriever starts.

Passages are cut into blocks of 96 word pieces, whole sentences where these fit.
One vector of a whole passage, of 150 on average, tells what it is about, and
not all that can be asked: with MiniLM as it comes, the best of its blocks'
vectors finds the passage first for 67.5% of questions about training articles,
and a vector of all of it for 63.0%. A machine reads twice as many blocks, too.

REALM's encoder is another one, of two layers that start by copying: MiniLM has
no masked-language head, and in a hundred steps it had learned how often words
come and no more, where these had learned to copy. It reads clozes of the
passages' own sentences (`clozes.py`).
"""

import dataclasses
from typing import Literal

from experiments.factbook_demo import settings
from experiments.squad_open import clozes, minilm
from realm_jax.config import (
  BertConfig,
  DataConfig,
  DprConfig,
  EmbedderConfig,
  IctConfig,
  InitConfig,
  LengthConfig,
  OpenQaConfig,
  OptimizerConfig,
  ReadingConfig,
  RefreshConfig,
  RetrievalConfig,
  RunConfig,
  Stage,
)

LENGTHS = LengthConfig(query=64, passage=96, joint=160, masks=10)
_SAME_TITLE = 16  # Of an article's 103 blocks, side by side in a batch.
# Of 10,000 questions two have more pieces than 40.
_ASKED = dataclasses.replace(LENGTHS, query=40, joint=136)
# Of the answers, 7% are wider than ORQA's 10 pieces, and few than these.
_SPANS = OpenQaConfig(max_span=16, span_width=128, read_gold=True)


_COPYING = dataclasses.replace(
  settings.BERT,
  vocab_size=minilm.BERT.vocab_size,
  hidden_size=256,
  mlp_size=1024,
  max_positions=LENGTHS.joint,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What a machine can do in the time: (steps, batch size) of each stage.

  A batch of `dpr` is of blocks, each with two questions.
  """

  ict: tuple[int, int]
  reading: tuple[int, int]
  realm: tuple[int, int]
  dpr: tuple[int, int]
  reader: tuple[int, int]
  qa: tuple[int, int]
  closed: tuple[int, int]
  beam: int
  read: int
  candidates: int
  refresh_every: int
  dropout: float
  dtype: Literal["float32", "bfloat16"]


SIZES = {
  # Two cores.
  "cpu": Size(
    ict=(150, 64),
    reading=(1000, 64),
    realm=(1000, 8),
    dpr=(1000, 64),
    reader=(3400, 32),
    qa=(300, 8),
    closed=(1000, 32),
    beam=100,
    read=10,
    candidates=5,
    refresh_every=250,
    dropout=0.0,  # What is seen about once cannot be learned by heart.
    dtype="float32",
  ),
  # One accelerator of 80 GB or more: all questions, several times.
  "gpu": Size(
    ict=(5000, 256),
    reading=(5000, 128),
    realm=(10_000, 64),
    dpr=(3000, 512),
    reader=(10_000, 64),
    qa=(5000, 32),
    closed=(10_000, 128),
    beam=1000,
    read=20,
    candidates=8,
    refresh_every=500,
    dropout=0.1,
    dtype="bfloat16",
  ),
}


def stages(size: str, directory: str, data: str) -> dict[str, RunConfig]:
  """Returns the config of each stage, by name.

  Args:
    size: of `SIZES`.
    directory: where `run.py` prepared what they read.
    data: folder of train.jsonl.gz and validation.jsonl.gz.

  Raises:
    ValueError: an unknown size, or MiniLM is not installed.
  """
  if size not in SIZES:
    raise ValueError(f"Size {size!r} is not one of {sorted(SIZES)}.")
  made = _Stages(SIZES[size], directory, data)
  return {
    "ict": made.ict(),
    "reading": made.reading(),
    "realm": made.realm(),
    **{f"dpr_{start}": made.dpr(start) for start in ("ict", "realm")},
    **{
      f"qa_{start}": made.qa(start)
      for start in ("ict", "realm", "dpr_ict", "dpr_realm")
    },
    "reader": made.reader(),
    "qa_bm25": made.qa_bm25(),
    "qa_closed": made.qa_closed(),
  }


class _Stages:
  def __init__(self, size: Size, directory: str, data: str) -> None:
    self._size, self._directory, self._data = size, directory, data
    self._clozes = f"{directory}/texts/{clozes.FILE}"
    self._minilm = minilm.folder()
    bert = self._sized_bert(minilm.BERT)
    embedder: EmbedderConfig = dataclasses.replace(minilm.EMBEDDER, bert=bert)
    self._common = RunConfig(
      keep_checkpoints=2,
      # The corpus has its tokenizer, MiniLM's, in its folder.
      data=DataConfig(
        tokenizer=f"{directory}/corpus", corpus=f"{directory}/corpus"
      ),
      lengths=LENGTHS,
      embedder=embedder,
      encoder=bert,
      # Shards so small that a killed builder loses two minutes.
      refresh=RefreshConfig(shard_passages=2**12),
    )

  def _sized_bert(self, bert: BertConfig) -> BertConfig:
    size = self._size
    return dataclasses.replace(
      bert,
      dropout=size.dropout,
      attention_dropout=size.dropout,
      dtype=size.dtype,
    )

  def ict(self) -> RunConfig:
    return dataclasses.replace(
      self._sized("ict", self._size.ict),
      # Of 64 blocks by chance, MiniLM knows the right one already.
      ict=IctConfig(same_title=_SAME_TITLE),
      # At 2e-5 it forgets: 1.3 points of recall@5 of whole passages, where
      # this gains 0.2.
      optimizer=OptimizerConfig(learning_rate=2e-6),
      init=InitConfig(retriever=self._minilm),
    )

  def reading(self) -> RunConfig:
    return dataclasses.replace(
      self._given_clozes(self._sized("mlm", self._size.reading)),
      reading=ReadingConfig(),
      optimizer=settings.optimizer(1e-3),
    )

  def realm(self) -> RunConfig:
    size = self._size
    run = self._given_clozes(self._sized("realm", size.realm))
    return dataclasses.replace(
      run,
      retrieval=RetrievalConfig(
        num_candidates=size.candidates, exclude_own=False, marginal="joint"
      ),
      refresh=dataclasses.replace(run.refresh, every_steps=size.refresh_every),
      # The towers learn at the rate of `dpr`.
      optimizer=settings.optimizer(2e-4, retriever_scale=0.1),
      init=InitConfig(retriever="stage:ict", encoder="stage:reading"),
    )

  def dpr(self, start: str) -> RunConfig:
    return dataclasses.replace(
      self._asked(self._sized("dpr", self._size.dpr)),
      # SQuAD has two questions a block.
      dpr=DprConfig(questions=2, same_title=_SAME_TITLE),
      # At 5e-5 it forgets: 1.2 points of recall@5 on articles held out.
      optimizer=OptimizerConfig(learning_rate=2e-5),
      init=InitConfig(retriever=f"stage:{start}"),
    )

  def reader(self) -> RunConfig:
    return dataclasses.replace(
      self._asked(self._sized("openqa", self._size.reader)),
      # It reads one block, the right one, whatever is found.
      openqa=dataclasses.replace(_SPANS, retriever="bm25", beam=1, read=1),
      optimizer=OptimizerConfig(learning_rate=1e-4),
      init=InitConfig(encoder=self._minilm),
    )

  def qa(self, start: str) -> RunConfig:
    return dataclasses.replace(
      self._qa(),
      init=InitConfig(retriever=f"stage:{start}", encoder="stage:reader"),
    )

  def qa_bm25(self) -> RunConfig:
    run = self._qa()
    return dataclasses.replace(
      run,
      openqa=dataclasses.replace(run.openqa, retriever="bm25"),
      init=InitConfig(encoder="stage:reader"),
    )

  def qa_closed(self) -> RunConfig:
    return dataclasses.replace(
      self._asked(self._sized("openqa", self._size.closed)),
      openqa=OpenQaConfig(retriever="none"),
      optimizer=OptimizerConfig(learning_rate=1e-4),
      init=InitConfig(encoder=self._minilm),
    )

  def _qa(self) -> RunConfig:
    return dataclasses.replace(
      self._asked(self._sized("openqa", self._size.qa)),
      openqa=dataclasses.replace(
        _SPANS, beam=self._size.beam, read=self._size.read
      ),
      optimizer=OptimizerConfig(learning_rate=3e-5),
    )

  def _given_clozes(self, run: RunConfig) -> RunConfig:
    return dataclasses.replace(
      run,
      data=dataclasses.replace(run.data, train=self._clozes),
      encoder=self._sized_bert(_COPYING),
    )

  def _sized(self, stage: Stage, size: tuple[int, int]) -> RunConfig:
    num_steps, batch_size = size
    return dataclasses.replace(
      self._common, stage=stage, num_steps=num_steps, batch_size=batch_size
    )

  def _asked(self, run: RunConfig) -> RunConfig:
    data = dataclasses.replace(
      run.data,
      train=f"{self._data}/train.jsonl.gz",
      validation=f"{self._data}/validation.jsonl.gz",
      # What a paragraph is about, its title says, and often nothing else.
      reader_sees_title=True,
    )
    return dataclasses.replace(run, data=data, lengths=_ASKED)
