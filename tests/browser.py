"""A headless Chromium for what a person sees: pages that report what went wrong in them."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)

# Continuous integration installs a browser and says that these tests must run.
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("LRSTUDY_BROWSER") != "required",
    reason="no chromium on this machine (Debian: apt-get install chromium)",
)

_FLAGS = [
    "--no-sandbox",  # as root, in a container
    "--disable-gpu",
    "--no-first-run",
    # What a browser asks its maker's servers by itself would count as failed requests of the page.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def page(*, width: int = 1500, height: int = 1000, colors: str = "light") -> Iterator[tuple]:
    """An empty page and the list of what goes wrong in it: console errors, exceptions, failed requests."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "chromium is required here and is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme=colors)
            opened.set_default_timeout(120_000)  # a busy machine
            problems: list[str] = []
            opened.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
            opened.on("pageerror", lambda error: problems.append(str(error)))
            opened.on("requestfailed", lambda request: problems.append(f"failed: {request.url[:200]}"))
            yield opened, problems
        finally:
            browser.close()
