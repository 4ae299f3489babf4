"""Changes of an endpoint that meet one another."""

from __future__ import annotations

import threading

from sqlalchemy import Engine

from dispatcher.flow import register
from dispatcher.signing import Keyring
from tests.support import walk


def test_of_two_rotations_at_once_neither_forgets_the_secret_of_the_other(engine: Engine) -> None:
    desk = register.Register(Keyring.generate(), walk.PROFILES)
    with engine.begin() as connection:
        endpoint, first = desk.create(connection, register.NewEndpoint(url="https://shop.example.com/"))
    shown = [first]

    def rotate() -> None:
        with engine.begin() as connection:
            shown.append(desk.rotate_secret(connection, endpoint.id))

    with engine.begin() as connection:
        shown.append(desk.rotate_secret(connection, endpoint.id))
        other = threading.Thread(target=rotate)
        other.start()
        walk.wait_until_blocked(engine)
    other.join()
    with engine.connect() as connection:
        kept = register.find(connection, endpoint.id).secrets
    opened = [
        desk.keyring.open(one.sealed, tenant=endpoint.tenant_id, endpoint=endpoint.id, purpose=register.SECRET_PURPOSE)
        for one in kept
    ]
    assert opened == list(reversed(shown))
