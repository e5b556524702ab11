"""What all tests share: figures without a screen, a browser without a network, the slowest notebooks at the end."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import matplotlib
import pytest

# Not the environment variable: kernels started by a test would inherit it and lose their figures.
matplotlib.use("agg")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, driven by selenium, that can reach no other host."""
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        # No network: whatever the page asked of another host would fail, and be seen in the console.
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]:  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    made.set_page_load_timeout(60)
    made.set_script_timeout(60)
    yield made
    made.quit()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport):
                continue
            file, _, test = report.nodeid.partition("::")
            if file.endswith(".ipynb"):
                seconds[f"{file} under nbval"] += report.duration
            elif test.startswith("test_papermill_runs[") and report.when == "call":
                seconds[f"{test[20:-1]} under papermill"] += report.duration
    if seconds:
        terminalreporter.section("slowest notebooks")
        for name, total in sorted(seconds.items(), key=lambda item: -item[1])[:5]:
            terminalreporter.write_line(f"{total:6.1f} s  {name}")
    with suppress(ImportError, FileNotFoundError):
        from stepsize import claims

        for state in ("stale", "not recorded"):
            found = [claim_id for claim_id in claims.CLAIMS if claims.state(claim_id) == state]
            if found:
                terminalreporter.section(
                    f"claims whose record is {state}" if state == "stale" else "claims without record"
                )
                terminalreporter.write_line(f"{', '.join(found)}: `stepsize claims` measures them")
