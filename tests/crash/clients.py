"""Clients of a gateway that is being killed."""

import functools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx

from tests.crash.ledger import Asked, Ledger, Told
from tests.support.model import money

PATIENCE_SECONDS: Final = 60.0
NOBODY_LISTENS: Final = "http://127.0.0.1:9/webhooks"
_RETRY_SECONDS: Final = 0.05
_OUTCOMES: Final = ("success", "failed")


class Client:
    """One tenant's checkout, on a thread. It repeats what got no answer, with the same key, until it gets one.

    Every third tenant has fault rules that come and go, and never fire: see `weather`.
    """

    def __init__(self, number: int, seed: int, urls: list[str], receiver_url: str, ledger: Ledger) -> None:
        self._chance = random.Random(f"{seed} client {number}")
        self._urls = urls
        self._receiver_url = receiver_url
        self._ledger = ledger
        self._number = number
        self._count = 0
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(2)
        self._http = httpx.Client(timeout=10, trust_env=False)
        tenant = self._registered(f"client-{number}@example.com")
        self._tenant_id: str = tenant["tenant_id"]
        self.api_key: str = tenant["api_key"]
        self._http.headers["Authorization"] = f"Bearer {self.api_key}"
        self.has_faults = number % 3 == 0
        self._thread = threading.Thread(target=self._run, name=f"client {number}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """When this returns, everything that was asked is answered."""
        self._stopping.set()
        self._thread.join()
        self._pool.shutdown()
        self._http.close()

    def _registered(self, email: str) -> dict[str, Any]:
        """An answer that was lost says on the repeat that there is one of that address."""
        body = {"name": "Crash", "email": email}
        answer = self._sent(email, lambda url: self._http.post(f"{url}/api/auth/register", json=body))
        if answer is None or answer.status_code == 409:
            return {}
        assert answer.status_code == 201, answer.text
        tenant: dict[str, Any] = answer.json()
        self._ledger.made.append(("tenants", tenant["tenant_id"]))
        return tenant

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._shop()
            except Exception as error:  # or the thread would be gone, and the load with it
                self._ledger.surprises.append(f"client {self._number}: {error!r}")

    def _shop(self) -> None:
        """A payment, and what becomes of it."""
        amount = self._chance.choice((100, 4_999, 20_000_000))  # the last is above the limit, and flagged
        webhook = self._chance.choices((self._receiver_url, NOBODY_LISTENS, None), weights=(75, 5, 20))[0]
        outcome = self._chance.choice(_OUTCOMES) if self._chance.random() < 0.1 else None
        body: dict[str, Any] = {"amount": money(amount), "currency": "USD", "webhook_url": webhook}
        if outcome:
            body["outcome"] = {"status": outcome, "after_seconds": self._chance.choice((0, 0.5))}
        if self._chance.random() < 0.15:
            payment = self._ask_two(body, amount, outcome)
        else:
            payment = self._ask("create", "/api/payments", body, amount, outcome=outcome)
        if payment is None or payment["status"] == "flagged" or outcome:
            return
        amount = round(payment["amount"] * 100)
        path = f"/api/payments/{payment['id']}"
        status = self._chance.choice(("success", "success", "failed"))
        changed = self._ask("simulate", f"{path}/simulate", {"status": status}, amount, payment["id"])
        if changed is None or status == "failed":
            return
        if self._chance.random() < 0.4:
            refunded = amount if self._chance.random() < 0.5 else amount // 4
            self._ask("refund", f"{path}/refund", {"refund_amount": money(refunded)}, refunded, payment["id"])
        if webhook and self._chance.random() < 0.1:
            self._replay(path)
        if self._chance.random() < 0.02:
            self._registered(f"client-{self._number}-{self._count}@example.com")

    def _ask(
        self,
        action: str,
        path: str,
        body: dict[str, Any],
        amount: int,
        payment_id: str = "",
        outcome: str | None = None,
    ) -> dict[str, Any] | None:
        """Until it is answered. Now and then twice at the same time, on both processes, and again afterwards."""
        self._count += 1
        key = f"{action} {self._number}-{self._count}"
        asked = Asked(self._tenant_id, key, action, amount, payment_id, outcome)
        self._ledger.asked[key] = asked

        def send(turn: int) -> httpx.Response | None:
            headers = {"Idempotency-Key": key}
            return self._sent(key, lambda url: self._http.post(url + path, json=body, headers=headers), turn)

        dice = self._chance.random()
        answers = list(self._pool.map(send, range(2))) if dice < 0.2 else [send(self._count)]
        if dice > 0.9:
            answers.append(send(self._count + 1))
        shown: dict[str, Any] | None = None
        for answer in answers:
            if answer is None:
                self._ledger.unanswered.append(key)
            elif not answer.is_success:
                self._ledger.surprises.append(f"{key}: {answer.status_code} {answer.text}")
            else:
                shown = answer.json()
                self._ledger.told.append(Told(asked, shown["payment_id"], shown["status"], answer.content))
        return shown

    def _ask_two(self, body: dict[str, Any], amount: int, outcome: str | None) -> dict[str, Any] | None:
        """Two payments under one key at the same time, on both processes: one is created, the other refused for good."""
        self._count += 1
        key = f"create {self._number}-{self._count}"
        bodies = {each: {**body, "amount": money(each)} for each in (amount, amount + 1)}
        # Before it is known which one it will be: a kill of this program must not leave it unasked.
        self._ledger.asked[key] = Asked(self._tenant_id, key, "create", amount, "", outcome)

        def send(of: int) -> httpx.Response | None:
            headers = {"Idempotency-Key": key}
            post = functools.partial(self._http.post, json=bodies[of], headers=headers)
            return self._sent(key, lambda url: post(f"{url}/api/payments"), self._count + of)

        answers = dict(zip(bodies, self._pool.map(send, bodies), strict=True))
        statuses = sorted(0 if answer is None else answer.status_code for answer in answers.values())
        if statuses != [201, 422]:
            self._ledger.surprises.append(f"{key}: two bodies were answered with {statuses}")
            return None
        [(of, answer)] = [(of, each) for of, each in answers.items() if each is not None and each.status_code == 201]
        shown: dict[str, Any] = answer.json()
        asked = self._ledger.asked[key] = Asked(self._tenant_id, key, "create", of, "", outcome)
        if float(shown["amount"]) != float(money(of)):
            self._ledger.surprises.append(f"{key}: {of} minor units were asked for, and got {answer.text}")
        self._ledger.told.append(Told(asked, shown["payment_id"], shown["status"], answer.content))
        return shown

    def _replay(self, path: str) -> None:
        """Of a delivery that is over; one that is not is refused, which is as good."""
        listed = self._sent(path, lambda url: self._http.get(f"{url}{path}/deliveries"))
        for delivery in listed.json()["deliveries"] if listed is not None else []:
            replay = f"/api/webhooks/deliveries/{delivery['id']}/replay"
            self._sent(replay, functools.partial(self._post, replay))

    def _post(self, path: str, url: str) -> httpx.Response:
        return self._http.post(url + path)

    def _sent(self, what: str, send: Callable[[str], httpx.Response], turn: int = 0) -> httpx.Response | None:
        """The first answer that is one: neither a broken connection nor a 503. None if there is none for a minute.

        Each try goes to the other process, from the one whose `turn` it is.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = send(self._urls[turn % len(self._urls)])
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code < 500:
                return answer
            if answer is not None and answer.status_code != 503:
                self._ledger.surprises.append(f"{what}: {answer.status_code} {answer.text}")
            turn += 1
            time.sleep(_RETRY_SECONDS)
        return None
