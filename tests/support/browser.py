"""A headless Chromium, driven over its DevTools protocol through two pipes. It reaches 127.0.0.1 only."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.support.patience import PATIENCE_S, until

COMMAND: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The path of a Chromium; None where this machine has none."""

_OPTIONS: Final = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1280,1600",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of one browser.

    `complaints` are the errors and warnings of its console, with violations of a content security policy; `requested`
    are the URLs that the page has asked for.
    """

    def __init__(self, folder: Path) -> None:
        assert COMMAND is not None
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        theirs_in, self._commands = os.pipe()
        self._messages, theirs_out = os.pipe()
        # The browser reads descriptor 3 and writes 4. Copies with high numbers cannot be these two.
        copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in (theirs_in, theirs_out)]
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        shell = ["/bin/bash", "-c", f'exec "$@" 3<&{copies[0]} 4>&{copies[1]}', "bash"]
        self._process = subprocess.Popen(
            [*shell, COMMAND, *_OPTIONS, *sandbox, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=copies,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for descriptor in (theirs_in, theirs_out, *copies):
            os.close(descriptor)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        until(lambda: number in self._answers or not self._reader.is_alive(), f"the browser has answered {method}")
        answer = self._answers.pop(number, None)
        assert answer is not None, f"the browser ended before it answered {method}"
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        result: dict[str, Any] = answer["result"]
        return result

    def go(self, url: str) -> None:
        """Opens a page, and forgets what the last one did."""
        self.call("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.requested.clear()
        result = self.call("Page.navigate", url=url)
        assert "errorText" not in result, f"{url}: {result.get('errorText')}"

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{expression}: {found.get('exceptionDetails')}"
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Waits until an expression in the page is true; its value."""
        value: Any = None

        def holds() -> bool:
            nonlocal value
            value = self.evaluate(expression)
            return bool(value)

        until(holds, f"the page has {expression}; its console says {self.complaints}")
        return value

    def click(self, selector: str) -> None:
        """Waits for an element, and clicks it."""
        self.wait(f"document.querySelector({json.dumps(selector)}) !== null")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def screenshot(self, path: Path) -> None:
        """Writes what is seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """Ends the browser."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        os.close(self._commands)
        os.close(self._messages)

    def _read(self) -> None:
        """Takes what the browser says, until it ends."""
        rest = b""
        while data := os.read(self._messages, 1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self._note(message["method"], message["params"])

    def _note(self, event: str, parameters: dict[str, Any]) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Log.entryAdded" if parameters["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}".strip())
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if parameters["type"] in {"error", "warning", "assert"}:
                self.complaints.append(" ".join(str(value.get("value")) for value in parameters["args"]))
            case "Audits.issueAdded" if "contentSecurityPolicyIssueDetails" in parameters["issue"]["details"]:
                self.complaints.append(json.dumps(parameters["issue"]["details"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser until the context ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = Browser(Path(folder))
        try:
            yield found
        finally:
            found.close()
