"""When an answer ends, and which of its text may be shown."""

from __future__ import annotations

import pytest

from berth_api.wire import Sampling
from berth_worker.engine.answer import Answer
from berth_worker.engine.text import StopStrings
from workerkit.fakes import EOS, FakeStream


def said(text: str, tail: list[int] | None = None, new: int = 100, stop_ids: set[int] | None = None, **options):
    """Push a text token by token; return (pieces shown, finish reason, text of the end)."""
    stops = frozenset({EOS} if stop_ids is None else stop_ids)
    answer = Answer(Sampling(max_new_tokens=new, **options), FakeStream(), stops, new)
    pieces = []
    for token in [*map(ord, text), *(tail or [])]:
        shown, finish = answer.push(token)
        pieces.append(shown)
        if finish is not None:
            return pieces, finish, answer.flush(finish)
    return pieces, None, ""


def test_eos_ends_an_answer_and_shows_nothing():
    pieces, finish, rest = said("ab", [EOS])
    assert ("".join(pieces) + rest, finish.type, finish.matched) == ("ab", "stop", EOS)


def test_a_stop_id_is_trimmed_unless_told_otherwise():
    assert said("abc", stop_ids={ord("c")})[0] == ["a", "b", ""]
    assert said("abc", stop_ids={ord("c")}, no_stop_trim=True)[0] == ["a", "b", "c"]


def test_length_ends_an_answer_where_nothing_else_does():
    assert said("abcd", new=3)[1].type == "length"
    assert said("ab", [EOS], new=3)[1].type == "stop"


def test_a_possible_stop_string_is_held_back_and_shown_when_it_is_none():
    assert said("xENx", stop="END")[0] == ["x", "", "", "ENx"]


def test_a_stop_string_is_trimmed_and_what_was_before_it_is_shown():
    pieces, finish, rest = said("xyEND", stop=["END", "Q"])
    assert ("".join(pieces) + rest, finish.matched) == ("xy", "END")
    pieces, finish, rest = said("xyEND", stop="END", no_stop_trim=True)
    assert "".join(pieces) + rest == "xyEND"


def test_what_was_held_back_comes_at_the_end():
    pieces, finish, rest = said("xEN", new=3, stop="END")
    assert ("".join(pieces), rest, finish.type) == ("x", "EN", "length")
    pieces, finish, rest = said("xEN", [EOS], stop="END")
    assert ("".join(pieces), rest) == ("x", "EN")


def test_half_a_character_comes_at_the_end_as_a_replacement():
    pieces, _, rest = said("x", [299], new=2)
    assert (pieces, rest) == (["x", ""], "\ufffd")


def test_nothing_ends_an_answer_before_min_new_tokens():
    pieces, finish, _ = said("aSb", [EOS, ord("S")], stop="S", min_new_tokens=5)
    assert ("".join(pieces), finish.matched) == ("aSb", "S")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_stop_strings_do_not_depend_on_how_text_is_cut(size):
    text = "one two STOP three"
    strings, shown, found = StopStrings(("STOP", "TOPS"), keep_match=False), "", None
    for at in range(0, len(text), size):
        piece, found = strings.push(text[at : at + size])
        shown += piece
        if found:
            break
    assert (shown, found) == ("one two ", "STOP")


def test_the_earliest_stop_string_wins_and_the_longest_of_those():
    assert StopStrings(("b", "ab"), keep_match=False).push("xab") == ("x", "ab")
    assert StopStrings(("ab", "abc"), keep_match=True).push("xabcd") == ("xabc", "abc")
