# SPDX-License-Identifier: Apache-2.0
import io
import sys

from realm_jax.commands import asking


def test_questions_are_the_lines_of_the_input(monkeypatch):
  monkeypatch.setattr(sys, "stdin", io.StringIO("Who?\n\n  Where? \nWhen?"))
  assert list(asking._lines("question: ")) == ["Who?", "Where?", "When?"]
