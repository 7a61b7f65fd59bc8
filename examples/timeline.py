"""Print the timeline, a line for each entry. Standard library only.

API_KEY=... python3 examples/timeline.py [payment_id]
"""

import json
import os
import sys
import urllib.request
from typing import Any


def told(entry: dict[str, Any]) -> str:
    match entry["type"]:
        case "request":
            status = entry["status"] or "no answer"
            replayed = " (replayed)" if entry["replayed"] else ""
            return f"{entry['method']} {entry['path']}  {entry['idempotency_key'] or ''}  {status}{replayed}"
        case "status_change":
            return f"  {entry['old_status'] or 'new'} -> {entry['new_status']}  by {entry['triggered_by']}"
        case "webhook":
            return f"  {entry['event']} queued"
        case _:
            copy = f", copy {entry['copy']}" if entry["copy"] else ""
            return f"    attempt {entry['attempt']}{copy}: {entry['response_status'] or entry['error']}"


def main() -> None:
    server = os.environ.get("MOCKPAY_URL", "http://127.0.0.1:3000")
    path = f"/api/payments/{sys.argv[1]}/timeline" if len(sys.argv) > 1 else "/api/timeline"
    request = urllib.request.Request(server + path, headers={"Authorization": f"Bearer {os.environ['API_KEY']}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        for entry in json.load(response)["data"]:
            fault = f"  [{entry['fault']}]" if entry.get("fault") else ""
            print(f"{entry['at'][11:23]}  {told(entry)}{fault}")


if __name__ == "__main__":
    main()
