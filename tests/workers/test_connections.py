"""The connections of workers and the scheduler, after what a server may do to a statement."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


async def test_a_connection_whose_rollback_was_cancelled_is_replaced(hot: AsyncEngine) -> None:
    async with hot.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute("BEGIN")  # what a ROLLBACK leaves behind that was cancelled
    async with hot.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        assert (await connection.get_raw_connection()).driver_connection is not driver
    assert driver.closed
