"""Text from outside is shown on one line, without anything that a terminal obeys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keygap.text import one_line, printable, unprintable


def test_what_does_not_print_is_spelled_out() -> None:
    assert printable("a\x1b[31m\u202e\ud800b") == r"a\x1b[31m\u202e\ud800b"
    assert printable("a\r\nb\tc\u00a0d") == "a  b c d"
    assert printable("国 é 👩\u200d💻") == "国 é 👩\u200d💻"
    assert unprintable("a\u200bb") == r"\u200b"
    assert unprintable("/a b/国.png") is None


def test_a_long_text_loses_its_middle() -> None:
    said = one_line("a" * 5000 + "z")
    assert len(said) < 1100
    assert said.startswith("aaa")
    assert said.endswith("z")


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1
    one_line(text).encode()
