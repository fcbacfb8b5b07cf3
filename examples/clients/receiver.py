#!/usr/bin/env python3
"""Receives batchkeeper's webhooks, verifies them, and prints each event once. Standard library only.

    WEBHOOK_SECRET=$(batchkeeper sign --webhook-secret) python3 receiver.py 127.0.0.1 9000

The signature is that of Standard Webhooks (https://www.standardwebhooks.com), whose libraries take
the same secret.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE = 300  # seconds that the timestamp may be off
MAX_BODY = 10_000_000
# The webhook-ids received so far: a delivery can arrive more than once. Keep them in a database.
seen = set()


def genuine(headers, body):
    """Whether the webhook is from who has the key, and not an old one sent again."""
    identifier, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    message = f"{identifier}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(SECRET, message, hashlib.sha256).digest())
    # There are two signatures while the key is being rotated.
    signatures = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(expected, signature) for signature in signatures)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            self.answer(413)
            return
        body = self.rfile.read(length)
        if not genuine(self.headers, body):
            self.answer(401)
            return
        if self.headers["webhook-id"] not in seen:
            seen.add(self.headers["webhook-id"])
            event = json.loads(body)
            # A body without lots would have been too long: fetch them from event["result_url"].
            print(event["event"], event["job_id"], len(event.get("lots", [])), flush=True)
        # Any status but 2xx within 30 seconds makes batchkeeper send it again later; 410 stops
        # that.
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Receiver)
    print(f"listening on {server.server_address[0]}:{server.server_address[1]}", flush=True)
    server.serve_forever()
