"""A receiver of webhooks that does everything once, on Python's own server, psycopg2 and Postgres.

DATABASE_URL names a database with the tables of schema.sql, WEBHOOK_SECRET is the endpoint's signing secret (whsec_...),
and PORT is where it listens, on loopback: what faces the Internet is your proxy.
"""

import base64
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

DATABASE_URL = os.environ["DATABASE_URL"]
SECRET = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
CLAIM = """insert into webhook_seen (id, forget_after)
    values (%s, greatest(%s::text::timestamptz, now()) + interval '6 days') on conflict do nothing"""
PROCESS = "insert into payment (order_number) values (%s)"


def is_authentic(headers, body):
    """Whether one of the signatures is ours, and not older than five minutes."""
    sent_at = headers.get("webhook-timestamp", "")
    if not (sent_at.isdecimal() and len(sent_at) < 12 and abs(time.time() - int(sent_at)) <= 300):
        return False
    signed = f"{headers.get('webhook-id', '')}.{sent_at}.".encode() + body
    ours = b"v1," + base64.b64encode(hmac.digest(SECRET, signed, "sha256"))
    theirs = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(ours, signature) for signature in theirs)


def process_once(headers, body):
    """Claims, processes and commits in one transaction; False if the webhook was claimed before."""
    connection = psycopg2.connect(DATABASE_URL)
    try:
        with connection, connection.cursor() as cursor:  # commits at its end; rolls back if something is raised
            cursor.execute(CLAIM, (headers["webhook-id"], headers["posthaste-redelivery-until"]))
            if cursor.rowcount == 0:
                return False
            cursor.execute(PROCESS, (json.loads(body)["order"],))
        return True
    finally:
        connection.close()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not is_authentic(self.headers, body):
            return self.answer(401, "not signed by the sender")
        try:
            is_first = process_once(self.headers, body)
        except Exception as error:
            self.log_error("%r", error)
            return self.answer(500, "try again")
        self.answer(200, "processed" if is_first else "seen before")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver)
    print("listening", flush=True)
    server.serve_forever()
