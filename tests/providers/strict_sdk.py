"""OpenAI's SDK in strict mode parses each answer and each result line of a server: `strict_sdk.py BASE_URL`."""

import json
import sys
import time

import openai
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

MODEL = "gpt-6-luna"
RESPONSE = {"model": MODEL, "input": "A dent.", "max_output_tokens": 100}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "A dent."}], "max_completion_tokens": 100}

client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-sandbox", _strict_response_validation=True, max_retries=0)


def run_batch(endpoint, body, kind):
    lines = [
        json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": endpoint, "body": body})
        for number in range(5)
    ]
    # The last line fails, so that there is an error file.
    lines[-1] = lines[-1].replace('"A dent."', "7")
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    assert client.files.retrieve(file.id).bytes == file.bytes
    assert any(it.id == file.id for it in client.files.list(purpose="batch"))
    batch = client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"made_for": "a test"}
    )
    assert any(it.id == batch.id for it in client.batches.list(limit=1))
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch
    parsed = 0
    for line in client.files.content(batch.output_file_id).text.splitlines():
        kind.model_validate(json.loads(line)["response"]["body"], strict=False)
        parsed += 1
    for line in client.files.content(batch.error_file_id).text.splitlines() if batch.error_file_id else []:
        assert json.loads(line)["response"]["body"]["error"]["message"]
        parsed += 1
    assert parsed == len(lines), (parsed, batch)
    assert client.files.delete(file.id).deleted


def cancel_one():
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": RESPONSE})
    file = client.files.create(file=("in.jsonl", line.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    client.batches.cancel(batch.id)


def refuse_some():
    for call in (lambda: client.files.retrieve("file-none"), lambda: client.batches.retrieve("batch_none")):
        try:
            call()
        except openai.NotFoundError as error:
            assert error.body["message"]
        else:
            raise AssertionError("an unknown id was found")


assert client.responses.create(**RESPONSE).output_text
assert client.chat.completions.create(**CHAT).choices[0].message.content
run_batch("/v1/responses", RESPONSE, Response)
run_batch("/v1/chat/completions", CHAT, ChatCompletion)
cancel_one()
refuse_some()
print(f"openai {openai.__version__} parses each answer in strict mode")
