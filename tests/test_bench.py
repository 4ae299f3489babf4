"""The benchmarks run, small: what they count must agree, what they measure is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import accounting, report
from bench.bare import HEADERS, cpu_us_per_post
from bench.generator import payload
from bench.receiver import Receiver
from bench.workloads import (
    TINY,
    WORKLOADS,
    Bench,
    derived,
    merged,
    prefixed,
    quantile,
    run,
    selected,
)

linux = pytest.mark.skipif(not accounting.HAS_PROC, reason="CPU is read from /proc, which Linux has")
