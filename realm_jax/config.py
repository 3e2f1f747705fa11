# SPDX-License-Identifier: Apache-2.0
"""What a run does, as frozen dataclasses: every default lives here, once.

An experiment file builds a `RunConfig` and returns `to_config_dict(run)`;
`parse` turns that (with the command line's overrides) back, and refuses
unknown keys and wrong types. Behind `parse` no code sees a ConfigDict.
"""

import dataclasses
import itertools
import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import ml_collections

Stage = Literal["ict", "dpr", "mlm", "realm", "openqa"]
Remat = Literal["none", "dots", "layers"]


def _require(rule: bool, message: str) -> None:
  if not rule:
    raise ValueError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
  """A BERT encoder's architecture; the defaults are BERT-base uncased."""

  vocab_size: int = 30522
  hidden_size: int = 768  # H
  num_layers: int = 12
  num_heads: int = 12
  mlp_size: int = 3072
  max_positions: int = 512
  num_segments: int = 2
  activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
  norm_eps: float = 1e-12
  dropout: float = 0.1
  attention_dropout: float = 0.1
  dtype: Literal["float32", "bfloat16"] = "float32"  # Of the activations.
  # What a tiny model trained from scratch needs to learn to copy, and BERT
  # does not: see README, "The demo's model".
  norm: Literal["post", "pre"] = "post"
  positions: Literal["absolute", "relative"] = "absolute"
  init: Literal["bert", "copying"] = "bert"

  def __post_init__(self) -> None:
    _require(
      self.hidden_size % self.num_heads == 0,
      f"hidden_size ({self.hidden_size}) must be a multiple of num_heads "
      f"({self.num_heads}).",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedderConfig:
  """The retriever's towers: text to a vector of `dim` numbers."""

  bert: BertConfig = dataclasses.field(default_factory=BertConfig)
  dim: int = 128  # D
  # "pooler" is BERT's tanh layer over [CLS], as REALM uses it.
  pooling: Literal["pooler", "cls", "mean"] = "pooler"
  # "layer_norm": Dense(dim) then LayerNorm (REALM). "l2": no projection, unit
  # vectors, dim = hidden_size (sentence-transformers).
  head: Literal["layer_norm", "l2"] = "layer_norm"
  head_norm_eps: float = 1e-12
  shared: bool = True  # One tower for queries and documents.
  temperature: float = 1.0  # Scores are inner products divided by this.

  def __post_init__(self) -> None:
    _require(self.dim > 0, f"embedder.dim must be positive, got {self.dim}.")
    _require(
      self.temperature > 0,
      f"embedder.temperature must be positive, got {self.temperature}.",
    )
    _require(
      self.head != "l2" or self.dim == self.bert.hidden_size,
      f"embedder.head='l2' has no projection: dim ({self.dim}) must equal "
      f"bert.hidden_size ({self.bert.hidden_size}).",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthConfig:
  """Static token lengths, special tokens included."""

  query: int = 96  # Q: [CLS] query [SEP]
  passage: int = 288  # P: [CLS] title [SEP] body [SEP]
  joint: int = 384  # T: [CLS] query [SEP] (title) body [SEP]
  masks: int = 10  # M: predicted positions a query.

  def __post_init__(self) -> None:
    for name in ("query", "passage", "joint", "masks"):
      value = getattr(self, name)
      _require(value > 0, f"lengths.{name} must be positive, got {value}.")
    _require(
      self.joint > self.query,
      f"lengths.joint ({self.joint}) must exceed lengths.query "
      f"({self.query}): the passage comes after the query.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Paths of what a run reads, or URLs of object stores."""

  tokenizer: str = ""  # Folder or hub name.
  corpus: str = ""  # A PassageCorpus directory.
  # realm, mlm: texts, of the corpus or of any other: JSONL of {"text",
  # "spans"?, "source_uid"?, "passage_uid"?}, what `realm tag-spans` made, or
  # TFDS' salient_span_wikipedia; "" for the corpus' own sentences. dpr,
  # openqa: JSONL of {"question", "answers", "passage_uid"?}; dpr trains on
  # those that name a passage.
  train: str = ""
  validation: str = ""  # Same format; probes retrieval at each index swap.
  reader_sees_title: bool = False  # REALM's reader sees the body alone.
  masking: Literal["salient", "span", "token"] = "salient"


@dataclasses.dataclass(frozen=True, kw_only=True)
class IctConfig:
  """Inverse cloze task (ORQA section 3)."""

  removal_rate: float = 0.9  # How often the pseudo-query leaves its passage.
  # Passages of one title that a batch has side by side; see dpr.same_title.
  same_title: int = 1

  def __post_init__(self) -> None:
    _require(
      self.same_title > 0,
      f"ict.same_title must be positive, got {self.same_title}.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DprConfig:
  """The retriever supervised by pairs of questions and passages (DPR)."""

  # Passages a question that an index finds and that do not answer it, beside
  # the batch's others. Above 0, a builder refreshes that index.
  negatives: int = 0
  search: int = 50  # Passages found, of which those are the best wrong ones.
  # Questions of one passage that are asked together; batch_size counts the
  # passages. Embedding those is most of the work, and is done once for all.
  questions: int = 1
  # Passages of one title that a batch has side by side, where there are so
  # many: hard negatives of each other that take no index.
  same_title: int = 1

  def __post_init__(self) -> None:
    for name in ("questions", "same_title"):
      value = getattr(self, name)
      _require(value > 0, f"dpr.{name} must be positive, got {value}.")
    _require(
      self.questions == 1 or self.negatives == 0,
      f"dpr.negatives ({self.negatives}) are a question's own, and several "
      f"(dpr.questions: {self.questions}) are asked of a passage: set one of "
      "them to its default.",
    )
    _require(
      0 <= self.negatives < self.search,
      f"dpr.negatives ({self.negatives}) must be in 0..{self.search - 1}: "
      f"they are chosen from dpr.search ({self.search}) passages, of which one "
      "or more may be right.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingConfig:
  """The encoder's warm-up: a masked text beside the passage it came from."""

  null_rate: float = 0.15  # How often the null document stands there instead.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScannConfig:
  """Overrides of what index/scann_backend.py chooses by size; 0 = by size."""

  num_leaves: int = 0  # Partitions of each part of the passages.
  leaves_to_search: int = 0  # Of those, for each query.
  reorder: int = 0  # Candidates by hash that are scored exactly.

  def __post_init__(self) -> None:
    for name in ("num_leaves", "leaves_to_search", "reorder"):
      value = getattr(self, name)
      _require(
        value >= 0,
        f"scann.{name} must be positive, or 0 to go by size, got {value}.",
      )
    _require(
      not self.num_leaves or self.leaves_to_search <= self.num_leaves,
      f"scann.leaves_to_search ({self.leaves_to_search}) exceeds scann."
      f"num_leaves ({self.num_leaves}).",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
  """Which candidates a query gets, and how they are marginalised."""

  num_candidates: int = 8  # K, null document included.
  null_document: bool = True
  exclude_own: bool = True  # Drop the passage that the text was taken from.
  # Drop passages, too, that hold at least this share of a text's runs of 5
  # pieces: text cut elsewhere, or printed twice. 0, as published: none.
  exclude_overlap: float = 0.0
  marginal: Literal["per_mask", "joint"] = "per_mask"
  # scann: in host memory. device: exact, on the accelerators. exact: NumPy.
  backend: Literal["scann", "device", "exact"] = "scann"
  device_dtype: Literal["float32", "bfloat16"] = "float32"  # Of its vectors.
  approximate: bool = False  # device: the best of a block by approx_max_k.
  scann: ScannConfig = dataclasses.field(default_factory=ScannConfig)
  lookahead: int = 4  # Batches searched ahead of the device.

  def __post_init__(self) -> None:
    _require(
      self.num_candidates >= 2,
      f"retrieval.num_candidates ({self.num_candidates}) must be at least 2: "
      "one passage beside the null document.",
    )
    _require(
      0 <= self.exclude_overlap <= 1,
      f"retrieval.exclude_overlap ({self.exclude_overlap}) is a share of a "
      "text, from 0 (drop none) to 1.",
    )
    _require(
      self.lookahead >= 1,
      f"retrieval.lookahead must be at least 1, got {self.lookahead}.",
    )
    _require(
      self.backend == "device" or not self.approximate,
      "retrieval.approximate is a switch of retrieval.backend='device', and "
      f"the backend is {self.backend!r}.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefreshConfig:
  """When the index is rebuilt, and when a rebuilt one takes effect.

  async: the builder takes the newest checkpoint as soon as it is free, and
  its index serves as soon as it is there. lockstep: every refresh step's
  checkpoint is indexed, and its index serves from exactly lag_steps later.
  never: checkpoint 0's index serves to the end.
  """

  policy: Literal["async", "lockstep", "never"] = "async"
  every_steps: int = 500  # A checkpoint for the builder, this often.
  # Refresh at these steps alone, in place of every_steps; () for every_steps.
  steps: tuple[int, ...] = ()
  # lockstep: the index of checkpoint s takes effect exactly at s + lag.
  lag_steps: int = 100
  # The oldest index that a step may be searched with; the trainer waits for
  # the builder rather than exceed it. 0: no limit.
  max_staleness_steps: int = 0
  wait_seconds: float = 3600.0  # Longest wait for a builder before an error.
  keep_versions: int = 3
  # Passages that a builder embeds and commits at a time; builders share a
  # version's shards, and a killed one's are not embedded again.
  shard_passages: int = 2**17
  min_recall_at_10: float = 0.95  # Against exact search; below: not published.

  def __post_init__(self) -> None:
    _require(
      self.every_steps > 0,
      f"refresh.every_steps must be positive, got {self.every_steps}.",
    )
    _require(
      self.shard_passages > 0,
      f"refresh.shard_passages must be positive, got {self.shard_passages}.",
    )
    _require(
      all(gap > 0 for gap in self._gaps()),
      f"refresh.steps must ascend from above 0, got {self.steps}; checkpoint "
      "0 is always indexed.",
    )
    lockstep = self.policy == "lockstep"
    _require(
      self.lag_steps > 0
      and (not lockstep or self.lag_steps <= self.smallest_gap()),
      f"refresh.lag_steps ({self.lag_steps}) must be in 1.."
      f"{self.smallest_gap()}, the fewest steps between two refreshes: an "
      "index takes effect before the next one is wanted.",
    )
    _require(
      self.max_staleness_steps >= 0,
      "refresh.max_staleness_steps must not be negative, got "
      f"{self.max_staleness_steps}; 0 sets no limit.",
    )

  def is_refresh(self, step: int) -> bool:
    """Whether the index of checkpoint `step` is wanted; of 0, it always is."""
    return self.last_refresh(step) == step

  def last_refresh(self, step: int) -> int:
    """Returns the newest refresh step up to `step`, or 0 before any."""
    if self.policy == "never":
      return 0
    if self.steps:
      return max((s for s in self.steps if s <= step), default=0)
    return max(step // self.every_steps * self.every_steps, 0)

  def next_refresh(self, step: int) -> int | None:
    """Returns the first refresh step after `step`, or None after the last."""
    if step < 0:
      return 0
    if self.policy == "never":
      return None
    if self.steps:
      return next((s for s in self.steps if s > step), None)
    return (step // self.every_steps + 1) * self.every_steps

  def smallest_gap(self) -> int:
    """Returns the fewest steps from one refresh to the next."""
    return min(self._gaps(), default=self.every_steps)

  def largest_gap(self, num_steps: int) -> int:
    """Returns the most, in a run of `num_steps`; its end closes the last."""
    if self.policy == "never":
      return num_steps
    if self.steps:
      return max(*self._gaps(), num_steps - self.steps[-1])
    return min(self.every_steps, num_steps)

  def _gaps(self) -> list[int]:
    """Between the listed steps; empty where none are listed."""
    return [b - a for a, b in itertools.pairwise((0, *self.steps))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenQaConfig:
  """Span question answering (ORQA sections 4-5)."""

  # dense: by the retriever's towers. bm25: by words, for comparison; then only
  # the reader is trained, beside passages that BM25 scores. none: closed book,
  # for comparison; the encoder fills in the answer beside the null document.
  retriever: Literal["dense", "bm25", "none"] = "dense"
  beam: int = 5000  # C: passages in the retriever's loss.
  read: int = 5  # R: passages that the reader reads.
  max_span: int = 10  # W: widest answer, in pieces; closed book, with its end.
  span_width: int = 256  # Width of the start and of the end projection.
  # Training reads the passage that a question names, though it was not found,
  # in the last one's place: the reader learns while the retriever misses. Off
  # as published, where a question of which nothing right is found is lost.
  read_gold: bool = False
  # The document tower is trained, too, and the index refreshed by the builder.
  # Off as published: then the index' vectors stay right.
  train_documents: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW as BERT and REALM use it."""

  learning_rate: float = 3e-5  # Peak.
  retriever_scale: float = 1.0  # The retriever's rate over learning_rate.
  # 0 for REALM's rule: min(10000, max(100, num_steps / 10)).
  warmup_steps: int = 0
  weight_decay: float = 0.01
  clip_norm: float = 1.0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-6
  # Parts of a batch that are computed one after another, for one update: what
  # a large batch costs in memory is one part's.
  accumulate_steps: int = 1

  def __post_init__(self) -> None:
    _require(
      self.accumulate_steps > 0,
      "optimizer.accumulate_steps must be positive, got "
      f"{self.accumulate_steps}.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
  """Where parameters start: a workdir, a Hugging Face folder, or "" = random.

  A workdir may end in `@<step>`; without it the newest checkpoint is taken.
  """

  retriever: str = ""
  # For openqa: a reader, or an encoder for its BERT; closed book, all of that.
  encoder: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """How many devices share the batch (data) and the parameters (fsdp)."""

  data: int = -1  # -1: all devices that fsdp leaves.
  fsdp: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """One training run. Batch sizes and steps are global."""

  stage: Stage = "realm"
  seed: int = 0
  num_steps: int = 200_000
  batch_size: int = 512  # B
  log_every_steps: int = 50
  checkpoint_every_steps: int = 500
  keep_checkpoints: int = 3
  # What is computed again for the backward pass, rather than kept in memory.
  # dots: all of a Transformer layer but the products with its weights.
  # layers: all but a layer's input. The result is the same.
  remat: Remat = "none"
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  lengths: LengthConfig = dataclasses.field(default_factory=LengthConfig)
  embedder: EmbedderConfig = dataclasses.field(default_factory=EmbedderConfig)
  encoder: BertConfig = dataclasses.field(default_factory=BertConfig)
  ict: IctConfig = dataclasses.field(default_factory=IctConfig)
  dpr: DprConfig = dataclasses.field(default_factory=DprConfig)
  reading: ReadingConfig = dataclasses.field(default_factory=ReadingConfig)
  retrieval: RetrievalConfig = dataclasses.field(
    default_factory=RetrievalConfig
  )
  refresh: RefreshConfig = dataclasses.field(default_factory=RefreshConfig)
  openqa: OpenQaConfig = dataclasses.field(default_factory=OpenQaConfig)
  optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )
  init: InitConfig = dataclasses.field(default_factory=InitConfig)
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

  def __post_init__(self) -> None:
    for name in ("num_steps", "batch_size", "log_every_steps"):
      value = getattr(self, name)
      _require(value > 0, f"{name} must be positive, got {value}.")
    _check_refresh(self)
    _check_parts(self)
    _check_retriever(self)
    _require(
      self.lengths.passage <= self.embedder.bert.max_positions,
      f"lengths.passage ({self.lengths.passage}) exceeds "
      f"embedder.bert.max_positions ({self.embedder.bert.max_positions}).",
    )
    _require(
      self.lengths.joint <= self.encoder.max_positions,
      f"lengths.joint ({self.lengths.joint}) exceeds encoder.max_positions "
      f"({self.encoder.max_positions}).",
    )

  @property
  def has_retriever(self) -> bool:
    """Whether there are towers that embed queries and passages."""
    if self.stage == "openqa":
      return self.openqa.retriever == "dense"
    return self.stage != "mlm"

  @property
  def is_closed_book(self) -> bool:
    """Whether questions are answered without any passage."""
    return self.openqa.retriever == "none"

  @property
  def searches(self) -> bool:
    """Whether steps search an index of vectors, which a builder makes."""
    if self.stage == "dpr":
      return self.dpr.negatives > 0
    return self.has_retriever and self.stage in ("realm", "openqa")


def _check_retriever(run: RunConfig) -> None:
  """Refuses what has no meaning where nothing is embedded."""
  chosen = run.openqa.retriever
  if chosen == "dense":
    return
  _require(
    run.stage == "openqa",
    f"openqa.retriever={chosen!r} is a choice of stage 'openqa', and the stage "
    f"is {run.stage!r}.",
  )
  _require(
    not run.init.retriever and not run.openqa.train_documents,
    f"openqa.retriever={chosen!r} has no parameters: leave init.retriever "
    f"({run.init.retriever!r}) empty and openqa.train_documents "
    f"({run.openqa.train_documents}) off.",
  )
  if not run.is_closed_book:
    return
  _require(
    not run.openqa.read_gold,
    "openqa.retriever='none' reads no passage: leave openqa.read_gold "
    f"({run.openqa.read_gold}) off.",
  )
  needed = run.lengths.query + run.openqa.max_span + 1
  _require(
    needed <= run.lengths.joint,
    f"lengths.joint ({run.lengths.joint}) must be at least {needed}: closed "
    f"book, the question (lengths.query, {run.lengths.query}) is followed by "
    f"openqa.max_span ({run.openqa.max_span}) masks and the null document.",
  )


def _check_parts(run: RunConfig) -> None:
  parts = run.optimizer.accumulate_steps
  _require(
    run.batch_size % parts == 0,
    f"batch_size ({run.batch_size}) is no multiple of optimizer."
    f"accumulate_steps ({parts}).",
  )
  _require(
    parts == 1 or run.stage not in ("ict", "dpr"),
    f"optimizer.accumulate_steps is {parts}, and the loss of stage "
    f"{run.stage!r} is over all pairs of a batch: computed in parts, it would "
    "be that of smaller batches. Use more devices, or a smaller batch_size "
    "with accumulate_steps=1.",
  )


def _check_refresh(run: RunConfig) -> None:
  """Refuses a run that would wait for an index that can never come."""
  refresh = run.refresh
  last = max(refresh.steps, default=0)
  _require(
    last <= run.num_steps,
    f"refresh.steps ends at {last}, after num_steps ({run.num_steps}).",
  )
  between = min(run.checkpoint_every_steps, refresh.smallest_gap())
  saved = refresh.lag_steps // between + 1  # Until the index is waited for.
  _require(
    refresh.policy != "lockstep" or saved <= run.keep_checkpoints,
    f"keep_checkpoints ({run.keep_checkpoints}) is too small for lockstep: up "
    f"to {saved} checkpoints are saved within refresh.lag_steps "
    f"({refresh.lag_steps}), and the builder needs the first of them.",
  )
  # A batch is planned some steps ahead, and then the checkpoint of its own
  # steps does not exist yet. The step before the next index serves is oldest.
  ahead = {
    "async": run.retrieval.lookahead,
    "lockstep": refresh.lag_steps,
    "never": 0,
  }[refresh.policy]
  gap = refresh.largest_gap(run.num_steps)
  oldest = gap + max(ahead - 1, 0)
  _require(
    refresh.max_staleness_steps == 0 or oldest <= refresh.max_staleness_steps,
    f"refresh.max_staleness_steps ({refresh.max_staleness_steps}) must be at "
    f"least {oldest}, or 0 for no limit: refreshes are up to {gap} steps apart "
    f"and take effect {ahead} steps late (async: retrieval.lookahead, "
    "lockstep: refresh.lag_steps), so an index gets that old however fast the "
    "builder is, and the trainer would wait for ever. Raise it or refresh "
    "more often.",
  )


def to_config_dict(run: RunConfig) -> ml_collections.ConfigDict:
  """The form that experiment files return: flags can override each field."""
  return ml_collections.ConfigDict(dataclasses.asdict(run))


def parse(raw: ml_collections.ConfigDict | dict[str, Any]) -> RunConfig:
  """Checks and freezes a config.

  Raises:
    ValueError: an unknown key, a wrong type, or a broken rule; the message
      names the key's full path, the value and what is allowed.
    FileNotFoundError: it is a --config whose file is not there.
  """
  # No isinstance: where a file is not there, what ml_collections gives in a
  # config's place raises that error here.
  raw = raw if isinstance(raw, dict) else raw.to_dict()
  return _parse_dataclass(RunConfig, raw, path="config")


def _parse_dataclass(cls: Any, raw: Any, path: str) -> Any:
  if not isinstance(raw, dict):
    raise ValueError(f"{path} must be a mapping, got {raw!r}.")
  hints = get_type_hints(cls)
  unknown = sorted(set(raw) - set(hints))
  if unknown:
    raise ValueError(
      f"{path} has unknown keys {unknown}. Known keys: {sorted(hints)}."
    )
  values = {
    name: _parse_value(hints[name], value, f"{path}.{name}")
    for name, value in raw.items()
  }
  try:
    return cls(**values)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _parse_value(hint: Any, value: Any, path: str) -> Any:
  if dataclasses.is_dataclass(hint):
    return _parse_dataclass(hint, value, path)
  if get_origin(hint) is Literal:
    if value not in get_args(hint):
      raise ValueError(
        f"{path}={value!r} is not one of {list(get_args(hint))}."
      )
    return value
  if get_origin(hint) is tuple:
    return _parse_tuple(get_args(hint)[0], value, path)
  if hint is float and type(value) is int:
    return float(value)
  if type(value) is not hint:
    raise ValueError(
      f"{path} must be {hint.__name__}, got {value!r} ({type(value).__name__})."
    )
  return value


def _parse_tuple(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
  if not isinstance(value, tuple | list):
    raise ValueError(
      f"{path} must be a tuple of {hint.__name__}, got {value!r}."
    )
  return tuple(
    _parse_value(hint, item, f"{path}[{i}]") for i, item in enumerate(value)
  )


def dumps(run: RunConfig) -> str:
  """The resolved config as JSON, for `workdir/config.json`."""
  return json.dumps(dataclasses.asdict(run), indent=2, sort_keys=True)


def loads(text: str) -> RunConfig:
  """Inverse of `dumps`; raises ValueError as `parse` does."""
  return parse(json.loads(text))


def differences(saved: RunConfig, asked: RunConfig) -> dict[str, Any]:
  """Dotted key -> (saved, asked) for every field in which two runs differ."""
  first, second = _flatten(saved), _flatten(asked)
  return {k: (first[k], second[k]) for k in first if first[k] != second[k]}


def _flatten(run: RunConfig) -> dict[str, Any]:
  flat: dict[str, Any] = {}

  def walk(node: dict[str, Any], prefix: str) -> None:
    for name, value in node.items():
      if isinstance(value, dict):
        walk(value, f"{prefix}{name}.")
      else:
        flat[f"{prefix}{name}"] = value

  walk(dataclasses.asdict(run), "")
  return flat
