"""An operator asks for a restore on the admin site, approves it, and watches it."""

from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect
from tests.support.coordinator import Coordinator
from tests.support.v1_client import V1Machine

pytestmark = pytest.mark.xdist_group("browser")

LIST = "/admin/restores/restorerequest/"


@pytest.fixture
def machine(coordinator: Coordinator) -> V1Machine:
    """A machine whose secret the test knows."""
    machine = V1Machine(coordinator.post, auth=coordinator.create_auth("machine_reg"), unit_name="shop-7")
    machine.update_config({"etc": {"path": "/etc"}})
    return machine


def tell(coordinator: Coordinator, machine: V1Machine, step: str, **fields: object) -> None:
    """Send the report of the machine's agent about its one restore."""
    credentials = {"uuid": machine.uuid, "secret": machine.secret}
    [order] = coordinator.post("agent_ping_checkin", {"machine": credentials})[1]["machine"].get("restores", [{}])
    request = order.get("request") or str(machine.__dict__["request"])
    machine.__dict__["request"] = request
    message: Any = {"machine": credentials, "request": request, "claim": "c" * 32, "step": step, **fields}
    url = coordinator.url.removesuffix("/v1") + "/v2/agent_restore_progress"
    assert requests.post(url, json=message, timeout=30).status_code == 200


def test_a_restore_is_asked_for_approved_and_watched(
    operator: Page, coordinator: Coordinator, machine: V1Machine
) -> None:
    operator.goto(f"{LIST}add/")
    operator.locator(".field-machine .select2-selection").click()
    operator.locator(".select2-search__field").fill("shop-7")
    operator.locator(".select2-results__option", has_text="shop-7").first.click()
    operator.get_by_label("Source:").fill("etc")
    operator.get_by_label("Paths:").fill("ssh/sshd_config\nhosts")
    operator.get_by_label("Directory:").fill("/srv/../etc")
    operator.get_by_label("Reason:").fill("ticket 4711: deleted by mistake")
    operator.get_by_role("button", name="Save", exact=True).click()
    expect(operator.locator(".errorlist").first).to_contain_text("'..' in it")
    operator.get_by_label("Directory:").fill("/srv/restored/etc")
    operator.get_by_role("button", name="Save", exact=True).click()
    row = operator.locator("#result_list tbody tr").filter(has_text="shop-7")
    expect(row).to_contain_text("waits for approval")
    row.locator("input.action-select").check()
    operator.get_by_label("Action:").select_option(label="Approve")
    operator.get_by_role("button", name="Go", exact=True).click()
    expect(operator.locator(".messagelist")).to_contain_text("1 approved.")
    expect(row).to_contain_text("waits for the machine")
    tell(coordinator, machine, "picked_up")
    tell(coordinator, machine, "running", files=1200, files_total=5000, size_bytes=3, size_total_bytes=10)
    operator.goto(LIST)
    expect(row).to_contain_text("1,200 of 5,000 files, 30%")
    expect(row).to_contain_text("operator, operator")
    tell(coordinator, machine, "whole", files=5000, size_bytes=10, message="5,000 files, all of them verified")
    operator.goto(LIST)
    row.get_by_role("link").first.click()
    expect(operator.locator("#content")).to_contain_text("5,000 files, all of them verified")
    operator.get_by_role("link", name="what happened to it").click()
    for action in ("requested", "approved", "picked_up", "running", "ended"):
        expect(operator.locator("#result_list")).to_contain_text(f"restore.{action}")


def test_the_pages_of_policies_open(operator: Page) -> None:
    operator.goto("/admin/restores/restorepolicy/add/")
    operator.get_by_label("Requests are approved by:").select_option(label="two operators")
    operator.get_by_label("Comment:").fill("all machines")
    operator.get_by_role("button", name="Save", exact=True).click()
    expect(operator.locator("#result_list")).to_contain_text("two operators")
    operator.locator("#result_list tbody th a").first.click()
    operator.get_by_role("link", name="Delete").click()
    operator.get_by_role("button", name="sure").click()
