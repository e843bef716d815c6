"""The senders that people paste, run as they stand: each gets its 201."""

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.bus.contract.events import decode
from stack.folders import ROOT
from tests.integration.arrange import PATIENCE, take, until
from tests.integration.ingress.conftest import approved
from tests.programs import program

EXAMPLES = ROOT / "examples"
COMPILES = 4 * PATIENCE  # Go's own library as well, in a minute of a machine that does nothing else
pytestmark = pytest.mark.timeout(5 * PATIENCE)


WRONG = base64.b64encode(b"k" * 32).decode()


def run(command, sender, directory=EXAMPLES, secret="", *, exits=True):
    environment = os.environ | {"API_URL": sender.api.url, "ACCOUNT_ID": str(sender.account_id)}

    def ended(**more):
        return subprocess.run(
            command,
            env=environment | {"WEBHOOK_SECRET": secret or sender.secret} | more,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=COMPILES,
        )

    done = ended()
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"success"' in done.stdout.replace(": ", ":").replace("'", '"')
    found = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.stdout)
    assert found
    message = take(sender.api.amqp_url, "orders.intake")
    order = decode(message.properties["type"], message.body)
    assert str(order.order_id) == found[0]
    assert order.customer_details.name == "Zoë Ade"
    assert order.item_summary == "2 × blue kettle"
    # Sent again when no answer came, it is the same order: by its number, or its `webhook-id`.
    assert order.order_number or secret
    wrong = f"{'whsec_' if secret else 'whsk_'}{WRONG}"
    refused = ended(WEBHOOK_SECRET=wrong)
    assert refused.returncode or not exits
    assert f"invalid_{'signature' if secret else 'api_key'}" in refused.stdout
    for failed in (refused, ended(WEBHOOK_SECRET=wrong, API_URL="http://127.0.0.1:9")):
        assert failed.returncode or not exits
        assert (failed.stdout + failed.stderr).strip(" 0\n")
        assert WRONG not in failed.stdout + failed.stderr


@pytest.fixture
def sender(api):
    while take(api.amqp_url, "orders.intake") is not None:
        pass
    return approved(api)


def test_python(sender):
    run([sys.executable, "send_order.py"], sender)


def test_standard_webhooks_in_python(sender):
    run([sys.executable, "send_standard.py"], sender, secret=sender.signing_secret)


def test_shell(sender):
    program("curl")
    program("openssl")
    run(["sh", "send_order.sh"], sender)


@pytest.mark.parametrize(
    "command", [[sys.executable, "send_asymmetric.py"], ["sh", "send_asymmetric.sh"]]
)
def test_a_key_pair_of_ones_own(sender, tmp_path, monkeypatch, command):
    program("curl")
    openssl = program("openssl")
    key, public = tmp_path / "webhook.pem", tmp_path / "public.der"
    for made in (["genpkey", "-algorithm", "ed25519", "-out", key],
                 ["pkey", "-in", key, "-pubout", "-outform", "DER", "-out", public]):  # fmt: skip
        subprocess.run([openssl, *made], check=True, timeout=COMPILES)
    given = "whpk_" + base64.b64encode(public.read_bytes()[-32:]).decode()
    answer = sender.api.http.post(
        "/webhook/public-keys/", headers=sender.bearer, json={"public_key": given}
    )
    assert answer.status_code < 300, answer.text
    monkeypatch.setenv("WEBHOOK_KEY", str(key))
    until(lambda: signs(command, sender), "the key is known")


def signs(command, sender):
    environment = os.environ | {"API_URL": sender.api.url, "ACCOUNT_ID": str(sender.account_id)}
    done = subprocess.run(
        command, env=environment, cwd=EXAMPLES, capture_output=True, text=True, timeout=COMPILES
    )
    is_taken = '"status":"success"' in done.stdout
    assert is_taken == (done.returncode == 0), done.stdout + done.stderr
    return is_taken


def test_php(sender):
    run([program("php"), "send_order.php"], sender)


def test_ruby(sender):
    run([program("ruby"), "send_order.rb"], sender)


def test_go(sender, tmp_path, monkeypatch):
    monkeypatch.setenv("GOCACHE", str(tmp_path))
    run([program("go"), "run", "send_order.go"], sender)


def test_java(sender):
    """As a JDK does that knows no other letters than ASCII."""
    # A machine may have a Java that runs and does not compile.
    java = Path(program("javac")).resolve().with_name("java")
    run([str(java), "-Dfile.encoding=US-ASCII", "SendOrder.java"], sender)


def test_node(sender, tmp_path):
    node = program("node")
    npm = program("npm")
    for name in ("package.json", "package-lock.json", "send_order.mjs", "send_standard.mjs"):
        shutil.copy(EXAMPLES / name, tmp_path)
    subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--silent"],
        cwd=tmp_path,
        check=True,
        timeout=COMPILES,
    )
    run([node, "send_order.mjs"], sender, tmp_path)
    run([node, "send_standard.mjs"], sender, tmp_path, sender.signing_secret)


def test_the_lines_of_the_readme(sender, tmp_path):
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (lines,) = [block for block in blocks if "/webhooks/orders/" in block]
    script = tmp_path / "pasted.py"
    script.write_text(lines.replace("http://127.0.0.1:8000", sender.api.url))
    run([sys.executable, str(script)], sender, exits=False)
