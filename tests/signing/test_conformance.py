"""What every scheme must do: a new one in SCHEMES is held to all of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.clock import SYSTEM
from dispatcher.signing import SCHEMES, RawHeaders, Scheme, Secret, VerificationError
from dispatcher.signing.platform_keys import load_key
from tests.signing.judges import JUDGES, STARTS_A_PROCESS, TAKES_TEXT_ONLY, Judge

ID = "evt_01890a5d-ac96-774b-bcce-b302099a8057"

each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
DATED = {name: scheme for name, scheme in SCHEMES.items() if "webhook-timestamp" in scheme.header_names}
each_dated_scheme = pytest.mark.parametrize("scheme", DATED.values(), ids=DATED.keys())
JUDGED = [
    pytest.param(SCHEMES[name], judge, id=f"{name}-{judge.__name__}")
    for name, judges in JUDGES.items()
    for judge in judges
]
each_judge = pytest.mark.parametrize(("scheme", "judge"), JUDGED)
each_quick_judge = pytest.mark.parametrize(
    ("scheme", "judge"), [one for one in JUDGED if one.values[1] not in STARTS_A_PROCESS]
)


def pair(scheme: Scheme, which: str = "new") -> tuple[bytes, bytes]:
    """The same keys in every test: to make an RSA key takes a tenth of a second and more."""
    return made(scheme.name, which)


@cache
def made(name: str, which: str) -> tuple[bytes, bytes]:
    return SCHEMES[name].generate_keys()


def now() -> int:
    return int(SYSTEM.now().timestamp())


def text(headers: RawHeaders) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def signed(scheme: Scheme, keys: list[bytes], body: bytes = b"{}", at: int | None = None) -> dict[str, str]:
    return text(scheme.sign(message_id=ID, timestamp=now() if at is None else at, body=body, keys=keys))


def refused_by(
    scheme: Scheme, headers: Mapping[str, str], body: bytes, keys: list[bytes], at: int | None = None
) -> str:
    with pytest.raises(VerificationError) as caught:
        scheme.verify(headers=headers, body=body, keys=keys, now=now() if at is None else at)
    return caught.value.flaw


def test_every_scheme_has_a_foreign_judge() -> None:
    assert set(JUDGES) == set(SCHEMES)


@each_scheme
def test_a_scheme_is_listed_under_its_name(scheme: Scheme) -> None:
    assert SCHEMES[scheme.name] is scheme
    assert scheme.key_owner in {"endpoint", "platform"}
    assert (scheme.key_kind is None) == (scheme.key_owner == "endpoint")


@each_scheme
def test_a_scheme_of_the_platform_takes_keys_of_its_kind(scheme: Scheme) -> None:
    if scheme.key_kind is not None:
        assert load_key(Secret(pair(scheme)[0])).kind == scheme.key_kind


@each_scheme
def test_a_scheme_adds_exactly_the_headers_that_it_declares(scheme: Scheme) -> None:
    headers = scheme.sign(message_id=ID, timestamp=1, body=b"", keys=[pair(scheme)[0]])
    assert tuple(name.decode() for name, _ in headers) == scheme.header_names
    assert all(name == name.lower() for name in scheme.header_names)
    assert all(value.isascii() and b"\n" not in value for _, value in headers)


@each_scheme
@given(body=st.binary(max_size=2_000))
def test_what_is_signed_verifies_whatever_the_bytes(scheme: Scheme, body: bytes) -> None:
    signing, verifying = pair(scheme)
    scheme.verify(headers=signed(scheme, [signing], body), body=body, keys=[verifying], now=now())


@each_scheme
@given(body=st.binary(min_size=1, max_size=200), data=st.data())
def test_a_body_of_which_one_bit_was_turned_does_not_verify(scheme: Scheme, body: bytes, data: st.DataObject) -> None:
    signing, verifying = pair(scheme)
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    turned = (int.from_bytes(body) ^ (1 << bit)).to_bytes(len(body))
    assert refused_by(scheme, signed(scheme, [signing], body), turned, [verifying]) == "no_match"


@each_scheme
def test_another_key_does_not_verify(scheme: Scheme) -> None:
    headers = signed(scheme, [pair(scheme)[0]])
    assert refused_by(scheme, headers, b"{}", [pair(scheme, "other")[1]]) == "no_match"
    assert refused_by(scheme, headers, b"{}", []) == "no_match"


@each_scheme
def test_header_names_are_read_in_any_case(scheme: Scheme) -> None:
    signing, verifying = pair(scheme)
    headers = {name.upper(): value for name, value in signed(scheme, [signing]).items()}
    scheme.verify(headers=headers, body=b"{}", keys=[verifying], now=now())


@each_scheme
def test_a_missing_or_empty_header_is_told(scheme: Scheme) -> None:
    signing, verifying = pair(scheme)
    headers = signed(scheme, [signing])
    for name in scheme.header_names:
        assert refused_by(scheme, {**headers, name: ""}, b"{}", [verifying]) == "missing_header"
        without = {other: value for other, value in headers.items() if other != name}
        assert refused_by(scheme, without, b"{}", [verifying]) == "missing_header"


@each_scheme
def test_nothing_is_signed_without_a_key(scheme: Scheme) -> None:
    with pytest.raises(ValueError, match="no key"):
        scheme.sign(message_id=ID, timestamp=1, body=b"", keys=[])


@each_scheme
def test_while_a_key_rotates_old_and_new_both_verify(scheme: Scheme) -> None:
    (new, new_public), (old, old_public) = pair(scheme), pair(scheme, "old")
    headers = signed(scheme, [new, old])
    scheme.verify(headers=headers, body=b"{}", keys=[new_public], now=now())
    if scheme.signs_with_every_key:
        scheme.verify(headers=headers, body=b"{}", keys=[old_public], now=now())
    else:
        assert headers == signed(scheme, [new])
    scheme.verify(headers=signed(scheme, [old]), body=b"{}", keys=[new_public, old_public], now=now())
    assert refused_by(scheme, signed(scheme, [new]), b"{}", [old_public]) == "no_match"


@each_dated_scheme
def test_id_and_timestamp_are_signed_too(scheme: Scheme) -> None:
    signing, verifying = pair(scheme)
    headers = signed(scheme, [signing])
    later = str(int(headers["webhook-timestamp"]) + 1)
    for name, value in (("webhook-id", ID + "0"), ("webhook-timestamp", later)):
        assert refused_by(scheme, {**headers, name: value}, b"{}", [verifying]) == "no_match"


@each_dated_scheme
@pytest.mark.parametrize(("age_s", "flaw"), [(300, None), (301, "too_old"), (-300, None), (-301, "too_new")])
def test_a_captured_delivery_counts_for_five_minutes(scheme: Scheme, age_s: int, flaw: str | None) -> None:
    signing, verifying = pair(scheme)
    headers = signed(scheme, [signing], at=1_614_265_330)
    if flaw is None:
        scheme.verify(headers=headers, body=b"{}", keys=[verifying], now=1_614_265_330 + age_s)
    else:
        assert refused_by(scheme, headers, b"{}", [verifying], at=1_614_265_330 + age_s) == flaw


@each_dated_scheme
@pytest.mark.parametrize("message_id", ["", "a.b", "é", "a\r\nx: y", "a\x7f"])
def test_an_id_that_would_make_the_signed_content_ambiguous_is_not_signed(scheme: Scheme, message_id: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII without a dot"):
        scheme.sign(message_id=message_id, timestamp=1, body=b"", keys=[pair(scheme)[0]])


@each_scheme
@given(signature=st.text(max_size=100))
def test_any_text_in_place_of_the_signature_is_refused_in_words(scheme: Scheme, signature: str) -> None:
    signing, verifying = pair(scheme)
    headers = {**signed(scheme, [signing]), scheme.header_names[-1]: signature}
    assert refused_by(scheme, headers, b"{}", [verifying]) in {"no_match", "missing_header"}


@each_judge
def test_a_foreign_judge_accepts_ours(scheme: Scheme, judge: Judge) -> None:
    signing, verifying = pair(scheme)
    for body in (b"", b"{}", b'{"amount": "12.30 \xe2\x82\xac", "nul": "\x00"}', b"\r\n.\n"):
        judge(verifying, signed(scheme, [signing], body), body)


@each_quick_judge
@given(body=st.binary(max_size=500), text_body=st.text(max_size=500))
def test_a_foreign_judge_accepts_any_bytes_of_ours(scheme: Scheme, judge: Judge, body: bytes, text_body: str) -> None:
    body = text_body.encode() if judge in TAKES_TEXT_ONLY else body
    signing, verifying = pair(scheme)
    judge(verifying, signed(scheme, [signing], body), body)


@each_judge
def test_a_foreign_judge_refuses_what_was_tampered_with(scheme: Scheme, judge: Judge) -> None:
    signing, verifying = pair(scheme)
    headers = signed(scheme, [signing])
    with pytest.raises(Exception, match=r"[Nn]o match"):
        judge(verifying, headers, b"{ }")
    if scheme.name in DATED:
        with pytest.raises(Exception, match=r"[Nn]o match"):
            judge(verifying, {**headers, "webhook-id": ID + "0"}, b"{}")
    with pytest.raises(Exception, match=r"[Nn]o match"):
        judge(pair(scheme, "other")[1], headers, b"{}")


@each_judge
def test_a_foreign_judge_accepts_both_keys_of_a_rotation(scheme: Scheme, judge: Judge) -> None:
    (new, new_public), (old, old_public) = pair(scheme), pair(scheme, "old")
    headers = signed(scheme, [new, old])
    judge(new_public, headers, b"{}")
    if scheme.signs_with_every_key:
        judge(old_public, headers, b"{}")
