"""What shapes say in words of their own, for clients without the server, is what the model says."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, get_args

import pytest

from dispatcher import shapes
from dispatcher.model.access import Scope
from dispatcher.model.delivery import DeliveryState
from dispatcher.model.endpoint import EndpointStatus
from dispatcher.model.event import METHODS, Mode


@pytest.mark.parametrize(
    ("literal", "enum"), [(shapes.DeliveryStatus, DeliveryState), (shapes.Scope, Scope), (shapes.Mode, Mode)]
)
def test_a_literal_names_what_the_model_has(literal: Any, enum: type[StrEnum]) -> None:
    assert get_args(literal) == tuple(enum)


def test_an_endpoint_that_is_shown_is_not_deleted() -> None:
    assert set(get_args(shapes.EndpointStatus)) == set(EndpointStatus) - {EndpointStatus.DELETED}


def test_the_methods_are_those_of_the_model() -> None:
    assert set(get_args(shapes.Method)) == set(METHODS)
