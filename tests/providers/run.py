#!/usr/bin/env python3
"""Runs a job of 100 lots in three languages through servers with OpenAI's Batch API that others wrote.

    python3 tests/providers/run.py [--program target/debug/batchkeeper] [--folder FOLDER] [--lots 100] [NAME ...]

It installs aimock (npm, `@copilotkit/aimock`), and LiteLLM's proxy and OpenAI's own SDK (pip) into the folder, from the
registries that npm and pip are configured for. Then it runs

- sandbox: the sandbox, with /v1/chat/completions;
- aimock: a mock of OpenAI, with /v1/responses;
- litellm: LiteLLM's proxy in front of the sandbox, with /v1/chat/completions;
- sdk: OpenAI's SDK in strict mode, which must parse each answer and each result line of the sandbox.

For each server it first prints what `check-config --probe-batch` finds. Exit status 0 if every lot has every text, and
nothing was sent twice.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

LANGUAGES = ["en", "de", "ru"]
PATIENCE = 300  # seconds


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def call(method, url, headers=None, body=None):
    """Sends one request. Gives the status and the body."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Servers:
    """The processes of a run. They end with it."""

    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.processes = []

    def start(self, name, command, is_up, environment=None):
        """Starts a process, and waits until a URL of it answers, or its log has a match of `is_up`."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
            )
        self.processes.append(process)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            if isinstance(is_up, re.Pattern):
                if found := is_up.search(log.read_text(errors="replace")):
                    return found.group(1)
            else:
                try:
                    if call("GET", is_up)[0] == 200:
                        return is_up
                except OSError:
                    pass
            time.sleep(0.2)
        raise SystemExit(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self.processes.clear()

    def sandbox(self, state):
        shutil.rmtree(self.folder / state, ignore_errors=True)
        command = [self.program, "sandbox", "--listen", "127.0.0.1:0", "--pace", "fast", "--state", self.folder / state]
        return self.start(state, command, re.compile(r"the sandbox serves (http://\S+)/v1"))


def install(folder, names):
    """Installs the servers that are asked for. A second run in the same folder installs nothing."""
    wanted = []
    if "sdk" in names:
        wanted.append("openai")
    if "litellm" in names:
        wanted.append("litellm[proxy]")
    python = folder / "venv" / "bin" / "python"
    if wanted:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    if "aimock" in names and not (folder / "node_modules" / "@copilotkit").exists():
        npm = shutil.which("npm") or sys.exit("npm is needed for aimock")
        subprocess.run([npm, "install", "--silent", "--prefix", folder, "@copilotkit/aimock"], check=True)


def job(images, count):
    names = ["truck.jpg", "rocket.jpg", "flower.jpg", "china.jpg"]
    lots = [
        {
            "lot_id": f"lot-{number}",
            "additional_info": f"Lot {number}: a dent in the door, as wide as {number} hands",
            "images": [f"{images}/images/{names[number % 4]}"],
        }
        for number in range(count)
    ]
    return json.dumps({"version": "1.0.0", "languages": LANGUAGES, "lots": lots}).encode()


class Appliance:
    """A daemon that asks one server."""

    def __init__(self, servers, name, base_url, key, endpoint):
        self.servers, self.name = servers, name
        self.folder = servers.folder / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        self.api, self.ops = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.write("openai.key", key)
        self.config = self.write(
            "config.toml",
            f"""
listen = "{self.api}"
ops_listen = "{self.ops}"
database = "{self.folder}/batchkeeper.db"
[[clients]]
name = "default"
keys = ["a key of the client default"]
[openai]
base_url = "{base_url}"
api_key_file = "{self.folder}/openai.key"
endpoint = "{endpoint}"
poll_interval = "500ms"
retry_interval = "500ms"
[batch]
max_wait = "500ms"
[network]
allow_private = ["127.0.0.0/8"]
[limits]
disk_reserve = 0
[steps]
idle = "200ms"
""",
        )

    def write(self, name, text):
        """Writes a file that only its owner reads, as the program asks for."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def run(self, *arguments, input=None):
        command = [str(self.servers.program), *arguments, "--config", str(self.config)]
        return subprocess.run(command, input=input, capture_output=True, text=True, check=False)

    def signature(self, *arguments):
        lines = self.run("sign", "--headers", *arguments).stdout.splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    def complete(self, body):
        """Sends the job and waits for its results. Gives what is wrong with them."""
        command = [self.servers.program, "serve", "--config", self.config]
        self.servers.start(f"{self.name}-daemon", command, f"http://{self.ops}/health")
        path = self.folder / "job.json"
        path.write_bytes(body)
        headers = {**self.signature(str(path)), "Content-Type": "application/json"}
        status, answer = call("POST", f"http://{self.api}/api/v1/generate-descriptions", headers, body)
        if status != 201:
            return [f"the job was answered with {status}: {answer.decode()}"]
        target = f"/api/v1/batch-results/{json.loads(answer)['job_id']}"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status, answer = call("GET", f"http://{self.api}{target}", self.signature("--get", target))
            if status != 202:
                return faults(status, json.loads(answer), len(json.loads(body)["lots"])) + self.faults()
            time.sleep(1)
        return ["the job did not end", *self.faults()]

    def faults(self):
        found = []
        doctor = self.run("doctor")
        if doctor.returncode != 0:
            found.append(f"doctor: {doctor.stdout}{doctor.stderr}")
        for alert in json.loads(self.run("alerts", "--json").stdout or "[]"):
            found.append(f"alert {alert['kind']}: {alert['message']}")
        return found


