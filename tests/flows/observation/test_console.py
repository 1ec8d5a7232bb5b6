"""From pieces to lines."""

import itertools
import threading

from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import Unavailable
from everloop.flows.observation.console import MASK, Console, secrets_of


class Kept:
    def __init__(self, failures=0):
        self.batches, self.failures, self.came = [], failures, threading.Event()

    def __call__(self, lines, first, last):
        if self.failures:
            self.failures -= 1
            raise Unavailable("the catalog is away")
        self.batches.append((list(lines), first, last))
        self.came.set()

    @property
    def texts(self):
        return [line.text for lines, _, _ in self.batches for line in lines]


def pieces(text, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(st.text("ab\u2028é ", max_size=12), min_size=1, max_size=8), st.lists(st.integers(0, 90)))
def test_lines_are_the_same_however_they_arrive(lines, cuts):
    kept = Kept()
    console = Console(lambda: 1, keep=kept)
    for piece in pieces("\n".join(lines) + "\n", cuts):
        console.wrote("out", piece)
    console.close()
    assert kept.texts == lines


@given(st.integers(0, 30_000), st.lists(st.integers(0, 60_000), max_size=6), st.booleans())
def test_a_secret_is_masked_also_in_pieces_and_in_endless_lines(before, cuts, ends):
    secret = "hunter2hunter2"
    kept, shown = Kept(), []
    console = Console(lambda: 1, secrets={secret}, keep=kept, show=lambda line: shown.append(line.text))
    for piece in pieces("x" * before + secret + "y" * 9000 + ("\n" if ends else ""), cuts):
        console.wrote("err", piece)
    console.close()
    for texts in (kept.texts, shown):
        assert "".join(texts) == "x" * before + MASK + "y" * 9000
        assert max(map(len, texts)) <= 8192


def test_what_a_progress_bar_wrote_over_is_not_kept():
    kept = Kept()
    console = Console(lambda: 1, keep=kept)
    for piece in ("  0%", "\r 50%", "\r100%\n", "windows\r\n", "\rlast"):
        console.wrote("err", piece)
    console.close()
    assert kept.texts == ["100%", "windows", "last"]


def test_lines_are_kept_while_the_step_runs_and_the_last_batch_is_told():
    kept = Kept()
    console = Console(lambda: 1, keep=kept)
    console.wrote("out", "begun\n")
    assert kept.came.wait(10)
    console.wrote("out", "and done")
    console.close()
    assert [(first, last) for _, first, last in kept.batches] == [(True, False), (False, True)]
    assert kept.texts == ["begun", "and done"]


def test_what_could_not_be_kept_comes_with_the_next_batch():
    kept = Kept(failures=1)
    console = Console(lambda: 1, keep=kept)
    for number in range(3):
        console.wrote("out", f"{number}\n")
    console._flush()
    console.wrote("out", "3\n")
    console.close()
    assert kept.texts == ["0", "1", "2", "3"]


def test_a_step_that_prints_nothing_keeps_nothing_and_starts_no_timer():
    kept, before = Kept(), threading.active_count()
    console = Console(lambda: 1, keep=kept)
    assert threading.active_count() == before
    console.close()
    assert kept.batches == []


def test_secrets_are_values_of_bindings_passwords_in_them_and_tokens_of_the_step():
    bindings = {
        "files": "/data/flights",
        "warehouse": "postgresql://ada:p%40ssw%C3%B6rd@db/flights",
        "key": "sk-123456",
        "short": "no",
    }
    environ = {"MLFLOW_TRACKING_TOKEN": "el_task_abc", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    assert secrets_of(bindings, environ) == {
        "postgresql://ada:p%40ssw%C3%B6rd@db/flights",
        "p%40ssw%C3%B6rd",
        "p@sswörd",
        "sk-123456",
        "el_task_abc",
    }
