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


def seed():
    """One of everything, with an attempt that has been made."""
    application = new_application()
    endpoint = new_endpoint(application)
    message = new_message(application)
    for _ in range(100):
        attempts = call("GET", f"/app/{application}/attempt/msg/{message}")["data"]
        if attempts:
            break
        time.sleep(0.1)
    else:
        raise RuntimeError("the seeded message was not delivered within ten seconds")
    new_duplicate(application)
    return {
        "app_id": application,
        "endpoint_id": endpoint,
        "msg_id": message,
        "attempt_id": attempts[0]["id"],
        "event_type_name": new_event_type(),
        "task_id": call("POST", f"/app/{application}/endpoint/{endpoint}/recover", {"since": "2026-01-01T00:00:00Z"})["id"],
    }


SEEDS = seed()


CHANGING = ("PUT", "PATCH", "DELETE")


def ids(method, path, names):
    """Ids for one request. What it may change or remove is not what the other requests read."""
    found = {name: SEEDS[name] for name in names if name in SEEDS}
    if method in CHANGING:
        if "app_id" in found:
            found["app_id"] = new_application()
        if "endpoint_id" in found and "app_id" in found:
            found["endpoint_id"] = new_endpoint(found["app_id"])
        if "msg_id" in found:
            found["msg_id"] = new_message(found["app_id"])
        if "event_type_name" in found:
            found["event_type_name"] = new_event_type()
    if "/operational-webhook/" in path and "endpoint_id" in found:
        found["endpoint_id"] = new_own_endpoint()
    if path.endswith("/deliver"):
        # Each can be released once.
        found["msg_id"] = new_duplicate(found["app_id"])
    return found


@schemathesis.hook
def before_call(context, case, kwargs):
    method, names = case.method.upper(), list(case.path_parameters or {})
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
