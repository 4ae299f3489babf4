"""What docs/signatures.md tells receivers is true: its table, and its verifiers, which are run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher.clock import SYSTEM
from dispatcher.signing import SCHEMES, Scheme, Secret, public_keys, sign_all
from dispatcher.signing.standard_webhooks_v1a import write_whpk

TEXT = (Path(__file__).parents[2] / "docs/signatures.md").read_text()
ROWS = [
    [re.findall(r"`([^`]*)`", cell) or [cell.strip()] for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if re.match(r"\| `\w+` \|", line)
]
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL))

each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


def verifier(scheme: Scheme) -> Callable[[str, dict[str, str], bytes], None]:
    (block,) = re.findall(r"^```python\n(.*?)^```", SECTIONS[scheme.name], re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/signatures.md", "exec"), names)
    return names["verify"]  # type: ignore[no-any-return]


def published(scheme: Scheme, key: bytes) -> str:
    """The key as the receiver has it."""
    if scheme.key_owner == "endpoint":
        return Secret(key).reveal_whsec()
    return write_whpk(key) if scheme.name == "standard_webhooks_v1a" else public_keys.pem(key)


def test_every_scheme_has_its_row_and_its_section() -> None:
    assert [row[0] for row in ROWS] == [[name] for name in SCHEMES]
    assert list(SECTIONS) == list(SCHEMES)
    for (_, headers, content, _, keys, rotation), scheme in zip(ROWS, SCHEMES.values(), strict=True):
        assert tuple(headers) == scheme.header_names
        assert content == ["id.timestamp.content" if "webhook-timestamp" in headers else "content"]
        assert rotation == ["both sign" if scheme.signs_with_every_key else "the newest signs"]
        assert (keys == ["whsec_"]) == (scheme.key_owner == "endpoint")


@pytest.mark.parametrize("method", ["POST", "GET"])
@each_scheme
def test_the_verifier_that_is_shown_accepts_ours_and_refuses_the_rest(scheme: Scheme, method: str) -> None:
    verify = verifier(scheme)
    (new, new_public), (old, old_public) = scheme.generate_keys(), scheme.generate_keys()
    at = int(SYSTEM.now().timestamp())
    content = {"POST": b'{"amount": "12.30 \xe2\x82\xac"}', "GET": b"/notify?id=evt_1&object_id=a%20b"}[method]

    def signed(*keys: bytes, seconds_ago: int = 0) -> dict[str, str]:
        raw = sign_all([(scheme, keys)], message_id="evt_1", timestamp=at - seconds_ago, body=content)
        return {name.decode(): value.decode() for name, value in raw}

    verify(published(scheme, new_public), signed(new, old), content)
    if scheme.signs_with_every_key:
        verify(published(scheme, old_public), signed(new, old), content)
    with pytest.raises(Exception, match=r"InvalidSignature|No matching|^$"):
        verify(published(scheme, new_public), signed(new), content + b" ")
    with pytest.raises(Exception, match=r"InvalidSignature|No matching|^$"):
        verify(published(scheme, old_public), signed(new), content)
    if "webhook-timestamp" in scheme.header_names:
        with pytest.raises(Exception, match=r"InvalidSignature|too old|^$"):
            verify(published(scheme, new_public), signed(new, seconds_ago=400), content)
    else:
        verify(published(scheme, new_public), signed(new, seconds_ago=400), content)
        assert "can send it again" in SECTIONS[scheme.name]
