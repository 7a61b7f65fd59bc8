"""What gets out of the program: no secret, in no log, answer or error; and nothing that a client forged."""

import json
import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from mockpay.errors import InternalError, StartupError
from mockpay.payments.model import Fail
from mockpay.postgres.pool import connect
from mockpay.settings import Settings
from mockpay.tenants.model import Tenant
from tests.integration.conftest import ADMIN_KEY
from tests.support.document import operations
from tests.support.gateway import Gateway, bearer
from tests.support.logs import captured_logs

ADMIN = bearer(ADMIN_KEY)
BODY = {"amount": 5, "currency": "USD"}
IN_BODIES = "what-is-only-in-bodies"
OWN_CREDENTIALS = {"register", "me", "change_me", "rotate_key", "rotate_webhook_secret"}
"""The routes whose answers are there to show a tenant its own."""


@dataclass
class Secrets:
    """Every one that was live, and what was answered that is not there to show them."""

    known: list[str]
    answers: list[httpx.Response]

    def found_in(self, text: str) -> list[str]:
        return [each for each in [*self.known, ADMIN_KEY] if each in text]


async def credentials_of(client: httpx.AsyncClient, secrets: Secrets) -> dict[str, str]:
    """Of a new tenant, all of whose secrets were rotated since."""
    registered = await client.post("/api/auth/register", json={"name": "Ada", "email": "ada@example.com"})
    old = registered.json()
    headers = bearer(old["api_key"])
    new_secret = (await client.post("/api/auth/rotate-webhook-secret", headers=headers)).json()["webhook_secret"]
    new_key = (await client.post("/api/auth/rotate-key", headers=headers)).json()["api_key"]
    secrets.known += [old["api_key"], old["webhook_secret"], new_secret, new_key]
    return {"old": old["api_key"], "key": new_key, "tenant_id": old["tenant_id"]}


async def use_everything(client: httpx.AsyncClient, gateway: Gateway, secrets: Secrets, superuser: Any) -> None:
    """Webhooks that arrive and that die, refusals, lists, figures, and an error that is our own."""
    credentials = await credentials_of(client, secrets)
    row = await superuser.fetchrow(
        "SELECT id, name, email, rate_limit_tier, webhook_url, created_at FROM tenants WHERE id::text = $1",
        credentials["tenant_id"],
    )
    gateway = Gateway(gateway.context, Tenant(**dict(row)), gateway.receiver)
    gateway.receiver.answers = [410]
    payment = await gateway.succeeded("k")
    await gateway.worker().run_due()
    await gateway.change(await gateway.create("other"), Fail())
    await gateway.worker().run_due()
    headers = bearer(credentials["key"])
    for each in operations():
        if each.method == "GET":
            path = each.path.replace("{payment_id}", str(payment.id))
            answer = await client.get(path, headers=ADMIN if each.is_admins else headers)
            secrets.answers += [] if each.name in OWN_CREDENTIALS else [answer]
    body = BODY | {
        "description": IN_BODIES,
        "metadata": {"a": IN_BODIES},
        "webhook_url": f"http://127.0.0.1:9/?{IN_BODIES}",
    }
    kept = await client.post(
        "/api/payments", json=body | {"amount": 200_000}, headers=headers | {"Idempotency-Key": "b"}
    )
    assert kept.json()["status"] == "flagged", "so that a webhook is sent"
    await client.post("/api/payments", json=body | {"amount": -1}, headers=headers)
    await gateway.worker().run_due()
    for key in (credentials["old"], credentials["key"] + "x", "x" + ADMIN_KEY):
        secrets.answers.append(await client.get("/api/payments", headers=bearer(key)))
    for content in (b"{", b"[]", b'{"amount": "x"}', b"x" * 300_000):
        json_headers = headers | {"Idempotency-Key": "k", "Content-Type": "application/json"}
        secrets.answers.append(await client.post("/api/payments", content=content, headers=json_headers))
    secrets.answers.append(await client.get("/api/admin/users", headers=headers))
    await superuser.execute("ALTER TABLE fault_rules RENAME TO gone")
    secrets.answers.append(await client.get("/api/faults", headers=headers))
    await superuser.execute("ALTER TABLE gone RENAME TO fault_rules")


