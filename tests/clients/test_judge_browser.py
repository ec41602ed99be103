"""Two judges in a real Chromium: by mouse and by keys, blind, with a reload in between."""

from __future__ import annotations

import json
import re

import pytest
from judged_page import MARKUP, judged_page, write_places

from browser import focused, opened, shoot, tab_to, violations
from exsearch.judging.study import Study
from exsearch.judging.summary import summarise

pytestmark = pytest.mark.clients
EACH = 20
NO_ROOM = '{"error": {"message": "no room"}}'
CHANGED = "before => document.getElementById('count').textContent !== before"


@pytest.fixture
def judged(tmp_path):
    """The places, and the file of their judgements."""
    return [*write_places(tmp_path), "--judgements", tmp_path / "judged.jsonl"]


def count(page):
    return page.locator("#count").inner_text()


def reached(page, number):
    """Wait until so many are judged, and the next is shown."""
    page.locator("#count", has_text=re.compile(rf"^{number} of ")).wait_for()


def begun(page, name):
    assert focused(page) == "name"
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.locator("#desk").wait_for()


def test_two_judges_give_twenty_judgements_each(chromium, judged, tmp_path):
    seen: list[list[str]] = []
    with judged_page(*judged) as (address, _):
        for name in ("Ada", "Bert"):
            texts: list[str] = []
            with opened(chromium, address) as page:
                told = watched(page)
                begun(page, name)
                for number in range(EACH):
                    reached(page, number)
                    texts.append(page.locator("#item").inner_text())
                    verdict = "n" if number % 5 == 0 or (name == "Bert" and number == 7) else "y"
                    if name == "Ada":
                        page.keyboard.press(verdict)
                    else:
                        page.locator("#buttons button").nth("yn".index(verdict)).click()
                    if number == EACH // 2:
                        reached(page, number + 1)
                        page.reload(wait_until="networkidle")
                reached(page, EACH)
                assert not [word for word in ("secret", "method", '"em"') if word in "".join(told)]
            seen.append(texts)
    assert seen[0] == seen[1] and len({*seen[0]}) == EACH  # the same order, nothing twice
    kept = [json.loads(line) for line in judged[-1].read_text("utf-8").splitlines()[1:]]
    assert [one["judge"] for one in kept] == ["Ada"] * EACH + ["Bert"] * EACH
    study = Study(judged[-1])
    assert [one["item"] for one in kept[:EACH]] == [*study.items][:EACH]
    places = [{use.part.place for use in study.uses[id]} for id in [*study.items][:EACH]]
    assert any(len(own) == 3 for own in places)  # what all methods have is judged once
    found = summarise(study)
    assert found["judges"] == {"Ada": EACH, "Bert": EACH}
    assert sum(own["n"] for own in found["agreement"].values()) == EACH


def watched(page):
    """The bodies of all that the browser gets from now on."""
    told: list[str] = []
    page.on("response", lambda reply: told.append(reply.text()) if "/items" in reply.url else None)
    return told


def test_it_goes_by_keyboard_alone_and_keys_can_be_turned_off(chromium, judged):
    with judged_page(*judged) as (address, _), opened(chromium, address) as page:
        begun(page, "Ada")
        tab_to(page, "say")
        page.keyboard.press("Enter")
        reached(page, 1)
        page.keyboard.press("b")
        page.locator("#buttons [aria-pressed=true]").wait_for()
        assert "say" in page.locator("#buttons [aria-pressed=true]").inner_text()
        page.keyboard.press("y")  # changes it
        reached(page, 1)
        tab_to(page, "keys")
        page.keyboard.press("Space")
        page.keyboard.press("y")
        page.reload(wait_until="networkidle")
        assert count(page).startswith("1 of ") and not page.locator("#keys").is_checked()
    verdicts = [json.loads(line)["verdict"] for line in judged[-1].read_text().splitlines()[1:]]
    assert verdicts == ["unsure", "yes"]


def test_what_was_not_kept_is_said(chromium, judged):
    with judged_page(*judged, "--judge", "Ada") as (address, _), opened(chromium, address) as page:
        shown = page.locator("#item").inner_text()
        page.evaluate(f"fetch = async () => new Response({NO_ROOM!r}, {{status: 500}})")
        page.keyboard.press("y")
        page.get_by_text("no room").wait_for()
        assert page.locator("#item").inner_text() == shown and count(page).startswith("0 of ")


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state(chromium, judged, theme, width):
    size = {"width": width, "height": 800}
    settings = {"color_scheme": theme, "viewport": size, "bypass_csp": True}
    found, kinds = {}, set()
    with judged_page(*judged) as (address, _), opened(chromium, address, **settings) as page:
        found["name"] = violations(page)
        shoot(page, f"judge-name-{theme}-{width}")
        begun(page, "Ada")
        while not page.locator("#end").is_visible():
            kind = page.locator("#item h2").inner_text()
            if kind not in kinds:
                kinds.add(kind)
                found[kind] = violations(page)
                shoot(page, f"judge-{len(kinds)}-{theme}-{width}")
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, "it has to be scrolled sideways"
            if "relevant" in kind and "img" in page.locator("#item").inner_text():
                assert MARKUP in page.locator("#item").inner_text()
                assert page.locator("#item img, #item b").count() == 0
            before = count(page)
            page.keyboard.press("y")
            page.wait_for_function(
                "before => document.getElementById('count').textContent !== before", arg=before
            )
        found["end"] = violations(page)
        shoot(page, f"judge-end-{theme}-{width}")
        assert "forged" not in page.title()
        assert len(kinds) == 4 and found == {state: [] for state in found}
