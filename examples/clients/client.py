#!/usr/bin/env python3
"""Sends a job to batchkeeper and prints its results. Standard library only.

    BATCHKEEPER_URL=http://127.0.0.1:8080 BATCHKEEPER_KEY=... python3 client.py job.json

BATCHKEEPER_CLIENT names the client, where it is not "default"; BATCHKEEPER_POLL is the longest wait
between two polls, in seconds.
"""

import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request

URL = os.environ.get("BATCHKEEPER_URL", "http://127.0.0.1:8080").rstrip("/")
KEY = os.environ.get("BATCHKEEPER_KEY", "").encode()
CLIENT = os.environ.get("BATCHKEEPER_CLIENT", "default")
# The longest pause between two polls, in seconds.
POLL = float(os.environ.get("BATCHKEEPER_POLL", "30"))
ATTEMPTS = 8


def signed(method, target, body):
    """The headers of signature v1: over the time, the method, path and query, and the raw body."""
    timestamp = str(int(time.time()))
    message = f"{timestamp}.{method}.{target}.".encode() + body
    signature = hmac.new(KEY, message, hashlib.sha256).hexdigest()
    return {"X-Client-Id": CLIENT, "X-Timestamp": timestamp, "X-Signature": f"v1={signature}"}


def call(method, target, body=b"", headers=None):
    """One request, repeated while the service is busy or out of reach; its status, headers, JSON."""
    for attempt in range(ATTEMPTS):
        # Each request needs a new signature: a v1 signature is accepted once, and for 300 seconds.
        request = urllib.request.Request(
            URL + target,
            data=body if method == "POST" else None,
            headers={**signed(method, target, body), **(headers or {})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            answer = json.load(error)
            if error.code not in (429, 503):
                return error.code, error.headers, answer
            wait = float(error.headers.get("Retry-After", 1))
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            answer, wait = {"message": str(error)}, 2.0**attempt
        if attempt + 1 < ATTEMPTS:
            time.sleep(wait)
    sys.exit(f"gave up: {answer['message']}")


def main():
    if not KEY or len(sys.argv) != 2:
        sys.exit("usage: BATCHKEEPER_KEY=... python3 client.py job.json")
    with open(sys.argv[1], "rb") as file:
        body = file.read()
    # The same body has the same key, so that it is the same job: nothing is billed twice. To send a job
    # that has failed again, change its body or this key.
    key = hashlib.sha256(body).hexdigest()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    status, _, job = call("POST", "/api/v1/generate-descriptions", body, headers)
    if status not in (200, 201):
        sys.exit(f"refused: {status} {job['code']}: {job['message']}")
    print(f"job {job['job_id']}", file=sys.stderr)
    while True:
        status, headers, results = call("GET", f"/api/v1/batch-results/{job['job_id']}")
        if status != 202:
            break
        # A webhook reports the end immediately. Poll if the client cannot receive webhooks.
        time.sleep(min(float(headers.get("Retry-After", 30)), POLL))
    if status != 200:
        sys.exit(f"{status} {results['code']}: {results['message']}")
    json.dump(results, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