@pytest.mark.parametrize("json_lines", [True, False])
async def test_no_secret_gets_out(
    client: httpx.AsyncClient, gateway: Gateway, superuser: Any, json_lines: bool
) -> None:
    secrets = Secrets([], [])
    with captured_logs(json_lines=json_lines) as output:
        await use_everything(client, gateway, secrets, superuser)
    assert len(set(secrets.known)) == 4
    logged = output.getvalue()
    assert logged.count("/api/") > 20, "or there was nothing to find"
    assert "unexpected error" in logged
    assert secrets.found_in(logged) == []
    assert {answer.status_code for answer in secrets.answers} >= {200, 400, 401, 403, 413, 500}
    assert IN_BODIES not in logged
    for answer in secrets.answers:
        assert secrets.found_in(answer.text + str(answer.headers)) == [], answer.request.url
        if answer.status_code == 500:
            assert answer.json()["error"] == InternalError().sentence, "what went wrong is nobody's business"


async def test_a_row_that_the_database_refuses_is_not_quoted(
    client: httpx.AsyncClient, gateway: Gateway, superuser: Any
) -> None:
    """PostgreSQL's error holds the whole of it: here a webhook secret in the clear."""
    await superuser.execute(
        "ALTER TABLE webhook_secrets ADD CONSTRAINT nothing_fits CHECK (length(secret) < 9) NOT VALID"
    )
    with captured_logs(json_lines=True) as output:
        answer = await client.post("/api/auth/register", json={"name": "Ada", "email": "ada@example.com"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "nothing_fits" in output.getvalue()
    for text in (output.getvalue(), answer.text):
        assert "Failing row" not in text
        assert not re.search(r"[0-9a-f]{64}|whsec_", text)
    assert "nothing_fits" not in answer.text


@pytest.mark.parametrize("url", [
    "postgresql://u:hunter2@127.0.0.1:1/d", "postgresql://u:hunter2/x@127.0.0.1/d", "postgresql://127.0.0.1:hunter2/d",
    "postgresql://u:hunter2@[::1/d", "postgresql://u:hunter2@127.0.0.1:1/d?sslmode=hunter2",
    "postgresql://127.0.0.1:1/d?password=hunter2&port=hunter2", "postgresql://u:%zzhunter2@127.0.0.1:1,127.0.0.1:x/d",
])  # fmt: skip
async def test_a_start_that_fails_does_not_quote_the_password(url: str) -> None:
    with pytest.raises(StartupError, match="MOCKPAY_DATABASE_URL") as raised:
        await connect(url)
    shown = f"{raised.value} {raised.value.__cause__}"
    assert "hunter2" not in shown


# What a client forges


@pytest.fixture
async def quiet(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A tenant's, whose credentials are no part of what is logged."""
    registered = await client.post("/api/auth/register", json={"name": "Ada", "email": "ada@example.com"})
    client.headers.update(bearer(registered.json()["api_key"]))
    return client


FORGED = '\r\nX-Evil: 1\r\n\r\n{"event": "forged", "level": "error"}\n2026-01-31 [error] forged\x1b[2J\x1b[31m\x85\u2028\x0b\x0c'
QUOTED = "".join(f"%{byte:02x}" for byte in FORGED.encode())
RAW = FORGED.encode()


async def send_forgeries(client: httpx.AsyncClient) -> list[httpx.Response]:
    """Wherever a client has a say. A server's own parser lets no line end into a header; the layers behind it need not
    rely on that.
    """
    target = httpx.URL("http://mockpay.test", raw_path=f"/api/{QUOTED}?{QUOTED}={QUOTED}".encode())
    header = "Idempotency-Key"
    return [
        await client.get(target),
        await client.get("/api/payments", headers=[(b"X-Request-Id", RAW)]),
        await client.get(
            "/api/payments", headers=[(b"X-Request-Id", b"sane"), (b"X-MockPay-Fault", b"error; code=a" + RAW)]
        ),
        await client.get("/api/payments", headers=[(b"Authorization", b"Bearer " + RAW)]),
        await client.get("/api/payments", headers=[(b"X-Forwarded-For", RAW), (b"Origin", RAW), (b"User-Agent", RAW)]),
        await client.post("/api/payments", json=BODY, headers=[(header.encode(), RAW)]),
        await client.post("/api/payments", json=BODY | {"webhook_url": f"http://h/{FORGED}"}, headers={header: "a"}),
        await client.post("/api/payments", json=BODY | {"description": FORGED, FORGED: FORGED}, headers={header: "b"}),
        await client.post("/api/payments", json=BODY | {"description": FORGED}, headers={header: "c"}),
        await client.request("BREW\r\nX-Evil: 1", "/api/payments"),
    ]


@pytest.mark.parametrize("json_lines", [True, False])
async def test_nothing_forged_in_headers_and_logs(quiet: httpx.AsyncClient, json_lines: bool) -> None:
    """One line for each event, whatever it tells of, and no command to the terminal."""
    with captured_logs(json_lines=json_lines) as output:
        answers = await send_forgeries(quiet)
    assert [answer.status_code for answer in answers] == [404, 200, 400, 401, 200, 400, 400, 400, 201, 405]
    for answer in answers:
        assert "x-evil" not in answer.headers
        assert all(value.isprintable() and name.isprintable() for name, value in answer.headers.items())
    assert answers[-2].json()["description"] == FORGED
    lines = output.getvalue().split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if not line.isprintable()] == []
    ours = [line for line in lines if "mockpay.http" in line]
    assert len(ours) == len(answers)
    if json_lines:
        assert [json.loads(line)["event"] for line in ours] == ["request"] * len(answers)


@pytest.mark.parametrize("settings", [Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)])
async def test_metrics_are_labelled_by_nothing_that_a_client_chooses(quiet: httpx.AsyncClient) -> None:
    """Or each request would be a series of its own, until the memory is full."""
    for number in range(5):
        await quiet.request(f"M{number}", f"/nowhere/{number}", headers={"User-Agent": f"agent-{number}"})
    text = (await quiet.get("/metrics")).text
    assert 'method="other",route="unmatched"' in text
    for chosen in ("M1", "nowhere", "agent-"):
        assert chosen not in text


@pytest.mark.usefixtures("api_key")
async def test_injected_statuses_are_one_label_however_many_a_client_asks_for(client: httpx.AsyncClient) -> None:
    """By the header and by a rule; but what a real answer went through changes nothing of its status."""
    for status in range(400, 600):
        fault = f"error; status={status}" if status % 2 else f"lost_response; as=error; status={status}"
        answer = await client.get("/api/payments", headers={"X-MockPay-Fault": fault})
        assert answer.status_code == status
    assert (await client.post("/api/faults", json={"fault": "error; status=499", "times": 1})).status_code == 201
    assert (await client.get("/api/payments")).status_code == 499
    await client.get("/api/payments", headers={"X-MockPay-Fault": "in_progress"})
    await client.get("/api/payments", headers={"X-MockPay-Fault": "latency; seconds=0"})
    await client.get("/api/payments", headers={"X-MockPay-Fault": "no such fault"})
    text = (await client.get("/metrics")).text
    counts = {
        labels: float(count)
        for labels, count in re.findall(
            r"^mockpay_http_request_duration_seconds_count\{(.+)\} (\S+)$", text, re.MULTILINE
        )
        if "/api/auth" not in labels
    }
    injected = sum(count for labels, count in counts.items() if 'status="injected"' in labels)
    assert injected == 202
    statuses = {status for labels in counts for status in re.findall(r'status="(\w+)"', labels)}
    assert statuses == {"injected", "200", "201", "400"}
    assert len(counts) <= 6
