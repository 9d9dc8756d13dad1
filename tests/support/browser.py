"""A person in a browser: opens the page of a link, presses its button, and reads what came of it.

    browser.py BASE_URL PAGE TOKEN PASSWORD FOLDER

Prints the headings in their order. Puts pictures of each page into FOLDER, as a phone and a desk show them, light and dark. Fails when the browser
complains about anything, when a page is wider than the screen, or when the address of the last page still has the token.
"""

import pathlib
import sys

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

WAIT_SECONDS = 30
SIZES = {"phone": (360, 640), "desk": (1280, 800)}


def browser():
    options = webdriver.ChromeOptions()
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The pages need no script, and so they get none.
    options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def picture(driver, folder, name):
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
    """Presses the button, and waits for the page behind it."""
    button = driver.find_element(By.TAG_NAME, "button")
    button.click()
    wait = WebDriverWait(driver, WAIT_SECONDS)
    wait.until(expected_conditions.staleness_of(button))
    wait.until(expected_conditions.presence_of_element_located((By.TAG_NAME, "h1")))


def heading(driver):
    print(driver.find_element(By.TAG_NAME, "h1").text)


def main(base, page, token, password, folder):
    folder = pathlib.Path(folder)
    driver = browser()
    try:
        driver.get(f"{base}/{page}?token={token}")
        heading(driver)
        picture(driver, folder, page)
        if password:
            # Typing errors are told on the page, and the link is good for another try.
            for first, second in [(password, password + "x"), ("short", "short"), (password, password)]:
                driver.find_element(By.NAME, "new_password").send_keys(first)
                driver.find_element(By.NAME, "new_password_again").send_keys(second)
                press(driver)
                if not driver.find_elements(By.NAME, "new_password"):
                    break
                print(driver.find_element(By.CSS_SELECTOR, "[role=alert]").text)
                picture(driver, folder, f"{page}.rule")
        else:
            press(driver)
        heading(driver)
        name = "refused" if "not work" in driver.title else "done"
        picture(driver, folder, f"{page}.{name}")
        if token in driver.current_url:
            sys.exit(f"the token is still in {driver.current_url}")
        # Refusals have a status of 4xx, and there is no icon. Advice (DEBUG) is about a name that the page does not know.
        complaints = [entry for entry in driver.get_log("browser") if entry["level"] != "DEBUG"]
        complaints = [entry for entry in complaints if "the server responded with a status of 4" not in entry["message"]]
        if complaints:
            sys.exit(f"the browser complains: {complaints}")
    finally:
        driver.quit()


if __name__ == "__main__":
    main(*sys.argv[1:])
