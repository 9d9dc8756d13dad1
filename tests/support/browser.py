"""Opens the page of a mailed link in a browser, presses its button and reads the next page.

    browser.py BASE_URL PAGE TOKEN PASSWORD FOLDER

Prints the headings in order. Saves a screenshot of each page in FOLDER, in a phone and a desktop size, light
and dark. Fails if the browser logs a warning or an error, if a page is wider than the screen, or if the URL
of the last page still contains the token.
"""

import pathlib
import sys
import tempfile

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

WAIT_SECONDS = 30
SIZES = {"phone": (360, 640), "desktop": (1280, 800)}
# Chromium makes requests of its own, for example for updates of its components and for synchronization. On a
# network without internet they are refused, and the browser sometimes hangs in them.
NO_BACKGROUND_TRAFFIC = [
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


def browser(profile):
    """Starts a browser with its profile in the empty folder `profile`, so that no earlier run affects it."""
    options = webdriver.ChromeOptions()
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]:
        options.add_argument(argument)
    for argument in [*NO_BACKGROUND_TRAFFIC, f"--user-data-dir={profile}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The pages must work without scripts, so scripts are disabled.
    options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def save_screenshots(driver, folder, name):
    """Saves a screenshot in each size and colour scheme, and fails if the page is wider than the screen."""
    for scheme in ["light", "dark"]:
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        for device, (width, height) in SIZES.items():
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": device == "phone"},
            )
            layout = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            if layout["width"] > width:
                sys.exit(f"{name} is {layout['width']} px wide on a {device} of {width}")
            driver.save_screenshot(str(folder / f"{name}-{device}-{scheme}.png"))


def press(driver):
    """Presses the button and waits for the next page."""
    button = driver.find_element(By.TAG_NAME, "button")
    button.click()
    # Chromium may also answer that the button is no node of the document, a general error of selenium.
    wait = WebDriverWait(driver, WAIT_SECONDS, ignored_exceptions=[WebDriverException])
    wait.until(expected_conditions.staleness_of(button))
    wait.until(expected_conditions.presence_of_element_located((By.TAG_NAME, "h1")))


def print_heading(driver):
    print(driver.find_element(By.TAG_NAME, "h1").text)


def main(base, page, token, password, folder):
    folder = pathlib.Path(folder)
    # The browser may still write to its profile after `quit`.
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    driver = browser(profile.name)
    try:
        driver.get(f"{base}/{page}?token={token}")
        print_heading(driver)
        save_screenshots(driver, folder, page)
        if password:
            # The page shows which rule a password breaks, and the same link works for another attempt.
            for first, second in [(password, password + "x"), ("short", "short"), (password, password)]:
                driver.find_element(By.NAME, "new_password").send_keys(first)
                driver.find_element(By.NAME, "new_password_again").send_keys(second)
                press(driver)
                if not driver.find_elements(By.NAME, "new_password"):
                    break
                print(driver.find_element(By.CSS_SELECTOR, "[role=alert]").text)
                save_screenshots(driver, folder, f"{page}.rule")
        else:
            press(driver)
        print_heading(driver)
        name = "refused" if "not work" in driver.title else "done"
        save_screenshots(driver, folder, f"{page}.{name}")
        if token in driver.current_url:
            sys.exit(f"the token is still in {driver.current_url}")
        # Expected entries: the 4xx status of a rejected form and of the missing icon. DEBUG entries are
        # advice, for example to mark the username field, which the page does not have.
        entries = [entry for entry in driver.get_log("browser") if entry["level"] != "DEBUG"]
        entries = [entry for entry in entries if "the server responded with a status of 4" not in entry["message"]]
        if entries:
            sys.exit(f"the browser logged: {entries}")
    finally:
        driver.quit()
        profile.cleanup()


if __name__ == "__main__":
    main(*sys.argv[1:])
