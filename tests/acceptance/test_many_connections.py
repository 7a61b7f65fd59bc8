"""Hundreds of clients at once, more than there are connections to the database: all are served, none twice."""

import asyncio
import json
from collections import Counter

from tests.acceptance.conftest import Start

CONNECTIONS = 512
ROUNDS = 3


def test_512_connections_deadlock_nothing(start: Start) -> None:
    gateway = start(MOCKPAY_WORKERS="2", MOCKPAY_RATE_LIMIT_TIER="unlimited", MOCKPAY_LOG_LEVEL="warning")
    api_key = gateway.register()["api_key"]
    url = gateway.client.base_url
    assert url.port
    answers = asyncio.run(everybody(url.host, url.port, api_key))
    assert len(answers) == CONNECTIONS * ROUNDS
    # Each key was sent by two connections, which race.
    ids = {key: {payment_id for other, payment_id, _ in answers if other == key} for key, _, _ in answers}
    assert len(ids) == CONNECTIONS * ROUNDS // 2
    assert {len(of_key) for of_key in ids.values()} == {1}
    assert Counter(replayed for _, _, replayed in answers) == {True: len(ids), False: len(ids)}
    assert "Traceback" not in gateway.output


async def everybody(host: str, port: int, api_key: str) -> list[tuple[str, str, bool]]:
    connections = [asyncio.open_connection(host, port) for _ in range(CONNECTIONS)]
    opened = await asyncio.gather(*connections)
    found = await asyncio.gather(*(
        one(reader, writer, api_key, number % (CONNECTIONS // 2)) for number, (reader, writer) in enumerate(opened)
    ))  # fmt: skip
    for _, writer in opened:
        writer.close()
    return [answer for answers in found for answer in answers]


async def one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, api_key: str, number: int
) -> list[tuple[str, str, bool]]:
    body = b'{"amount": 5, "currency": "USD"}'
    answers = []
    for turn in range(ROUNDS):
        key = f"{number}-{turn}"
        head = (
            f"POST /api/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\n"
            f"Authorization: Bearer {api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert answered.startswith("http/1.1 201"), answered
        length = int(answered.split("content-length: ")[1].split("\r\n")[0])
        payment = json.loads(await reader.readexactly(length))
        answers.append((key, payment["id"], "idempotent-replayed: true" in answered))
    return answers
