"""Names and ids: what Chroma takes, and its words for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api.names import check_database_name, name_problem, parse_collection_id, parse_uuid
from cluster.errors import Refusal

if TYPE_CHECKING:
    import uuid

ID = "9507169c-e980-43da-9a0a-32e123d29882"


@pytest.mark.parametrize("name", ["abc", "a.b", "a-_.b", "x" * 512, "abc+def", "1.2.3", "01.2.3.4", "A1z"])
def test_good_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "3-512 characters from"),
        ("ab", "3-512 characters from"),
        ("abc\n", "3-512 characters from"),
        ("-ab", "3-512 characters from"),
        ("é" * 5, "3-512 characters from"),
        ("x" * 513, "3-512 characters from"),
        ("a..b", "two consecutive periods"),
        ("1.2.3.4", "valid ip address"),
        ("a+bcd", "3-512 characters from"),
        ("abc+de", "3-512 characters from"),
        ("abc+def+ghi", "Got two `+`"),
        ("a" * 300 + "+" + "b" * 300, "Got: 601"),
    ],
)
def test_bad_names(name: str, words: str) -> None:
    assert words in (name_problem(name) or "")


@pytest.mark.parametrize("form", ["{0}", "{{{0}}}", "urn:uuid:{0}"])
def test_forms_of_a_uuid(form: str) -> None:
    assert parse_uuid(form.format(ID)) == ID
    assert parse_uuid(form.format(ID.upper())) == ID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nope",
        ID[:-1],
        ID + "0",
        f"({ID})",
        f"URN:UUID:{ID}",
        f"urn:uuid:{{{ID}}}",
        ID.replace("-", "_"),
        f" {ID}",
        "{" + ID.replace("-", "") + "}",
        ID.replace("9", "g"),
    ],
)
def test_what_is_no_uuid(text: str) -> None:
    assert parse_uuid(text) is None
    with pytest.raises(Refusal, match="not a valid UUIDv4") as caught:
        parse_collection_id(text)
    assert caught.value.status == 400


@given(st.uuids())
def test_every_uuid_is_read(value: uuid.UUID) -> None:
    assert parse_uuid(str(value)) == parse_uuid(value.hex) == str(value)


def test_database_names_are_measured_in_bytes() -> None:
    check_database_name("éé")
    with pytest.raises(Refusal, match="at least 3 characters"):
        check_database_name("ab")
