"""A real Chromium for tests: pages that say nothing wrong, ask nobody else, and suit everybody.

Chromium is Debian's (`apt-get install chromium`); EXSEARCH_CHROMIUM names another one. Playwright
and axe-core come with `make test-clients`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("EXSEARCH_CHROMIUM", "/usr/bin/chromium")
AXE = Path(os.environ.get("EXSEARCH_NODE_MODULES", "node_modules")) / "axe-core" / "axe.min.js"
SHOTS = os.environ.get("EXSEARCH_SHOTS")  # a folder for screenshots, to look at


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Any, address: str, path: str = "/", **settings: Any) -> Iterator[Any]:
    """A page in a window of its own, which says nothing wrong and asks nobody else."""
    context = chromium.new_context(**settings)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}{path}", wait_until="networkidle")
    yield page
    context.close()
    assert said == [], said
    assert asked and all(url.startswith((address, "blob:")) for url in asked), asked


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.innerText || document.activeElement.id")


def tab_to(page: Any, text: str, key: str = "Tab") -> None:
    """Press Tab until what has this text has the focus, which has to be seen."""
    for _ in range(60):
        if text in focused(page):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"the focus of {text!r} can't be seen"
            return
        page.keyboard.press(key)
    raise AssertionError(f"the keyboard does not reach {text!r}")


def shoot(page: Any, name: str, *, whole: bool = True) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=whole)


def violations(page: Any) -> list[str]:
    """What axe finds, every rule of it."""
    page.wait_for_function("document.getAnimations().every((one) => one.playState !== 'running')")
    page.add_script_tag(path=AXE)
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert result["passes"], "axe looked at nothing"
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in result["violations"]
        for node in rule["nodes"]
    ]
