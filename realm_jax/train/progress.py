# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a running training: one live line, or a log.

Of several processes only the first shows how the run goes; the others print
what happens to them, such as a swap.
"""

from collections.abc import Mapping
import logging
import sys

from rich import console, progress

from realm_jax import hosts

_log = logging.getLogger(__name__)
# Metric -> its label and format on the live line, in this order.
_SHOWN = {
  "loss": ("loss", "{:.3f}"),
  "retrieval_utility": ("utility", "{:+.2f} nats"),
  "index/step": ("index of step", "{:.0f}"),
  "index/staleness_steps": ("age", "{:.0f} steps"),
  "steps_per_second": ("", "{:.2f} steps/s"),
}


class Progress:
  """A bar on a terminal, a line now and then elsewhere."""

  def __init__(self, stage: str, first_step: int, num_steps: int) -> None:
    self._stage, self._num_steps = stage, num_steps
    self._lead = hosts.is_lead()
    self._console = console.Console(stderr=True)
    self._bar = progress.Progress(
      progress.TextColumn("[bold]{task.description}"),
      progress.BarColumn(bar_width=24),
      progress.MofNCompleteColumn(),
      progress.TimeRemainingColumn(),
      progress.TextColumn("{task.fields[figures]}"),
      console=self._console,
      disable=not (self._lead and self._console.is_terminal),
    )
    self._task = self._bar.add_task(
      stage, total=num_steps, completed=first_step, figures="compiling"
    )

  def __enter__(self) -> "Progress":
    self._bar.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.stop()

  def advance(self, step: int) -> None:
    """Moves the bar to `step` updates done."""
    self._bar.update(self._task, completed=step)

  def show(self, step: int, scalars: Mapping[str, float]) -> None:
    """Shows the newest figures."""
    figures = "  ".join(
      f"{label} {form.format(scalars[name])}".strip()
      for name, (label, form) in _SHOWN.items()
      if name in scalars
    )
    self._bar.update(self._task, completed=step, figures=figures)
    if self._lead and not self._console.is_terminal:
      print(
        f"{self._stage} {step}/{self._num_steps}  {figures}",
        file=sys.stderr,
        flush=True,
      )

  def note(self, message: str) -> None:
    """Prints a line of its own, such as an index swap."""
    self._console.print(message, highlight=False, markup=False, soft_wrap=True)

  def warn(self, message: str) -> None:
    """Says once what needs a person: above the bar, or in the log."""
    if self._console.is_terminal:
      self.note(f"warning: {message}")
    else:
      _log.warning("%s", message)
