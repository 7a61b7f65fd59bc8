"""A checkout that pays for orders, and retries. Standard library only.

    API_KEY=... python3 examples/shop.py order-1 order-2

With --new-key it makes the mistake that charges twice: a new idempotency key for each try.
"""

import argparse
import http.client
import json
import os
import time
import urllib.parse
import uuid

TRIES = 8
PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 3.0


class Gateway:
    def __init__(self) -> None:
        self._url = urllib.parse.urlsplit(os.environ.get("MOCKPAY_URL", "http://127.0.0.1:3000"))
        self._headers = {"Authorization": f"Bearer {os.environ['API_KEY']}", "Content-Type": "application/json"}

    def post(self, path: str, body: dict[str, object], **headers: str) -> tuple[int, dict[str, object]]:
        """Raises OSError, http.client.HTTPException and ValueError: no answer, a part of one, or nonsense."""
        assert self._url.hostname
        connection = http.client.HTTPConnection(self._url.hostname, self._url.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", path, json.dumps(body), self._headers | headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def persistently(
        self, path: str, body: dict[str, object], key: str, *, new_key: bool
    ) -> tuple[dict[str, object], int]:
        """Until there is an answer that is final, and how many tries it took."""
        for number in range(1, TRIES + 1):
            try:
                status, answer = self.post(path, body, **{"Idempotency-Key": str(uuid.uuid4()) if new_key else key})
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"{key}: try {number}: {type(error).__name__}")
            else:
                if status < 500 and status not in (409, 429):
                    return answer, number
                print(f"{key}: try {number}: {status} {answer['code']}")
            time.sleep(PAUSE_SECONDS)
        raise SystemExit(f"{key}: given up after {TRIES} tries")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("orders", nargs="+")
    parser.add_argument("--webhook-url")
    parser.add_argument("--new-key", action="store_true", help="a new idempotency key for each try: charges twice")
    parser.add_argument("--refund", action="store_true", help="take it back at once")
    options = parser.parse_args()
    gateway = Gateway()
    for order in options.orders:
        body: dict[str, object] = {"amount": 49.99, "currency": "USD", "webhook_url": options.webhook_url}
        payment, tries = gateway.persistently("/api/payments", body, order, new_key=options.new_key)
        path = f"/api/payments/{payment['id']}"
        paid, _ = gateway.persistently(f"{path}/simulate", {"status": "success"}, f"{order} pay", new_key=False)
        print(f"{order}: {paid['status']} ({'1 try' if tries == 1 else f'{tries} tries'})")
        if options.refund:
            back, _ = gateway.persistently(f"{path}/refund", {"refund_amount": 49.99}, f"{order} back", new_key=False)
            print(f"{order}: {back['status']}")


if __name__ == "__main__":
    main()
