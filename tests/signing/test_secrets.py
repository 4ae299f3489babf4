from __future__ import annotations

import base64
import copy
import dataclasses
import doctest
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigurationError, DispatcherError, InvalidInput
from dispatcher.signing import Keyring, SealError, Secret, generate_secret, parse_secret, secrets

PLANTED = b"planted-canary-of-32-bytes-aaaaa"
PLANTED_TEXT = base64.b64encode(PLANTED).decode()

PLACE = {"tenant": "ten_1", "endpoint": "ep_1", "purpose": "signing"}


def whole_traceback(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format(chain=True))


def assert_hidden(text: str) -> None:
    assert "planted" not in text
    assert PLANTED_TEXT[:12] not in text


class TestSecret:
    @pytest.mark.parametrize("show", [repr, str, ascii, "{}".format, "{!r:>40}".format, "{:>40}".format, "%s".__mod__])
    def test_no_way_of_showing_shows_the_value(self, show: Callable[[Secret], str]) -> None:
        shown = show(Secret(PLANTED))
        assert_hidden(shown)
        assert "Secret(" in shown

    def test_what_holds_a_secret_does_not_show_it(self) -> None:
        @dataclasses.dataclass
        class Holder:
            secret: Secret

        holder = Holder(Secret(PLANTED))
        assert_hidden(f"{holder} {[holder.secret]} {dataclasses.asdict(holder)}")

    def test_a_log_line_does_not_show_it(self, caplog: pytest.LogCaptureFixture) -> None:
        logging.getLogger("x").warning("%s %r", Secret(PLANTED), Secret(PLANTED))
        assert_hidden(caplog.text)

    def test_it_has_no_dict_no_json_and_no_pickle(self) -> None:
        secret = Secret(PLANTED)
        assert not hasattr(secret, "__dict__")
        with pytest.raises(TypeError) as caught:
            json.dumps(secret)
        assert_hidden(whole_traceback(caught.value))
        with pytest.raises(TypeError, match="never pickled"):
            pickle.dumps(secret)

    def test_a_copy_is_the_same(self) -> None:
        secret = Secret(PLANTED)
        assert copy.copy(secret) is secret
        assert copy.deepcopy(secret) is secret

    def test_secrets_compare_by_value(self) -> None:
        assert Secret(b"a") == Secret(b"a")
        assert Secret(b"a") != Secret(b"b")
        assert Secret(b"a") != b"a"
        assert len({Secret(b"a"), Secret(b"a")}) == 1


