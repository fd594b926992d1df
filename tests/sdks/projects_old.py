"""A short story of Convoy's, told by the last stable release of its Python SDK. Reads POSTHASTE_URL and TOKEN."""

import http.server
import json
import os
import queue
import threading
import time
import urllib.request

from convoy import Convoy
from convoy.utils.webhook import Webhook

PATIENCE = 20
URL, TOKEN = os.environ["POSTHASTE_URL"], os.environ["TOKEN"]
received = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes every webhook, and lets the story look at it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        received.put(({name.lower(): value for name, value in self.headers.items()}, body))

    def log_message(self, *_):
        pass


def data(answer, expect=200):
    """What an answer shows, which must have come with this status."""
    body, status = answer
    assert status == expect and body["status"] is (expect < 300), answer
    return body.get("data")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
# This release cannot ask for its project's id.
asked = urllib.request.Request(f"{URL}/api/v1/projects", headers={"Authorization": f"Bearer {TOKEN}"})
with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
    project = json.load(answer)["data"][0]["uid"]
convoy = Convoy({"api_key": TOKEN, "uri": f"{URL}/api/v1/projects/{project}"})

# An endpoint, and what it wants.
# This release leaves the time out of an advanced signature, so that it verifies simple ones alone.
body = {"name": "old", "url": f"http://127.0.0.1:{server.server_port}/", "secret": "an old secret", "owner_id": "old", "advanced_signatures": False}
endpoint = data(convoy.endpoint.create({}, body), 201)["uid"]
assert endpoint in [one["uid"] for one in data(convoy.endpoint.all({"perPage": 100}))["content"]]
changed = data(convoy.endpoint.update(endpoint, {}, {**body, "description": "Changed"}), 202)
assert changed["description"] == "Changed", changed
wanted = {"name": "old", "endpoint_id": endpoint, "filter_config": {"event_types": ["old"]}}
subscription = data(convoy.subscription.create({}, wanted), 201)["uid"]
assert subscription in [one["uid"] for one in data(convoy.subscription.all({"perPage": 100}))["content"]]
assert data(convoy.subscription.update(subscription, {}, {**wanted, "name": "renamed"}), 202)["name"] == "renamed"
assert data(convoy.subscription.find(subscription, {}))["name"] == "renamed"

# An event, and what became of it.
event = data(convoy.event.create({}, {"endpoint_id": endpoint, "event_type": "old", "data": {"n": 1}}), 201)["uid"]
headers, sent = received.get(timeout=PATIENCE)
assert json.loads(sent) == {"n": 1}
assert Webhook("an old secret").verify_signature(sent.decode(), headers["x-convoy-signature"]) is True, headers
assert data(convoy.event.find(event, {}))["data"] == {"n": 1}
assert event in [one["uid"] for one in data(convoy.event.all({"perPage": 100}))["content"]]
deadline = time.monotonic() + PATIENCE
while True:
    delivery = data(convoy.event_delivery.all({"eventId": event}))["content"][0]
    if delivery["status"] == "Success" or time.monotonic() > deadline:
        break
    time.sleep(0.05)
assert data(convoy.event_delivery.find(delivery["uid"], {}))["status"] == "Success"
attempt = data(convoy.delivery_attempt.all(delivery["uid"], {}))[0]
assert data(convoy.delivery_attempt.find(delivery["uid"], attempt["uid"], {}))["status"] is True
# A delivery that has succeeded is not sent again by this.
data(convoy.event_delivery.resend(delivery["uid"], {}), 400)

# A source.
verifier = {"type": "hmac", "hmac": {"header": "X-Signature", "hash": "SHA256", "encoding": "hex", "secret": "s"}}
made = {"name": "old", "type": "http", "verifier": verifier}
source = data(convoy.source.create({}, made), 201)["uid"]
assert data(convoy.source.find(source, {}))["name"] == "old"
assert source in [one["uid"] for one in data(convoy.source.all({"perPage": 100}))["content"]]
assert data(convoy.source.update(source, {}, {**made, "name": "renamed"}), 202)["name"] == "renamed"

# It sends a body with each of these.
data(convoy.source.delete(source, {}, {}))
data(convoy.subscription.delete(subscription, {}, {}))
data(convoy.endpoint.delete(endpoint, {}, {}))
data(convoy.source.find(source, {}), 404)
print("the story was told")
