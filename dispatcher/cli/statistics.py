"""`dispatcher stats`: how deliveries fare."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

import click

from dispatcher.cli import target
from dispatcher.cli.arguments import Id
from dispatcher.cli.output import console, output_option, print_fields, print_json, print_line, print_table, styled
from dispatcher.ids import format_id
from dispatcher.model.duration import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.text import Text

    from dispatcher.cli.output import Output
    from dispatcher.shapes import AttemptCounts, AttemptsToSuccess, Backlog, EndCounts, Statistics, StatisticsGroup

BARS: Final = "▁▂▃▄▅▆▇█"
NOTHING: Final = "·"
WELL: Final = 0.99
POORLY: Final = 0.95
_STEPS: Final = {300: "5 minutes", 3600: "hour", 4 * 3600: "4 hours", 24 * 3600: "day"}
_TRIES: Final = 5
_NAMES: Final = {"endpoint": ("url",), "tenant": ("name",)}

WIDE: Final = 120
"""From so many columns on, ids are shown beside names."""


@click.command()
@click.option("--window", type=click.Choice(["1h", "24h", "7d", "30d"]), default="24h", show_default=True)
@click.option("--tenant", "tenant_id", type=Id("ten"), help="Only its deliveries.")
@click.option("--endpoint", "endpoint_id", type=Id("ep"), help="Only deliveries to it.")
@click.option("--event-type", help="Only deliveries of this type.")
@click.option("--mode", type=click.Choice(["live", "test"]), default="live", show_default=True, help="Only this mode.")
@click.option(
    "--by",
    type=click.Choice(["endpoint", "event_type", "tenant", "none"]),
    help="Whose failures to list.  [default: endpoint, unless one is named]",
)
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="How many of these to list.")
@output_option
def stats(
    window: Literal["1h", "24h", "7d", "30d"],
    tenant_id: UUID | None,
    endpoint_id: UUID | None,
    event_type: str | None,
    mode: Literal["live", "test"],
    by: Literal["endpoint", "event_type", "tenant", "none"] | None,
    limit: int,
    output: Output,
) -> None:
    """Show success rates and latencies.

    It also shows the attempts that success took, what waits, and who fails most.
    """
    with target.client() as client:
        found = client.statistics(
            window=window,
            tenant_id=None if tenant_id is None else format_id("ten", tenant_id),
            endpoint_id=None if endpoint_id is None else format_id("ep", endpoint_id),
            event_type=event_type,
            mode=mode,
            by=by or ("endpoint" if endpoint_id is None else "event_type"),
            limit=limit,
        )
    if output == "json":
        print_json(found)
        return
    _print(found)


def _print(found: Statistics) -> None:
    series = found["series"]
    step = _STEPS.get(found["step_s"], f"{found['step_s']} s")
    rates = [point["succeeded"] / point["attempts"] if point["attempts"] else None for point in series]
    most = max((point["attempts"] for point in series), default=0)
    latency = found["latency_ms"]
    mode = "" if found["mode"] == "live" else f", {found['mode']} mode"
    print_line(f"{_minute(found['from'])} to {_minute(found['to'])} UTC{mode}", style="bold")
    print_fields(
        [
            ("attempts", _attempts(found["attempts"])),
            ("each " + step, styled(bars([point["attempts"] for point in series])) + styled(f"  {most:,} at most")),
            ("succeeded", _rate_bars(rates)),
            ("deliveries", _ends(found["deliveries"])),
            ("latency", "  ".join(f"{name} {_ms(latency[name])}" for name in ("p50", "p90", "p95", "p99"))),
            ("to success", _to_success(found["attempts_to_success"])),
            ("backlog", _backlog(found["backlog"])),
        ]
    )
    if found["by"] == "none":
        return
    print_line("")
    out = console()
    shows_ids = not out.is_terminal or out.width >= WIDE
    if found["by"] == "event_type":
        heads = ["event type"]
    else:
        heads = ["id", *_NAMES[found["by"]]] if shows_ids else list(_NAMES[found["by"]])
    print_table(
        [*heads, "attempts", "succeeded", "failed", "p50", "p95", "waiting", "lag"],
        [_row(group, len(heads), shows_id=shows_ids) for group in found["groups"]],
        caption=_caption(found, hides_ids=found["by"] != "event_type" and not shows_ids),
    )


def _caption(found: Statistics, *, hides_ids: bool) -> str:
    if not found["groups"]:
        return "Nothing was attempted, nothing ended and nothing waits."
    more = ["There are more; the ones that fail most are listed."] if found["has_more"] else []
    hidden = [f"Ids are shown where there are {WIDE} columns, and in JSON."] if hides_ids else []
    return " ".join(more + hidden)


def _row(group: StatisticsGroup, heads: int, *, shows_id: bool) -> Sequence[object]:
    attempts, backlog = group["attempts"], group["backlog"]
    named = group["name"] or group["key"]
    return [
        *([group["key"], named] if heads == 2 else [group["key"] if shows_id else named]),
        attempts["total"],
        rate(attempts["success_rate"]),
        attempts["total"] - attempts["succeeded"],
        _ms(group["latency_ms"]["p50"]),
        _ms(group["latency_ms"]["p95"]),
        f"{backlog['waiting']}+" if backlog["waiting_is_minimum"] else backlog["waiting"],
        _duration(backlog["lag_s"]),
    ]


def _attempts(one: AttemptCounts) -> Text:
    shown = styled(f"{one['total']:,}  ") + rate(one["success_rate"])
    failed = {name: n for name, n in one["by_outcome"].items() if name != "ok"}
    worst = sorted(failed, key=lambda name: (-failed[name], name))
    return shown + styled("".join(f"  {name} {failed[name]:,}" for name in worst))


def _ends(one: EndCounts) -> Text:
    others = {
        "exhausted": one["exhausted"],
        "rejected": one["rejected"],
        "expired": one["expired"],
        "cancelled": one["cancelled"],
    }
    shown = styled(f"{one['delivered']:,} delivered  ") + rate(one["success_rate"])
    return shown + styled("".join(f"  {name} {n:,}" for name, n in others.items() if n))


def _to_success(one: AttemptsToSuccess) -> str:
    if one["mean"] is None:
        return "–"
    whole = sum(made["deliveries"] for made in one["distribution"])
    first, rest = one["distribution"][:_TRIES], one["distribution"][_TRIES:]
    parts = [f"{made['attempts']}: {_percent(made['deliveries'] / whole)}" for made in first]
    if rest:
        parts.append(f"more: {_percent(sum(made['deliveries'] for made in rest) / whole)}")
    return f"{one['mean']:.2f} attempts on average  " + "  ".join(parts)


def _backlog(one: Backlog) -> Text:
    waiting = f"{one['waiting']:,}" + ("+" if one["waiting_is_minimum"] else "")
    shown = styled(f"{waiting} waiting  {one['in_flight']:,} in flight")
    if one["oldest_waiting_at"] is not None:
        shown += styled(f"  oldest made {_minute(one['oldest_waiting_at'])}")
    if one["lag_s"] > 0:
        shown += styled(f"  due for {_duration(one['lag_s'])}", "yellow")
    return shown


def rate(value: float | None) -> Text:
    """A rate as people read it, in the colour of how good it is; a rate below 1 never reads as 100 %."""
    return styled("–", "dim") if value is None else styled(_percent(value), _style(value))


def _percent(value: float) -> str:
    """As people read it, rounded down.

    >>> _percent(0.5), _percent(0.99996), _percent(1), _percent(0.0001)
    ('50 %', '99.99 %', '100 %', '0.01 %')
    """
    return f"{int(value * 10_000 + 1e-6) / 100:g} %"


def _style(value: float) -> str:
    return "green" if value >= WELL else "yellow" if value >= POORLY else "red"


def bars(values: Sequence[int]) -> str:
    """A bar for each value, the highest for the greatest.

    >>> bars([0, 1, 4, 8])
    '·▁▄█'
    """
    most = max(values, default=0)
    return "".join(BARS[-(-value * len(BARS) // most) - 1] if value else NOTHING for value in values)


def _rate_bars(rates: Iterable[float | None]) -> Text:
    """A bar for each rate in its colour, so that one that is a little lower can be seen."""
    shown = styled("")
    for value in rates:
        if value is None:
            shown.append(NOTHING, style="dim")
        else:
            shown.append(BARS[int(value * (len(BARS) - 1))], style=_style(value))
    return shown


def _ms(value: float | None) -> str:
    """As people read it: no more digits than it has.

    >>> _ms(2.18), _ms(41.5), _ms(1116.68), _ms(None)
    ('2.2 ms', '42 ms', '1.1 s', '–')
    """
    if value is None:
        return "–"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=round(seconds))) if seconds >= 1 else "–"


def _minute(text: str) -> str:
    """An instant of the API, to the minute.

    >>> _minute("2026-03-02T09:12:34.5Z")
    '2026-03-02 09:12'
    """
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}"
