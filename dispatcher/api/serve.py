"""The API's process."""

from __future__ import annotations

import uvicorn

from dispatcher import config, telemetry
from dispatcher.api.app import make_app


def main() -> None:
    """Serves until SIGTERM. Raises ConfigurationError where settings are missing."""
    settings = config.load()
    telemetry.set_up(log_format=settings.log_format, log_level=settings.log_level)
    uvicorn.run(
        make_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
