"""Problems: why a request, or one object of many, was refused."""

from __future__ import annotations

from typing import Annotated, Final

from typing_extensions import TypedDict

from dispatcher.shapes.about import About

MAX_FAULTS: Final = 100
"""Named in one problem: a list of 100,000 items can have as many faults."""


class Fault(TypedDict):
    """One fault: where it is, what was found and what is allowed."""

    pointer: Annotated[
        str, About("A JSON pointer into the body, `/` for the whole body, or the name of a parameter.", "/url")
    ]
    detail: Annotated[str, About(example="found the scheme 'http'; allowed: https")]


class Refusal(TypedDict):
    """Why one object of many was refused, as if it had been sent alone."""

    code: Annotated[str, About(example="INVALID_INPUT")]
    detail: Annotated[str, About(example="/url: found the scheme 'http'; allowed: https")]
    errors: Annotated[list[Fault], About("The faults; their pointers are relative to the object.", [])]


class Problem(TypedDict):
    """Why a request was refused (RFC 9457)."""

    type: Annotated[str, About(example="urn:dispatcher:problem:invalid-input")]
    title: Annotated[str, About(example="Unprocessable Content")]
    status: Annotated[int, About(example=422)]
    detail: Annotated[str, About(example="/url: found the scheme 'http'; allowed: https")]
    instance: Annotated[str, About("The path of the request.", "/v1/endpoints")]
    code: Annotated[str, About("A code for programs. It does not change.", "INVALID_INPUT")]
    errors: Annotated[
        list[Fault],
        About(
            f"Each fault that was found, if some can be named; of more than {MAX_FAULTS} the first.",
            [{"pointer": "/url", "detail": "found the scheme 'http'; allowed: https"}],
        ),
    ]
    request_id: Annotated[
        str,
        About(
            "The id of the request, which is also in the header x-request-id.",
            "req_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e",
        ),
    ]
