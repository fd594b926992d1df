"""Both halves of Convoy's documents, as its Python SDK tells them. Reads POSTHASTE_URL and TOKEN."""

import http.server
import importlib
import json
import os
import queue
import threading
import urllib.error
import urllib.request

import convoy.models as models
from convoy.client import AuthenticatedClient
from convoy.utils.webhook import Webhook

PATIENCE = 20
URL, TOKEN = os.environ["POSTHASTE_URL"], os.environ["TOKEN"]
client = AuthenticatedClient(base_url=f"{URL}/api", token=TOKEN, raise_on_unexpected_status=True)
received = queue.Queue()
called = set()


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes every webhook, and lets the story look at it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        received.put((self.path, {name.lower(): value for name, value in self.headers.items()}, body))

    def log_message(self, *_):
        pass


def call(operation, *path, expect=200, **arguments):
    """Calls an operation of the SDK, which must be answered so; returns what the SDK read of the answer."""
    called.add(operation)
    answer = importlib.import_module(f"convoy.api.{operation}").sync_detailed(*path, client=client, **arguments)
    assert answer.status_code == expect, (operation, answer.status_code, answer.content)
    assert answer.parsed is not None, (operation, answer.content)
    read = answer.parsed.to_dict()
    assert read["status"] is (expect < 300), read
    return read


def data(operation, *path, **arguments):
    """The same, and what there is to show."""
    return call(operation, *path, **arguments)["data"]


def webhook(path, secret):
    """The next webhook, which must come there and be signed with this secret."""
    came_to, headers, body = received.get(timeout=PATIENCE)
    assert came_to == path, (came_to, path)
    assert Webhook(secret).verify_signature(body.decode(), headers["x-convoy-signature"]) is True, headers
    return headers, json.loads(body)


def nothing_more():
    """Everything that is owed has been sent, so what did not come does not come."""
    listed = data("event_deliveries.get_event_deliveries_paged", project, per_page=100)["content"]
    assert all(delivery["status"] in ("Success", "Failure", "Discarded") for delivery in listed), listed
    assert received.empty(), received.queue


