"""`/docs`: the page loads nothing from another host, and no script but its own files runs on it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from dispatcher.api import reference
from dispatcher.api.app import make_app
from dispatcher.config import Settings
from tests.api.operations import OPERATIONS
from tests.support import browser, walk
from tests.support.browser import Browser
from tests.support.patience import until
from tests.support.served import Served, served

with_browser = pytest.mark.skipif(browser.COMMAND is None, reason="no Chromium on this machine")


class Page(HTMLParser):
    """What a page loads, and whether any script or style stands in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        address = given.get("href") if tag == "link" else given.get("src")
        if address and not address.startswith("data:"):
            self.loads.append(address)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]


async def test_the_page_loads_its_own_files_only(api: httpx.AsyncClient) -> None:
    answer = await api.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert page.inline == []
    addresses = [urljoin("http://test/docs", address) for address in page.loads]
    assert {urlsplit(address).netloc for address in addresses} == {"test"}
    assert {urlsplit(address).path.rpartition("/")[2] for address in addresses} == set(reference._BY_NAME)
    for address in addresses:
        loaded = await api.get(address, headers={"accept-encoding": "gzip"})
        assert loaded.status_code == 200, address
        assert loaded.headers["content-type"] in {"text/css; charset=utf-8", "text/javascript; charset=utf-8"}


async def test_the_page_lets_no_other_host_in(api: httpx.AsyncClient) -> None:
    policy = (await api.get("/docs")).headers["content-security-policy"]
    directives = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    for sources in directives.values():
        assert set(sources.split()) <= {"'none'", "'self'", "data:"}


async def test_a_bundled_file_is_sent_as_it_is_stored_or_uncompressed(api: httpx.AsyncClient) -> None:
    path = "/docs/swagger-ui.css"
    stored = (reference._PAGES / "swagger_ui/swagger-ui.css.gz").read_bytes()
    for accepted in ("gzip", "br, gzip;q=0.5", "GZIP"):
        compressed = await api.get(path, headers={"accept-encoding": accepted})
        assert compressed.headers["content-encoding"] == "gzip"
        assert int(compressed.headers["content-length"]) == len(stored)
        assert compressed.content == gzip.decompress(stored)
    for refused in ("identity", "br", "gzip;q=0", "gzip; q=0.00, br"):
        plain = await api.get(path, headers={"accept-encoding": refused})
        assert "content-encoding" not in plain.headers
        assert plain.content == gzip.decompress(stored)
    assert plain.headers["vary"] == "accept-encoding"


async def test_an_unchanged_file_is_not_sent_again(api: httpx.AsyncClient) -> None:
    first = await api.get("/docs/docs.js")
    again = await api.get("/docs/docs.js", headers={"if-none-match": first.headers["etag"]})
    changed = await api.get("/docs/docs.js", headers={"if-none-match": 'W/"0"'})
    assert (again.status_code, again.content) == (304, b"")
    assert (changed.status_code, changed.content) == (200, first.content)


@pytest.mark.parametrize(
    "name", ["none", "docs.html", "LICENSE", "..%2freference.py", "swagger-ui.css.gz", "oauth2-redirect"]
)
async def test_no_other_file_is_served(api: httpx.AsyncClient, name: str) -> None:
    answer = await api.get(f"/docs/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "NOT_FOUND"


# In a browser


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server without a database, which the page does not need."""
    settings = Settings(database_url="postgresql+psycopg://x@127.0.0.1:1/x", secret_keys=walk.KEYS.reveal())
    with served(make_app(settings, prepare=False)) as found:
        yield found


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser.browser() as found:
        yield found


@with_browser
def test_a_browser_shows_every_operation_and_calls_one(server: Served, page: Browser) -> None:
    page.go(f"{server.url}/docs")
    page.wait(f"document.querySelectorAll('.opblock').length >= {len(OPERATIONS)}")
    operation = "#operations-health-checkLiveness"
    page.click(f"{operation} .opblock-summary-control")
    page.click(f"{operation} .try-out__btn")
    page.click(f"{operation} .execute")
    status = page.wait(
        f"document.querySelector('{operation} .live-responses-table tbody .response-col_status')?.innerText"
    )
    assert status.split() == ["200"]
    assert page.complaints == []
    hosts = {urlsplit(url).netloc for url in page.requested if not url.startswith("data:")}
    assert hosts == {urlsplit(server.url).netloc}


INTRUSIONS = {
    "script-src": "const added = document.createElement('script'); added.text = 'window.ran = 1'; body.append(added)",
    "img-src": "body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.ran=1>')",
    "style-src": "body.insertAdjacentHTML('beforeend', '<p style=color:red>x</p>')",
    "connect-src": "fetch('http://127.0.0.1:1/x').catch(() => 0)",
    "default-src": "body.append(document.createElement('iframe')); frames[0].location = '/healthz'",
}
"""What the policy's directives refuse."""


@with_browser
def test_a_browser_refuses_what_is_not_the_pages_own(server: Served, page: Browser) -> None:
    page.go(f"{server.url}/docs")
    page.wait("document.body !== null")
    for directive, intrusion in INTRUSIONS.items():
        page.evaluate(f"{{ const body = document.body; {intrusion} }}; 0")
        until(
            lambda directive=directive: any(directive in complaint for complaint in page.complaints),
            f"a complaint names {directive}",
        )
    assert page.evaluate("window.ran") is None
