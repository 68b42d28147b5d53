"""Marks say which part of a text is a piece, and leave no trace when they are removed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygap.benchmarks import BadSample
from keygap.models.prompting.marks import marked, read_marks, with_image_marks, without_marks

TEXT = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["hint", "question", "option"])), max_size=4))
def test_pieces_are_read_where_they_were_marked(blocks):
    text = "".join(before + marked(piece, role) for before, piece, role in blocks)
    read = read_marks(text)
    plain = "".join(before + piece for before, piece, _ in blocks)
    assert read.text == without_marks(text) == plain
    found = [(read.text[start:stop], role) for start, stop, role in read.pieces]
    assert found == [(piece, role) for _, piece, role in blocks if piece]


def test_neighbours_of_a_piece_are_its_own_characters():
    text = f"<{marked('What?', 'question')}>"
    assert text.startswith("<W")
    assert text.endswith("?>")


def test_images_are_numbered_in_order():
    read = read_marks(with_image_marks("a<image>b<video><image>", ["<image>", "<video>", ""]))
    assert [read.text[start:stop] for start, stop in read.images] == [
        "<image>",
        "<video>",
        "<image>",
    ]


def test_white_space_stays_outside_on_request():
    read = read_marks(marked("  a b\n", "hint", around_space=False))
    assert read.text == "  a b\n"
    assert read.pieces == ((2, 5, "hint"),)
    assert marked("  ", "hint", around_space=False) == "  "


def test_a_text_with_marks_is_refused():
    with pytest.raises(BadSample, match="private-use"):
        marked(marked("ab", "hint"), "question")
