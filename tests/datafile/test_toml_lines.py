from __future__ import annotations

import doctest
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.datafile import toml_lines
from dispatcher.datafile.toml_lines import locate


def test_keys_and_elements_are_found_past_everything_that_looks_like_them() -> None:
    text = '''# waits = ["comment"]
description = """
waits = ["0s",
a quote \\""" and two at the end"""""
source = '''  + "'''literal \\\nwaits = 2''''\n" + '''waits = [   # [ in a comment
    "0s", "5s",

    # "a comment",
    "]", '],',
    ["nested", "deep"], {x = 1, y = [2, 3]},
    """
multi""", "last"
  ]
"jitter" = 0.0
a.b = 1
[table] # header
k = [1]
[[array]]
z = 2
[last.one]'''  # fmt: skip
    tomllib.loads(text)
    lines = locate(text)
    assert {key: line for key, line in lines.items() if key.startswith("waits")} == {
        "waits": 7, "waits[0]": 8, "waits[1]": 8, "waits[2]": 11, "waits[3]": 11, "waits[4]": 12, "waits[5]": 12,
        "waits[6]": 13, "waits[7]": 14,
    }  # fmt: skip
    assert lines["description"] == 2
    assert lines["source"] == 5
    assert lines["jitter"] == 16
    assert lines["a"] == lines["a.b"] == 17
    assert lines["table"] == 18
    assert lines["table.k[0]"] == 19
    assert lines["array.z"] == 21
    assert lines["last"] == 22


_values = st.sampled_from(
    ['"0s"', "'5s'", '"]"', '"#,["', '"""x\n\n"y"""', "'''\n'''", "1", "true", "[1, [2],\n 3]", "{a = 1}"]
)
_gaps = st.sampled_from(["", " ", "\n", "\n\n", " # \" ' ] ,\n", "\t"])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@given(elements=st.lists(st.tuples(_gaps, _values, _gaps), max_size=8), before=_gaps)
def test_each_element_is_found_where_it_was_written(
    newline: str, elements: list[tuple[str, str, str]], before: str
) -> None:
    text, expected = f"{before}waits = [", {}
    expected["waits"] = text.count("\n") + 1
    for index, (gap, value, after) in enumerate(elements):
        text += gap
        expected[f"waits[{index}]"] = text.count("\n") + 1
        text += value + after + ","
    text += "]\n"
    tomllib.loads(text)
    assert locate(text.replace("\n", newline)) == expected


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(toml_lines).failed == 0
