"""What a `%%flow` line says."""

from typing import Any

import pytest

from jupyterflow.magics._line import command_words, kind_help, magic_row, parse_line, typed
from jupyterflow.model import FlowError


def test_a_line_names_kind_node_upstreams_and_options() -> None:
    line = parse_line("map factors --from numbers more --parallelism 4 --batch --on-error retry 3")
    assert (line.kind, line.name, line.url, line.role) == ("map", "factors", None, "operator")
    assert line.upstreams == ["numbers", "more"]
    assert line.options == {"parallelism": ["4"], "batch": [], "on_error": ["retry", "3"]}


def test_a_source_or_sink_may_have_a_url() -> None:
    assert parse_line("source bids kafka://bids?codec=json").url == "kafka://bids?codec=json"
    assert parse_line("sink out 'file:my file' --from bids").url == "file:my file"


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("", "JF713", "write %%flow KIND NAME"),
        ("map", "JF713", "write %%flow KIND NAME"),
        ("mapp x", "JF108", "did you mean 'map'?"),
        ("map x y", "JF713", "what is 'y'?"),
        ("source a b c", "JF713", "what is 'c'?"),
        ("map x --from", "JF713", "--from names no node"),
        ("map x --batch --batch", "JF713", "stands there twice"),
        ("map 'x", "JF713", "no closing quotation"),
    ],
)
def test_a_line_that_cannot_be_read_is_told_in_one_line(text: str, code: str, part: str) -> None:
    with pytest.raises(FlowError) as caught:
        parse_line(text)
    assert caught.value.code == code
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "wanted", "value"),
    [
        ([], bool, True),
        (["false"], bool, False),
        (["4"], int, 4),
        (["1000"], float, 1000.0),
        (["0.5"], float, 0.5),
        (["end"], str, "end"),
        (["7"], str, "7"),
        (["retry", "3"], str, "retry 3"),
        (["0"], object, 0),
        (["{}"], object, {}),
        (["dict"], object, dict),
        (["mine"], object, "found"),
        (["four"], int, "four"),
    ],
)
def test_options_get_the_types_of_the_catalogue(words: list[str], wanted: Any, value: Any) -> None:
    got = typed("option", words, wanted, {"mine": "found"})
    assert got == value
    assert type(got) is type(value)


def test_help_of_a_kind_lists_its_options() -> None:
    assert "--parallelism" in kind_help("map")
    assert "kafka:" in kind_help("source")
    assert "--rate" in kind_help("source")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("# all of it", []),
        ("run   # don't", ["run"]),
        ("export out#1.json #2", ["export", "out#1.json"]),
        ("use 'a # b' # c", ["use", "a # b"]),
    ],
)
def test_a_comment_behind_a_command_is_left_out(text: str, words: list[str]) -> None:
    assert command_words(text) == words


def test_only_comments_may_stand_above_a_cells_magic() -> None:
    assert magic_row(["# a\n", "\n", "%%flow map x\n", "1"]) == 2
    assert magic_row(["x = 1\n", "%%flow map x\n"]) is None
    assert magic_row(["%%flowers\n"]) is None
