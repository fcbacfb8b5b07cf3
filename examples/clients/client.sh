#!/bin/sh
# Sends a job to batchkeeper and prints its results, with curl and openssl.
#
#     BATCHKEEPER_URL=http://127.0.0.1:8080 BATCHKEEPER_KEY=... sh client.sh job.json
#
# BATCHKEEPER_CLIENT names the client, where it is not "default"; BATCHKEEPER_POLL is the wait
# between two polls, in seconds.
set -eu
if [ -z "${BATCHKEEPER_KEY:-}" ] || [ $# -ne 1 ]; then
    echo 'usage: BATCHKEEPER_KEY=... sh client.sh job.json' >&2
    exit 1
fi
url=${BATCHKEEPER_URL:-http://127.0.0.1:8080}
client=${BATCHKEEPER_CLIENT:-default}
job_file=$1
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# call METHOD TARGET [BODY_FILE]: writes the answer's body to $answer and prints its status.
# Signature v1 covers the time, the method, the path with its query, and the raw body.
call() {
    body=${3:-/dev/null}
    timestamp=$(date +%s)
    signature=$({ printf '%s.%s.%s.' "$timestamp" "$1" "$2"; cat "$body"; } |
        openssl dgst -sha256 -hmac "$BATCHKEEPER_KEY" | sed 's/.* //')
    set -- -X "$1" "$url$2"
    if [ "$body" != /dev/null ]; then
        # The same body has the same key, so that it is the same job: nothing is billed twice.
        set -- "$@" --data-binary "@$body" -H 'Content-Type: application/json' \
            -H "Idempotency-Key: $(openssl dgst -sha256 <"$body" | sed 's/.* //')"
    fi
    curl -sS -o "$answer" -w '%{http_code}' -H "X-Client-Id: $client" -H "X-Timestamp: $timestamp" \
        -H "X-Signature: v1=$signature" "$@"
}

status=$(call POST /api/v1/generate-descriptions "$job_file")
# A job of one lot is answered with 200.
if [ "$status" != 201 ] && [ "$status" != 200 ]; then
    cat "$answer" >&2
    exit 1
fi
job=$(sed 's/.*"job_id":"\([^"]*\)".*/\1/' "$answer")
echo "job $job" >&2
while status=$(call GET "/api/v1/batch-results/$job") && [ "$status" = 202 ]; do
    sleep "${BATCHKEEPER_POLL:-30}"
done
cat "$answer"
[ "$status" = 200 ]
