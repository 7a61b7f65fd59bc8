"""A receiver of webhooks that ships what is paid. Standard library only.

    WEBHOOK_SECRET=... python3 examples/receiver.py --port 4000

It verifies, it does nothing twice, and it does not trust the order in which webhooks come. Each of these can be left
out, to see what happens then: --no-verify, --no-dedupe, --trust-order. It ends when nothing has come for a while
after the first.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OLDEST_SECONDS = 300
QUIET_SECONDS = float(os.environ.get("QUIET_SECONDS", "8"))
FIRST_SECONDS = 60.0


class Warehouse:
    """What the shop does on a webhook, and how often it did it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._secret = os.environ["WEBHOOK_SECRET"]
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._refunded: set[str] = set()
        self.shipped: Counter[str] = Counter()
        self.quiet_until = time.monotonic() + FIRST_SECONDS

    def take(self, headers: Any, body: bytes) -> int:
        """The status to answer with."""
        with self._lock:  # what is looked up and what is written belong together
            self.quiet_until = time.monotonic() + QUIET_SECONDS
            if not self._options.no_verify and not self._is_genuine(headers, body):
                print("refused: not signed by MockPay, or long ago")
                return 400
            delivery = headers["X-MockPay-Delivery"]
            if not self._options.no_dedupe and delivery in self._seen:
                print("seen before: nothing to do")
                return 200
            self._seen.add(delivery)
            self._act(json.loads(body))
            return 200

    def _is_genuine(self, headers: Any, body: bytes) -> bool:
        """By the scheme of Standard Webhooks, whose signature holds the time as well. Two secrets may be live."""
        signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
        digest = hmac.new(bytes.fromhex(self._secret), signed, hashlib.sha256).digest()
        genuine = any(
            hmac.compare_digest(signature.encode(), b"v1," + base64.b64encode(digest))
            for signature in headers["webhook-signature"].split(" ")
        )
        return genuine and abs(time.time() - int(headers["webhook-timestamp"])) < OLDEST_SECONDS

    def _act(self, event: dict[str, Any]) -> None:
        payment = event["payment_id"]
        if event["event"] == "payment.refunded":
            self._refunded.add(payment)
            print(f"refunded: {event['refund_amount']} {event['currency']}")
        elif event["event"] == "payment.success":
            if payment in self._refunded and not self._options.trust_order:
                print("paid, but refunded already: not shipped")
                return
            self.shipped[payment] += 1
            print(f"shipped: paid {event['amount']} {event['currency']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=4000)
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--no-dedupe", action="store_true")
    parser.add_argument("--trust-order", action="store_true")
    warehouse = Warehouse(parser.parse_args())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(warehouse.take(self.headers, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """The warehouse tells."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 100

    server = Server(("127.0.0.1", parser.parse_args().port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("Listening.", flush=True)
    while time.monotonic() < warehouse.quiet_until:
        time.sleep(0.1)
    server.shutdown()
    print(f"orders: {len(warehouse.shipped)}, parcels: {warehouse.shipped.total()}")


if __name__ == "__main__":
    main()