class TestSigningSecret:
    def test_a_new_one_has_32_random_bytes_and_the_prefix(self) -> None:
        text = generate_secret().reveal_whsec()
        assert text.startswith("whsec_")
        assert len(base64.b64decode(text.removeprefix("whsec_"))) == 32
        assert generate_secret() != generate_secret()

    @given(st.binary(min_size=24, max_size=64), st.booleans())
    def test_what_is_written_is_parsed_with_and_without_the_prefix(self, value: bytes, prefixed: bool) -> None:
        text = Secret(value).reveal_whsec()
        assert parse_secret(text if prefixed else text.removeprefix("whsec_")) == Secret(value)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("", "0 bytes"),
            ("whsec_", "0 bytes"),
            (base64.b64encode(PLANTED[:23]).decode(), "23 bytes"),
            (base64.b64encode(PLANTED * 2 + b"x").decode(), "65 bytes"),
            (PLANTED_TEXT.rstrip("="), "not strict base64"),
            (PLANTED_TEXT + "\n", "not strict base64"),
            (" " + PLANTED_TEXT, "not strict base64"),
            ("whsec_whsec_" + PLANTED_TEXT, "not strict base64"),
            ("WHSEC_" + PLANTED_TEXT, "not strict base64"),
            (base64.urlsafe_b64encode(b"\xff" * 32).decode(), "not strict base64"),
            (PLANTED_TEXT[:-2] + "F=", "not strict base64"),  # stray bits in the last character
            (PLANTED_TEXT + "é", "not strict base64"),
            (PLANTED_TEXT + "\udcff", "not strict base64"),
            (PLANTED.decode(), "not strict base64"),
        ],
    )
    def test_a_broken_one_is_refused_without_being_repeated(self, text: str, found: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            parse_secret(text, pointer="/endpoints/0/secret")
        assert caught.value.pointer == "/endpoints/0/secret"
        assert found in caught.value.found
        assert "24 to 64 bytes" in caught.value.allowed
        assert_hidden(whole_traceback(caught.value))

    def test_the_example_in_the_docstring_holds(self) -> None:
        assert doctest.testmod(secrets).failed == 0


A, B = (base64.b64encode(bytes([byte]) * 32).decode() for byte in b"ab")


class TestKeyring:
    def test_the_first_key_is_the_active_one(self) -> None:
        keyring = Keyring.parse(f" new:{A} ,\nold:{B}")
        assert (keyring.active_id, keyring.ids) == ("new", ("new", "old"))

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("", [("entry 1", "no colon")]),
            (PLANTED_TEXT, [("entry 1", "no colon")]),
            (f"a:{A},", [("entry 2", "no colon")]),
            (f":{A}", [("entry 1", "a malformed id")]),
            (f"a.b:{A}", [("entry 1", "a malformed id")]),
            (f"{PLANTED_TEXT}:{A}", [("entry 1", "a malformed id")]),
            (f"a:{A},a:{B}", [("entry 2", "the id a again")]),
            (f"a:{A},b:{A}", [("entry 2", "the key of another entry")]),
            ("a:", [("entry 1", "a key of 0 bytes")]),
            (f"a:{PLANTED_TEXT[:-4]}", [("entry 1", "a key of 30 bytes")]),
            (f"a:{PLANTED.decode()}", [("entry 1", "a key that is not strict base64")]),
            (
                f"ä:x,b:{A},b:{A},c",
                [
                    ("entry 1", "a malformed id"),
                    ("entry 1", "a key that is not strict base64"),
                    ("entry 3", "the id b again"),
                    ("entry 3", "the key of another entry"),
                    ("entry 4", "no colon"),
                ],
            ),
        ],
    )
    def test_everything_wrong_is_told_at_once_and_no_key_repeated(
        self, text: str, found: list[tuple[str, str]]
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Keyring.parse(text)
        assert [(problem.field, problem.found) for problem in caught.value.problems] == found
        assert {problem.where for problem in caught.value.problems} == {"DISPATCHER_SECRET_KEYS"}
        assert_hidden(whole_traceback(caught.value))
        assert A not in str(caught.value)

    def test_a_generated_one_reads_back(self) -> None:
        keyring = Keyring.generate()
        sealed = keyring.seal(PLANTED, **PLACE)
        assert Keyring.parse(keyring.reveal()).open(sealed, **PLACE) == Secret(PLANTED)
        assert Keyring.generate().active_id != keyring.active_id

    def test_it_shows_its_ids_only_and_is_never_pickled(self) -> None:
        keyring = Keyring({"a": PLANTED})
        assert repr(keyring) == "Keyring(a)"
        with pytest.raises(TypeError, match="never pickled"):
            pickle.dumps(keyring)

    @pytest.mark.parametrize("keys", [{}, {"a": b"short"}])
    def test_none_is_made_without_a_whole_key(self, keys: dict[str, bytes]) -> None:
        with pytest.raises(ValueError, match="at least one key, each of 32 bytes"):
            Keyring(keys)


class TestSealing:
    keyring = Keyring.parse(f"new:{A},old:{B}")

    @given(st.binary(max_size=200))
    def test_what_is_sealed_opens_in_its_place(self, value: bytes) -> None:
        assert self.keyring.open(self.keyring.seal(value, **PLACE), **PLACE) == Secret(value)
        assert self.keyring.open(self.keyring.seal(Secret(value), **PLACE), **PLACE).reveal() == value

    def test_the_text_carries_version_and_key_and_not_the_value(self) -> None:
        sealed = self.keyring.seal(PLANTED, **PLACE)
        assert sealed.startswith("v1.new.")
        assert PLANTED not in base64.b64decode(sealed.rpartition(".")[2])

    def test_the_same_value_never_seals_alike(self) -> None:
        assert len({self.keyring.seal(PLANTED, **PLACE) for _ in range(100)}) == 100

    @pytest.mark.parametrize("part", ["tenant", "endpoint", "purpose"])
    def test_a_value_moved_to_another_place_does_not_open(self, part: str) -> None:
        sealed = self.keyring.seal(PLANTED, **PLACE)
        with pytest.raises(SealError, match="sealed for another tenant, endpoint or purpose"):
            self.keyring.open(sealed, **{**PLACE, part: "other"})

    def test_an_id_may_be_a_uuid(self) -> None:
        tenant = UUID(int=1)
        sealed = self.keyring.seal(b"x", tenant=tenant, endpoint="", purpose="auth")
        assert self.keyring.open(sealed, tenant=str(tenant), endpoint="", purpose="auth") == Secret(b"x")

    def test_a_bar_in_a_place_is_refused_since_two_places_would_look_alike(self) -> None:
        with pytest.raises(ValueError, match="two places look alike"):
            self.keyring.seal(b"x", tenant="a|b", endpoint="c", purpose="d")

    @given(st.data())
    def test_a_value_of_which_one_bit_was_turned_does_not_open(self, data: st.DataObject) -> None:
        head, _, encoded = self.keyring.seal(PLANTED, **PLACE).rpartition(".")
        content = bytearray(base64.b64decode(encoded))
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.raises(SealError, match="key new does not open this value"):
            self.keyring.open(f"{head}.{base64.b64encode(content).decode()}", **PLACE)

    def test_a_value_renamed_to_another_key_does_not_open(self) -> None:
        sealed = self.keyring.seal(PLANTED, **PLACE).replace("v1.new.", "v1.old.")
        with pytest.raises(SealError, match="key old does not open this value") as caught:
            self.keyring.open(sealed, **PLACE)
        assert caught.value.__cause__ is not None
        assert_hidden(whole_traceback(caught.value))

    def test_a_missing_key_is_named(self) -> None:
        sealed = Keyring.parse(f"gone:{A}").seal(PLANTED, **PLACE)
        with pytest.raises(SealError, match=r"key gone, which is not in the keyring \(new, old\)"):
            self.keyring.open(sealed, **PLACE)

    @pytest.mark.parametrize(
        ("sealed", "found"),
        [
            ("", "not a sealed value"),
            ("v2.new.AAAA", "not a sealed value"),
            ("v1..AAAA", "not a sealed value"),
            ("v1.new", "cut short: 0 bytes"),
            ("v1.new.AA", "not a sealed value"),
            (PLANTED_TEXT, "not a sealed value"),
            ("v1.new." + base64.b64encode(bytes(27)).decode(), "cut short: 27 bytes"),
        ],
    )
    def test_what_is_no_sealed_value_is_told_so(self, sealed: str, found: str) -> None:
        with pytest.raises(SealError, match=found) as caught:
            self.keyring.open(sealed, **PLACE)
        assert isinstance(caught.value, DispatcherError)
        assert_hidden(whole_traceback(caught.value))

    @given(st.text(max_size=100))
    def test_any_text_is_refused_as_a_seal_error(self, text: str) -> None:
        with pytest.raises(SealError):
            self.keyring.open(text, **PLACE)

    def test_rewrap_moves_a_value_to_the_active_key(self) -> None:
        old = Keyring.parse(f"old:{B}").seal(PLANTED, **PLACE)
        assert not self.keyring.is_active(old)
        new = self.keyring.rewrap(old, **PLACE)
        assert self.keyring.is_active(new)
        assert Keyring.parse(f"new:{A}").open(new, **PLACE) == Secret(PLANTED)

    def test_a_rotated_keyring_still_opens_what_the_old_one_sealed(self) -> None:
        rotated = self.keyring.rotated()
        assert rotated.ids[1:] == self.keyring.ids
        assert rotated.open(self.keyring.seal(PLANTED, **PLACE), **PLACE) == Secret(PLANTED)
        with pytest.raises(SealError, match="not in the keyring"):
            self.keyring.open(rotated.seal(PLANTED, **PLACE), **PLACE)
