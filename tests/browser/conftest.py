"""A headless Chromium that shows pages; without one, tests skip, or fail where CI requires it."""

import itertools
from pathlib import Path

import pytest
from real_parts import program

MEASURE = Path(__file__).with_name("measure.js").read_text()


class Browser:
    """A window of a given width and colour scheme.

    Args:
        driver: Selenium's.
    """

    def __init__(self, driver):
        self._driver = driver

    def problems(self, html, folder, *, width, scheme):
        """Show a page with all its details open; return what is wrong with it.

        Args:
            html: The page.
            folder: Where to write it.
            width: Of the window, in pixels.
            scheme: "light" or "dark".
        """
        self.show(html, folder, width=width, scheme=scheme)
        script = "document.querySelectorAll('details').forEach(e => e.open = true);"
        self._driver.execute_script(script)
        found = self._driver.execute_script(MEASURE)
        return found + [entry["message"] for entry in self._driver.get_log("browser")]

    def show(self, html, folder, *, width, scheme):
        path = folder / "page.html"
        path.write_text(html, encoding="utf-8")
        self._command(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self._command(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        self._driver.get(path.as_uri())

    def evaluate(self, script):
        return self._driver.execute_script(script)

    def hover(self, place, script, seconds=5):
        """Move the mouse over a place until a script returns something, and return that.

        Args:
            place: A script that returns x and y in the window.
            script: What to wait for, such as the text of a tooltip.
            seconds: How long to wait.
        """
        from selenium.webdriver.support.wait import WebDriverWait

        x, y = self.evaluate(place)
        shifts = itertools.chain([30], itertools.cycle([0, 1]))  # as a hand would

        def found(_):
            shift = next(shifts)
            event = {"type": "mouseMoved", "x": x + shift, "y": y + shift}
            self._command("Input.dispatchMouseEvent", event)
            return self.evaluate(script)

        return WebDriverWait(self._driver, seconds).until(found)

    def _command(self, name, parameters):
        self._driver.execute_cdp_cmd(name, parameters)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium = program("chromium", "chromium")
    chromedriver = program("chromedriver", "chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield Browser(driver)
    driver.quit()


@pytest.fixture
def problems(browser, tmp_path):
    """Return what is wrong with a page."""

    def check(html, *, width=1280, scheme="light"):
        return browser.problems(html, tmp_path, width=width, scheme=scheme)

    return check
