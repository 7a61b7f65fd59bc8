"""The limits that a newcomer meets: the start says which there are, and one setting lifts them."""

from tests.acceptance.conftest import Start


def test_the_start_says_which_limits_hold_and_how_to_lift_them(start: Start) -> None:
    gateway = start()
    assert (
        "\n  limits      100 requests in 15 minutes for each tenant, 5 payments in 60 seconds before a fraud rule flags "
        "the next; --unlimited lifts both\n"
    ) in gateway.output
    tenant = gateway.register()
    assert "100 requests in 15 minutes" in tenant["instructions"]
    statuses = [gateway.client.get("/api/auth/me").status_code for _ in range(101)]
    assert statuses == [200] * 100 + [429]
    assert "'mockpay serve --unlimited'" in gateway.client.get("/api/auth/me").json()["error"]


def test_they_are_lifted_by_a_setting(start: Start) -> None:
    gateway = start(MOCKPAY_UNLIMITED="true", MOCKPAY_WORKERS="2")
    assert "\n  limits      none: " in gateway.output
    gateway.register()
    assert {gateway.client.get("/api/auth/me").status_code for _ in range(120)} == {200}
    assert gateway.client.get("/api/auth/me").headers["RateLimit-Limit"] == "1000000000"