def post(url, body, headers=None):
    """Sends what another service would."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
place = f"http://127.0.0.1:{server.server_port}"

# A project, and what it tells of.
project = data("projects.get_projects", org_id="")[0]["uid"]
shown = data("projects.get_project", project)
assert shown["uid"] == project
changed = models.ModelsUpdateProject.from_dict({"name": "The story", "config": {"strategy": {"type": "linear", "duration": 1, "retry_count": 3}}})
assert data("projects.update_project", project, expect=202, body=changed)["name"] == "The story"
made = data("event_types.create_event_type", project, expect=201, body=models.ModelsCreateEventType(name="read", description="Somebody read it"))
assert "read" in [one["name"] for one in data("event_types.get_event_types", project)]

# Outgoing: an endpoint, what it wants, and the documented request twice.
body = models.ModelsCreateEndpoint(name="story", url=f"{place}/story", secret="the story's secret", owner_id="python", advanced_signatures=True)
endpoint = data("endpoints.create_endpoint", project, expect=201, body=body)["uid"]
assert data("endpoints.get_endpoint", project, endpoint)["owner_id"] == "python"
assert [one["uid"] for one in data("endpoints.get_endpoints", project, owner_id="python")["content"]] == [endpoint]
body = models.ModelsCreateSubscription.from_dict({"name": "reads", "endpoint_id": endpoint, "filter_config": {"event_types": ["read", "paid"]}})
subscription = data("subscriptions.create_subscription", project, expect=201, body=body)["uid"]
assert data("subscriptions.get_subscription", project, subscription)["name"] == "reads"
assert subscription in [one["uid"] for one in data("subscriptions.get_subscriptions", project)["content"]]
asked = models.ModelsTestFilter.from_dict({"request": {"body": {"age": 10}}, "schema": {"body": {"age": {"$gte": 10}}}})
assert data("subscriptions.test_subscription_filter", project, body=asked) is True
documented = {
    "endpoint_id": endpoint,
    "data": {"name": "{{$randomAdjective}}", "email": "{{$randomEmail}}", "age": 10},
    "idempotency_key": "12d851d0255ea37d2a0253016e62d35047ab4a737b5bcd75fb8fddff4b029249",
    "custom_headers": {"header": "valve"},
    "event_type": "read",
}
first = data("events.create_endpoint_event", project, expect=201, body=models.ModelsCreateEvent.from_dict(documented))
again = call("events.create_endpoint_event", project, expect=201, body=models.ModelsCreateEvent.from_dict(documented))
assert again["message"] == "Duplicate event received, but will not be sent" and again["data"]["duplicate_of"] == first["uid"], again
headers, sent = webhook("/story", "the story's secret")
assert (headers["x-convoy-idempotency-key"], headers["header"]) == (documented["idempotency_key"], "valve")
assert sent == documented["data"]
listed = data("events.get_events_paged", project, idempotency_key=documented["idempotency_key"])["content"]
assert [one["is_duplicate_event"] for one in listed] == [True, False], listed
assert data("events.get_endpoint_event", project, first["uid"])["data"] == documented["data"]
fan_out = models.ModelsFanoutEvent.from_dict({"owner_id": "python", "event_type": "paid", "data": {"n": 2}, "idempotency_key": "story-2"})
data("events.create_endpoint_fanout_event", project, expect=201, body=fan_out)
assert webhook("/story", "the story's secret")[1] == {"n": 2}
assert data("events.create_endpoint_fanout_event", project, expect=201, body=fan_out)["is_duplicate_event"] is True
dynamic = models.ModelsDynamicEvent.from_dict({"url": f"{place}/dynamic", "secret": "another", "event_type": "paid", "data": {"n": 3}, "idempotency_key": "story-3"})
data("events.create_dynamic_event", project, expect=201, body=dynamic)
assert webhook("/dynamic", "another")[1] == {"n": 3}
assert data("events.create_dynamic_event", project, expect=201, body=dynamic)["is_duplicate_event"] is True
assert data("events.count_affected_events", project)["num"] == 6

# What became of them, once more on request.
delivery = data("event_deliveries.get_event_deliveries_paged", project, event_id=first["uid"])["content"][0]
assert data("event_deliveries.get_event_delivery", project, delivery["uid"])["event_id"] == first["uid"]
attempts = data("delivery_attempts.get_delivery_attempts", project, delivery["uid"])
assert data("delivery_attempts.get_delivery_attempt", project, delivery["uid"], attempts[0]["uid"])["status"] is True
call("event_deliveries.resend_event_delivery", project, delivery["uid"], expect=400)
call("event_deliveries.force_resend_event_deliveries", project, body=models.ModelsIDs(ids=[delivery["uid"]]))
webhook("/story", "the story's secret")
call("events.replay_endpoint_event", project, first["uid"])
webhook("/story", "the story's secret")

# A paused endpoint holds, and lets go when it is activated. A replaced secret goes on for an hour.
assert data("endpoints.pause_endpoint", project, endpoint, expect=202)["status"] == "paused"
held = models.ModelsCreateEvent.from_dict({"endpoint_id": endpoint, "event_type": "paid", "data": {"n": 4}})
data("events.create_endpoint_event", project, expect=201, body=held)
waiting = data("event_deliveries.get_event_deliveries_paged", project, status=["Scheduled"])["content"]
assert [one["metadata"]["data"] for one in waiting] == [{"n": 4}] and "paused" in waiting[0]["description"], waiting
assert data("endpoints.activate_endpoint", project, endpoint, expect=202)["status"] == "active"
assert webhook("/story", "the story's secret")[1] == {"n": 4}
data("endpoints.expire_secret", project, endpoint, body=models.ModelsExpireSecret(secret="a new secret", expiration=1))
data("events.create_endpoint_event", project, expect=201, body=held)
_, signed, bytes_sent = received.get(timeout=PATIENCE)
for secret in ("the story's secret", "a new secret"):
    assert Webhook(secret).verify_signature(bytes_sent.decode(), signed["x-convoy-signature"]) is True, signed

# Incoming: a source with a key in its body; the same event twice is one delivery.
body = models.ModelsCreateSource.from_dict(
    {
        "name": "shop",
        "type": "http",
        "verifier": {"type": "api_key", "api_key": {"header_name": "X-Shop-Key", "header_value": "sesame"}},
        "idempotency_keys": ["request.body.id"],
    }
)
source = data("sources.create_source", project, expect=201, body=body)
assert data("sources.get_source", project, source["uid"])["name"] == "shop"
assert source["uid"] in [one["uid"] for one in data("sources.load_sources_paged", project)["content"]]
body = models.ModelsCreateEndpoint(name="inbox", url=f"{place}/inbox", secret="the inbox's secret")
inbox = data("endpoints.create_endpoint", project, expect=201, body=body)["uid"]
body = models.ModelsCreateSubscription.from_dict({"name": "shop to inbox", "endpoint_id": inbox, "source_id": source["uid"]})
data("subscriptions.create_subscription", project, expect=201, body=body)
ingest = URL + source["url"][source["url"].index("/ingest/"):]
assert post(ingest, {"id": "order-1"})[0] == 400, "nobody's key"
assert post(ingest, {"id": "order-1"}, {"X-Shop-Key": "sesame"})[0] == 200
status, words = post(ingest, {"id": "order-1"}, {"X-Shop-Key": "sesame"})
assert status == 200 and "Duplicate event received" in words, words
headers, sent = webhook("/inbox", "the inbox's secret")
assert sent == {"id": "order-1"} and len(headers["x-convoy-idempotency-key"]) == 64 and "x-shop-key" not in headers, headers
listed = data("events.get_events_paged", project, source_id=[source["uid"]])["content"]
assert [one["is_duplicate_event"] for one in listed] == [True, False], listed
call("sources.delete_source", project, source["uid"])
call("sources.get_source", project, source["uid"], expect=404)
call("subscriptions.delete_subscription", project, subscription)
call("endpoints.delete_endpoint", project, inbox)
nothing_more()


def at(path):
    """The next webhook that comes there."""
    while True:
        came_to, headers, body = received.get(timeout=PATIENCE)
        if came_to == path:
            return headers, json.loads(body)


# For everybody, and again by the batch.
body = models.ModelsCreateEndpoint(name="all", url=f"{place}/all", secret="everybody's secret", owner_id="everybody")
everybody = data("endpoints.create_endpoint", project, expect=201, body=body)["uid"]
body = models.ModelsCreateSubscription.from_dict({"name": "all", "endpoint_id": everybody, "filter_config": {"event_types": ["announced"]}})
data("subscriptions.create_subscription", project, expect=201, body=body)
body = models.ModelsBroadcastEvent.from_dict({"event_type": "announced", "data": {"n": 5}, "idempotency_key": "for all"})
data("events.create_broadcast_event", project, expect=201, body=body)
headers, sent = at("/all")
assert sent == {"n": 5} and headers["x-convoy-idempotency-key"] == "for all", headers
data("events.batch_replay_events", project, endpoint_id=[everybody])
assert at("/all")[1] == {"n": 5}
call("event_deliveries.batch_retry_event_delivery", project, endpoint_id=[everybody], status=["Failure"])

# What a project declares, lets its customers see, and is told of itself.
document = {"openapi": "3.1.0", "info": {"title": "story", "version": "1"}, "webhooks": {"story.imported": {"post": {"summary": "it"}}}}
data("event_types.import_open_api_spec", project, body=models.ModelsImportOpenAPISpec(spec=json.dumps(document)))
assert "story.imported" in [one["name"] for one in data("event_types.get_event_types", project)]
body = models.ModelsBulkOnboardRequest.from_dict({"items": [{"name": "bulk", "url": f"{place}/bulk", "event_type": "never"}]})
assert data("onboard.bulk_onboard", project, body=body, dry_run=True)["valid_count"] == 1
assert data("onboard.bulk_onboard", project, body=body, expect=202)["total_items"] == 1
body = models.DatastoreCreatePortalLinkRequest.from_dict({"name": "story", "owner_id": "everybody", "auth_type": "refresh_token"})
link = data("portal_links.create_portal_link", project, expect=201, body=body)["uid"]
assert data("portal_links.get_portal_link", project, link)["owner_id"] == "everybody"
assert link in [one["uid"] for one in data("portal_links.load_portal_links_paged", project)["content"]]
body = models.DatastoreUpdatePortalLinkRequest.from_dict({"name": "renamed", "owner_id": "everybody", "auth_type": "refresh_token"})
assert data("portal_links.update_portal_link", project, link, expect=202, body=body)["name"] == "renamed"
call("portal_links.refresh_portal_link_auth_token", project, link)
call("portal_links.revoke_portal_link", project, link)
assert data("meta_events.get_meta_events_paged", project)["content"] == []
print(f"the story was told with {len(called)} operations")
