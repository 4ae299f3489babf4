"""A word that a command does not know is answered with the nearest that it does."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from dispatcher.cli import cli


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("evnts",), "Did you mean one of: 'event-types', 'events', 'tenants'?"),
        (("events", "sendd"), "Did you mean 'send'?"),
        (("events", "list", "--outptu", "json"), "Did you mean '--output'?"),
        (("events", "list", "--output", "jsn"), "(did you mean json?)"),
        (("deliveries", "list", "--status", "waitng"), "(did you mean waiting?)"),
        (("sign", "--scheme", "standard_webhook_v1"), "(did you mean standard_webhooks_v1?)"),
        (("signing-keys", "generate", "ed2519"), "(did you mean ed25519?)"),
        (("keys", "create", "till", "--scope", "event:write"), "(did you mean events:write?)"),
        (("profiles", "list", "--output", "tabel"), "(did you mean table?)"),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(words: tuple[str, ...], meant: str) -> None:
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == 2
    assert meant in ran.stderr


def test_what_is_like_no_choice_is_answered_with_the_choices() -> None:
    ran = CliRunner().invoke(cli, ["events", "list", "--output", "xml"])
    assert "'xml' is not one of 'table', 'json'.\n" in ran.stderr
