"""What this process holds of the machine's memory, as Linux counts it."""

from pathlib import Path

import pytest


def resident(kind="VmRSS"):
    """MB: `VmRSS` all, `RssAnon` private, `RssFile` pages of mapped files, `VmHWM` the most yet."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs Linux's /proc")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields[kind].split()[0]) / 1000
