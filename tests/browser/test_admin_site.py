"""The pages and actions of an operator on the admin site."""

import re
import sqlite3
from contextlib import closing

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import log_in
from tests.support.coordinator import Coordinator

pytestmark = pytest.mark.xdist_group("browser")


def test_a_stranger_sees_the_login_form_and_nothing_else(page: Page, coordinator: Coordinator) -> None:
    page.goto("/admin/fleet/machine/")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    log_in(page, coordinator, ("operator", "guessed"))
    expect(page.get_by_text("Please enter the correct username and password")).to_be_visible()
    expect(page.get_by_text("web-0")).to_have_count(0)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/admin/fleet/auth/", "machine_reg"),
        ("/admin/fleet/storage/", "primary"),
        ("/admin/fleet/machine/", "web-0"),
        ("/admin/fleet/filterset/", "filter set"),
        ("/admin/backups/source/", "home"),
        ("/admin/backups/backuprun/", "etc_20261123-120000_0a1b"),
    ],
)
def test_every_list_opens_and_shows_its_rows(operator: Page, path: str, shown: str) -> None:
    operator.goto(path)
    expect(operator.get_by_role("main")).to_contain_text(shown)


def test_health_marks_distinguish_good_from_failed_sources(operator: Page) -> None:
    operator.goto("/admin/backups/source/?q=web-0")
    rows = operator.locator("#result_list tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="/etc")).to_contain_text("ok", ignore_case=True)
    expect(rows.filter(has_text="/home")).to_contain_text("failed", ignore_case=True)


def test_sources_are_searched_and_filtered(operator: Page) -> None:
    operator.goto("/admin/backups/source/")
    operator.locator("#searchbar").fill("web-1")
    operator.get_by_role("button", name="Search").click()
    expect(operator.locator("#result_list tbody tr")).to_have_count(2)
    operator.get_by_role("link", name="failed").first.click()
    rows = operator.locator("#result_list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("/home")


def test_links_lead_from_a_run_to_its_machine(operator: Page) -> None:
    operator.goto("/admin/backups/backuprun/")
    operator.locator("#result_list tbody tr").first.get_by_role("link", name="web-").click()
    expect(operator).to_have_url(re.compile("/admin/fleet/machine/"))
    expect(operator.locator("#content h2").first).to_contain_text("production-web-")


def test_back_up_now_makes_a_source_due(operator: Page) -> None:
    operator.goto("/admin/backups/source/?q=web-0")
    operator.locator("#result_list tbody tr").filter(has_text="/home").locator("input.action-select").check()
    operator.get_by_label("Action:").select_option(label="Back up now")
    operator.get_by_role("button", name="Go", exact=True).click()
    expect(operator.locator(".messagelist")).to_contain_text("1 source is due now")


def test_a_machine_is_disabled_and_enabled_by_the_actions(operator: Page) -> None:
    for action, state in (("disable", "off"), ("enable", "failed")):
        operator.goto("/admin/fleet/machine/?q=web-1")
        operator.locator("#result_list input.action-select").first.check()
        select = operator.get_by_label("Action:")
        [label] = [text for text in select.locator("option").all_inner_texts() if text.lower().startswith(action)]
        select.select_option(label=label)
        operator.get_by_role("button", name="Go", exact=True).click()
        expect(operator.locator("#result_list tbody tr").first).to_contain_text(state, ignore_case=True)


def test_no_secret_and_no_hash_of_one_is_on_a_page(operator: Page, coordinator: Coordinator) -> None:
    hashes = []
    with closing(sqlite3.connect(coordinator.state_dir / "db.sqlite3")) as database:
        for table in ("auth", "storage", "machine"):
            hashes += [row[0] for row in database.execute(f"SELECT secret_hash FROM fleet_{table}")]
    assert len(hashes) == 5
    for table in ("storage", "machine", "auth"):
        operator.goto(f"/admin/fleet/{table}/")
        operator.locator("#result_list tbody th a").first.click()
        text = operator.content()
        assert not [secret_hash for secret_hash in hashes if secret_hash.split("$")[-1] in text]


def test_the_lists_can_be_used_on_a_narrow_screen(operator: Page) -> None:
    operator.set_viewport_size({"width": 400, "height": 800})
    operator.goto("/admin/backups/source/")
    expect(operator.locator("#result_list")).to_be_visible()
