"""The README's story as the Python SDK tells it. Reads POSTHASTE_URL and TOKEN."""

import http.server
import json
import os
import queue
import threading

from svix.api import (
    ApplicationIn,
    ApplicationPatch,
    EndpointIn,
    EndpointPatch,
    EndpointSecretRotateIn,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageCreateOptions,
    MessageIn,
    MessageListOptions,
    Svix,
    SvixOptions,
)
from svix.exceptions import HttpError, HTTPValidationError
from svix.webhooks import Webhook, WebhookVerificationError

APP, PATIENCE = "python", 20
received = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes every webhook, and lets the story look at it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        received.put((dict(self.headers.items()), body))

    def log_message(self, *_):
        pass


def refusal(kind, status, call):
    """Calls what must be refused, and returns the exception, which must be of this kind."""
    try:
        call()
    except kind as error:
        assert error.status_code == status, error
        return error
    raise AssertionError(f"nothing was refused; wanted {kind.__name__} with {status}")


def verified(secret):
    """The next webhook, whose signature must be one of this secret's."""
    headers, body = received.get(timeout=PATIENCE)
    Webhook(secret).verify(body, headers)
    return headers, body


def attempted(svix, message, count):
    """The attempts of a message, once there are so many."""
    options = MessageAttemptListByMsgOptions(limit=50)
    for _ in range(PATIENCE * 10):
        attempts = svix.message_attempt.list_by_msg(APP, message, options).data
        if len(attempts) >= count and all(int(attempt.status) == 0 for attempt in attempts):
            assert len(attempts) == count, attempts
            return attempts
        threading.Event().wait(0.1)
    raise AssertionError(f"never {count} attempts of {message}: {attempts}")


def tell(svix, receiver):
    app = svix.application.create(ApplicationIn(name="ACME", uid=APP))
    assert (app.name, app.uid) == ("ACME", APP) and svix.application.get(APP).id == app.id
    assert svix.application.get_or_create(ApplicationIn(name="Another", uid=APP)).name == "ACME"
    endpoint = svix.endpoint.create(APP, EndpointIn(url=receiver, uid="main", description="first"))
    secret = svix.endpoint.get_secret(APP, "main").key

    # The same request twice is one message, and one webhook.
    once = MessageCreateOptions(idempotency_key="order-17-paid")
    paid = MessageIn(event_type="invoice.paid", payload={"order": 17})
    first, again = svix.message.create(APP, paid, once), svix.message.create(APP, paid, once)
    assert (first.id, first.timestamp) == (again.id, again.timestamp)
    headers, body = verified(secret)
    assert headers["webhook-id"] == first.id and json.loads(body) == {"order": 17}

    # The same key with another request is a mistake that can be read.
    other = MessageIn(event_type="invoice.paid", payload={"order": 18})
    reused = refusal(HTTPValidationError, 422, lambda: svix.message.create(APP, other, once))
    [detail] = reused.detail
    assert "idempotency key" in detail.msg and detail.loc and detail.type, reused

    attempts = attempted(svix, first.id, 1)
    assert (attempts[0].response_status_code, attempts[0].url) == (204, receiver)
    by_endpoint = svix.message_attempt.list_by_endpoint(APP, endpoint.id, MessageAttemptListByEndpointOptions(limit=5))
    assert [attempt.id for attempt in by_endpoint.data] == [attempts[0].id]
    assert svix.message_attempt.get(APP, first.id, attempts[0].id).endpoint_id == endpoint.id
    listed = svix.message.list(APP, MessageListOptions(with_content=True))
    assert [(message.id, message.payload) for message in listed.data] == [(first.id, {"order": 17})], listed

    svix.message_attempt.resend(APP, first.id, "main")
    headers, _ = verified(secret)
    assert headers["webhook-id"] == first.id
    attempted(svix, first.id, 2)

    # While a secret is rotated the old one signs, too.
    rotated = svix.endpoint.rotate_secret(APP, "main", EndpointSecretRotateIn())
    new = svix.endpoint.get_secret(APP, "main").key
    assert rotated.key == new != secret
    second = svix.message.create(APP, other)
    headers, body = verified(new)
    assert headers["webhook-id"] == second.id
    Webhook(secret).verify(body, headers)
    try:
        Webhook(new).verify(b'{"order":19}', headers)
        raise AssertionError("another body has the same signature")
    except WebhookVerificationError:
        pass
    svix.endpoint.rotate_secret(APP, "main", EndpointSecretRotateIn(key=secret, grace_period_seconds=0))
    assert svix.endpoint.get_secret(APP, "main").key == secret

    assert svix.application.patch(APP, ApplicationPatch(name="ACME Ltd")).name == "ACME Ltd"
    assert svix.endpoint.patch(APP, "main", EndpointPatch(disabled=True)).disabled is True
    patched = svix.endpoint.get(APP, endpoint.id)
    assert (patched.disabled, patched.description) == (True, "first")
    quiet = svix.message.create(APP, MessageIn(event_type="invoice.paid", payload={"order": 20}))
    assert svix.message_attempt.list_by_msg(APP, quiet.id).data == []

    missing = refusal(HttpError, 404, lambda: svix.endpoint.get(APP, "missing"))
    assert missing.code == "not_found" and missing.detail, missing
    taken = refusal(HttpError, 409, lambda: svix.application.create(ApplicationIn(name="ACME", uid=APP)))
    assert taken.code and taken.detail, taken
    invalid = refusal(HTTPValidationError, 422, lambda: svix.endpoint.create(APP, EndpointIn(url="not a URL")))
    assert invalid.detail[0].loc[-1] == "url", invalid
    stranger = Svix("not-a-token", SvixOptions(server_url=os.environ["POSTHASTE_URL"]))
    refusal(HttpError, 401, lambda: stranger.application.list())

    svix.endpoint.delete(APP, "main")
    refusal(HttpError, 404, lambda: svix.endpoint.get(APP, endpoint.id))
    svix.application.delete(APP)
    refusal(HttpError, 404, lambda: svix.application.get(app.id))
    assert received.empty(), "a webhook more than there should be"


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
tell(Svix(os.environ["TOKEN"], SvixOptions(server_url=os.environ["POSTHASTE_URL"])), f"http://127.0.0.1:{server.server_port}/hook")
print("the story was told")