def faults(status, results, count):
    """The faults in the results of a job, such as lots without a text."""
    if status != 200:
        return [f"the results were answered with {status}: {results}"]
    lots = results["results"]["lots"]
    found = [] if len(lots) == count else [f"{len(lots)} of {count} lots"]
    for lot in lots:
        texts = {it["language"]: it.get("damages") for it in lot.get("descriptions", [])}
        missing = [language for language in LANGUAGES if not texts.get(language)]
        if missing:
            found.append(f"{lot['lot_id']} has no text in {', '.join(missing)}")
    return found


def run_server(servers, name, count):
    images = servers.sandbox(f"{name}-images")
    upstream, key, endpoint = f"{images}/v1", "sk-sandbox", "/v1/chat/completions"
    if name == "aimock":
        port, key, endpoint = free_port(), "sk-aimock", "/v1/responses"
        fixtures = servers.folder / "fixtures.json"
        fixtures.write_text('{"fixtures": [{"match": {}, "response": {"content": "The front door has a dent."}}]}')
        command = ["node_modules/.bin/llmock", "--port", port, "--fixtures", fixtures, "--journal-max", 10]
        servers.start("aimock", command, re.compile(r"(listening on)"))
        upstream = f"http://127.0.0.1:{port}/v1"
    elif name == "litellm":
        port, key = free_port(), "sk-litellm"
        model = {"api_base": f"{images}/v1", "api_key": "sk-sandbox"}
        names = ["gpt-6-luna", "gpt-4.1-mini"]
        config = {
            "model_list": [{"model_name": it, "litellm_params": {"model": f"openai/{it}", **model}} for it in names],
            "files_settings": [{"custom_llm_provider": "openai", **model}],
            "general_settings": {"master_key": key},
        }
        (servers.folder / "litellm.json").write_text(json.dumps(config))
        environment = {"OPENAI_API_KEY": "sk-sandbox", "OPENAI_BASE_URL": f"{images}/v1", "LITELLM_TELEMETRY": "False"}
        command = ["venv/bin/litellm", "--config", "litellm.json", "--host", "127.0.0.1", "--port", port]
        servers.start("litellm", command, f"http://127.0.0.1:{port}/health/liveliness", environment)
        upstream = f"http://127.0.0.1:{port}/v1"
    appliance = Appliance(servers, name, upstream, key, endpoint)
    print(appliance.run("check-config", "--probe-batch").stdout, flush=True)
    found = appliance.complete(job(images, count))
    if name != "aimock":
        state = json.loads(call("GET", f"{images}/sandbox/state")[1])
        if state["answered_more_than_once"] or state["duplicate_submissions"]:
            found.append(f"sent twice: {state}")
    return found


def run_sdk(servers):
    """Lets OpenAI's SDK parse what the sandbox says, in its strict mode."""
    base = servers.sandbox("sdk-sandbox")
    script = Path(__file__).with_name("strict_sdk.py")
    ran = subprocess.run([servers.folder / "venv/bin/python", script, f"{base}/v1"], capture_output=True, text=True)
    print(ran.stdout, end="", flush=True)
    return [] if ran.returncode == 0 else [ran.stderr[-3000:]]


def main():
    names = ["sandbox", "aimock", "litellm", "sdk"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*names, []], metavar="NAME", help=", ".join(names))
    parser.add_argument("--program", type=Path, default=Path("target/debug/batchkeeper"))
    parser.add_argument("--folder", type=Path, help="where the servers are installed; default: a new one")
    parser.add_argument("--lots", type=int, default=100)
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="batchkeeper-providers-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = options.names or names
    install(folder, chosen)
    failed = False
    for name in chosen:
        servers = Servers(folder, options.program.resolve())
        began = time.monotonic()
        try:
            found = run_sdk(servers) if name == "sdk" else run_server(servers, name, options.lots)
        finally:
            servers.stop()
        failed |= bool(found)
        print(f"{name}: {'complete' if not found else 'FAILED'} after {time.monotonic() - began:.0f} s", flush=True)
        for line in found[:20]:
            print(f"  {line}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
