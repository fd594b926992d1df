"""Hooks for schemathesis: puts ids that exist into most requests, and counts what each operation answered.

Reads POSTHASTE_FUZZ_URL and POSTHASTE_FUZZ_TOKEN; at the end writes the counts to POSTHASTE_FUZZ_COUNTS.
"""

import atexit
import collections
import itertools
import json
import os
import random
import threading
import time
import urllib.request

import schemathesis

URL = os.environ["POSTHASTE_FUZZ_URL"]
TOKEN = os.environ["POSTHASTE_FUZZ_TOKEN"]
# The share of requests with path parameters that name something; the rest keep what was generated.
SEEDED = 0.8

numbers = itertools.count()
counts = collections.defaultdict(collections.Counter)
lock = threading.Lock()


def call(method, path, body=None):
    """Makes a request of our own, apart from those that are generated."""
    request = urllib.request.Request(
        f"{URL}/api/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or "null")


def new_application():
    return call("POST", "/app", {"name": "fuzz"})["id"]


def new_endpoint(application):
    return call("POST", f"/app/{application}/endpoint", {"url": f"{URL}/_play/fuzz"})["id"]


def new_own_endpoint():
    endpoint = {"url": f"{URL}/_play/own", "filterTypes": ["endpoint.disabled"]}
    return call("POST", "/operational-webhook/endpoint", endpoint)["id"]


def new_event_type():
    name = f"fuzz.n{next(numbers)}"
    call("POST", "/event-type", {"name": name, "description": "made for one request"})
    return name


def new_message(application):
    return call("POST", f"/app/{application}/msg", {"eventType": "fuzz.seed", "payload": {"n": 1}})["id"]


def new_duplicate(application):
    message = {"eventType": "fuzz.seed", "payload": {"n": 1}, "idempotency_key": "fuzz"}
    return call("POST", f"/app/{application}/msg", message)["id"]


def project(method, rest, body=None):
    """Makes a request of our own about the project; returns what is shown."""
    return call(method, f"/projects/{PROJECT}{rest}", body)["data"]


def new_project_endpoint(url="https://example.com/fuzz"):
    # A generated change of the project may have asked for https.
    return project("POST", "/endpoints", {"name": "fuzz", "url": url})["uid"]


def new_subscription(endpoint):
    return project("POST", "/subscriptions", {"name": "fuzz", "endpoint_id": endpoint})["uid"]


def new_filter(subscription):
    return project("POST", f"/subscriptions/{subscription}/filters", {"event_type": f"fuzz.n{next(numbers)}", "body": {"n": 1}})["uid"]


def new_source():
    return project("POST", "/sources", {"name": "fuzz", "type": "http"})["uid"]


def new_event(endpoint):
    return project("POST", "/events", {"endpoint_id": endpoint, "event_type": "fuzz.seed", "data": {"n": 1}})["uid"]


def delivered(what, look):
    """What `look` finds, as soon as that is anything."""
    for _ in range(100):
        if found := look():
            return found
        time.sleep(0.1)
    raise RuntimeError(f"the seeded {what} was not delivered within ten seconds")


PROJECT = call("GET", "/projects")["data"][0]["uid"]


def new_portal_link():
    return project("POST", "/portal-links", {"name": "fuzz", "owner_id": "fuzz"})["uid"]


def new_meta_event():
    """An event of our own, which somebody hears of."""
    listener = {"url": f"{URL}/_play/own", "filterTypes": ["endpoint.created"]}
    listener = call("POST", "/operational-webhook/endpoint", listener)["id"]
    new_project_endpoint()
    event = delivered("meta event", lambda: project("GET", "/meta-events")["content"])[0]["uid"]
    call("DELETE", f"/operational-webhook/endpoint/{listener}")
    return event


def seed_project():
    """One of everything that a project has, with a delivery that has been made."""
    endpoint = project("POST", "/endpoints", {"name": "fuzz", "url": f"{URL}/_play/project", "owner_id": "fuzz"})["uid"]
    subscription = new_subscription(endpoint)
    event = new_event(endpoint)
    deliveries = f"/eventdeliveries?eventId={event}&status=Success"
    delivery = delivered("event", lambda: project("GET", deliveries)["content"])[0]["uid"]
    source = project("POST", "/sources", {"name": "fuzz", "type": "http"})
    return {
        "projectID": PROJECT,
        "endpointID": endpoint,
        "subscriptionID": subscription,
        "filterID": new_filter(subscription),
        "sourceID": source["uid"],
        "mask": source["mask_id"],
        "eventID": event,
        "eventDeliveryID": delivery,
        "deliveryAttemptID": project("GET", f"/eventdeliveries/{delivery}/deliveryattempts")[0]["uid"],
        "eventTypeId": project("POST", "/event-types", {"name": f"fuzz.n{next(numbers)}"})["uid"],
        "eventType": "fuzz.seed",
        "portalLinkID": new_portal_link(),
        "metaEventID": new_meta_event(),
    }


def seed():
    """One of everything, with an attempt that has been made."""
    application = new_application()
    endpoint = new_endpoint(application)
    message = new_message(application)
    attempts = delivered("message", lambda: call("GET", f"/app/{application}/attempt/msg/{message}")["data"])
    new_duplicate(application)
    return {
        "app_id": application,
        "endpoint_id": endpoint,
        "msg_id": message,
        "attempt_id": attempts[0]["id"],
        "event_type_name": new_event_type(),
        "task_id": call("POST", f"/app/{application}/endpoint/{endpoint}/recover", {"since": "2026-01-01T00:00:00Z"})["id"],
    }


SEEDS = seed() | seed_project()


CHANGING = ("PUT", "PATCH", "DELETE")


def ids(method, path, names):
    """Ids for one request. What it may change or remove is not what the other requests read."""
    found = {name: SEEDS[name] for name in names if name in SEEDS}
    if "attempt_id" in found:
        # What it changes is what its receiver said, and nothing else is of that message.
        return found
    if method in CHANGING:
        if "app_id" in found:
            found["app_id"] = new_application()
        if "endpoint_id" in found and "app_id" in found:
            found["endpoint_id"] = new_endpoint(found["app_id"])
        if "msg_id" in found:
            found["msg_id"] = new_message(found["app_id"])
        if "event_type_name" in found:
            found["event_type_name"] = new_event_type()
    if method in CHANGING and "projectID" in found:
        if "endpointID" in found or "subscriptionID" in found:
            found["endpointID"] = new_project_endpoint()
        if "subscriptionID" in found:
            found["subscriptionID"] = new_subscription(found["endpointID"])
        if "filterID" in found:
            found["filterID"] = new_filter(found["subscriptionID"])
        if "sourceID" in found:
            found["sourceID"] = new_source()
        if "portalLinkID" in found:
            found["portalLinkID"] = new_portal_link()
        found = {name: value for name, value in found.items() if name in names}
    if "/operational-webhook/" in path and "endpoint_id" in found:
        found["endpoint_id"] = new_own_endpoint()
    if path.endswith(("/bulk-expunge", "/expunge-all-contents")):
        # The others want the content of theirs.
        found["app_id"] = new_application()
    if path.endswith("/deliver"):
        # Each can be released once.
        found["msg_id"] = new_duplicate(found["app_id"])
    return found


DOCUMENT = {"openapi": "3.1.0", "info": {"title": "fuzz", "version": "1"}, "webhooks": {"fuzz.declared": {"post": {"summary": "it"}}}}
# An event type that nobody changes, and that has an example.
EXAMPLE = "fuzz.example"
call("POST", "/event-type", {"name": EXAMPLE, "description": "", "schemas": {"1": {"examples": [{"n": 1}]}}})


def fill(path, body):
    """Puts into a body what only we know: whom it is about, and what takes more than a schema to say."""
    if path.endswith("/send-example"):
        body.clear()
        body["eventType"] = EXAMPLE
    elif path.endswith("/import/openapi"):
        body.clear()
        body["spec"] = DOCUMENT
    elif path.endswith("/event-types/import"):
        body["spec"] = json.dumps(DOCUMENT)
    elif path.endswith("/subscriptions"):
        body["endpoint_id"] = new_project_endpoint()
        body.pop("source_id", None)
    elif path.endswith("/events"):
        body["endpoint_id"] = SEEDS["endpointID"]
    elif path.endswith("/events/fanout"):
        body["owner_id"] = "fuzz"


@schemathesis.hook
def before_call(context, case, kwargs):
    method, names = case.method.upper(), list(case.path_parameters or {})
    if method == "POST" and isinstance(case.body, dict) and random.random() < SEEDED:
        fill(case.path, case.body)
    # Ids are learnt from answers too, ours among them.
    is_risky = method in CHANGING and not set(SEEDS.values()).isdisjoint(map(str, (case.path_parameters or {}).values()))
    if names and (is_risky or random.random() < SEEDED):
        case.path_parameters.update(ids(method, case.path, names))


@schemathesis.hook
def after_call(context, case, response):
    with lock:
        counts[f"{case.method.upper()} {case.path}"][str(response.status_code)] += 1


@atexit.register
def write():
    with open(os.environ["POSTHASTE_FUZZ_COUNTS"], "w", encoding="utf-8") as file:
        json.dump(counts, file, indent=2, sort_keys=True)
