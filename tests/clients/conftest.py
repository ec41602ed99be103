"""Programs of other people ask a real server, with the world of the tests of serving."""

from collections.abc import Iterator
from typing import Any

import pytest
from answer_server import server, world
from browser import CHROMIUM

__all__ = ["chromium", "server", "world"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
