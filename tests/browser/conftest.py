"""Debian's chromium, headless, on a coordinator with a small fleet that tells all kinds of stories."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from tests.support.coordinator import Coordinator
from tests.support.v1_client import V1Machine, V1Storage

from turku.core.secret import generate_secret

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"),
    *("--disable-component-update", "--disable-quic"),
]
_USER = "operator"


@pytest.fixture(scope="session")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with Coordinator(tmp_path_factory.mktemp("coordinator") / "state") as running:
        storage = V1Storage(running.post, auth=running.create_auth("storage_reg"))
        storage.update_config()
        auth = running.create_auth("machine_reg")
        for unit in ("web-0", "web-1"):
            machine = V1Machine(running.post, auth=auth, unit_name=unit)
            machine.update_config({"etc": {"path": "/etc"}, "home": {"path": "/home"}}, environment_name="production")
            storage.succeeded(machine.uuid, "etc")
            storage.failed(machine.uuid, "home")
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def account(coordinator: Coordinator) -> tuple[str, str]:
    """User name and password of an administrator."""
    password = generate_secret()
    coordinator.create_administrator(_USER, password)
    return _USER, password.reveal()


@pytest.fixture(scope="session")
def cookies(browser: Browser, coordinator: Coordinator, account: tuple[str, str]) -> list[Any]:
    """The cookies of an administrator who logged in."""
    context = browser.new_context(base_url=coordinator.admin_url)
    page = context.new_page()
    log_in(page, coordinator, account)
    page.wait_for_url(coordinator.admin_url)
    kept = list(context.cookies())
    context.close()
    return kept


def log_in(page: Page, coordinator: Coordinator, account: tuple[str, str]) -> None:
    """Fill in the login form."""
    page.goto(coordinator.admin_url)
    page.get_by_label("Username").fill(account[0])
    page.get_by_label("Password").fill(account[1])
    page.get_by_role("button", name="Log in").click()


@pytest.fixture
def page(browser: Browser, coordinator: Coordinator) -> Iterator[Page]:
    """An empty page. Its complaints, and every request to another address, fail the test."""
    origin = f"http://127.0.0.1:{coordinator.port}"
    context = browser.new_context(base_url=origin, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        # A browser looks for an icon of its own accord.
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            complaints.append(f"{message.text} ({message.location['url']})")

    def on_request(request: Request) -> None:
        if not request.url.startswith(f"{origin}/"):
            complaints.append(request.url)

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", on_request)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def operator(page: Page, cookies: list[Any]) -> Page:
    """A page of an administrator who is logged in."""
    page.context.add_cookies(cookies)
    return page
