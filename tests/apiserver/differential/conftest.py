"""Two servers that get the same requests: ours, and a real Kubernetes API server with CRDs made from our schema.

Nothing is compared here (comparison.py does that) and no request is made up here (the tests do that). The Kubernetes
API server is the fixture `kubernetes` of tests/kubernetes.py; without it these tests skip and say why.
"""

from __future__ import annotations

import json
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from michelangelo.apiserver import auth, keyfiles
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client.kubeconfig import Endpoint
from michelangelo.storage.memory import MemoryStore


@dataclass(frozen=True)
class Answer:
    """What one server said."""

    code: int
    body: Any
    content_type: str


@dataclass
class Site:
    """One server, as raw HTTP. Requests name the test's namespace as `{ns}`."""

    name: str
    url: str
    token: str
    namespace: str
    pool: urllib3.PoolManager = field(repr=False)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept}
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(self.fill(body)).encode()
            headers["Content-Type"] = content_type
        answer = self.pool.request(
            method, self.url + path.replace("{ns}", self.namespace), body=data, headers=headers, retries=False
        )
        text = answer.data.decode()
        try:
            document = json.loads(text)
        except ValueError:
            document = text
        return Answer(answer.status, document, answer.headers.get("Content-Type", "").split(";")[0])

    def fill(self, value: Any) -> Any:
        """`value` with the site's namespace put in."""
        if isinstance(value, str):
            return value.replace("{ns}", self.namespace)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {key: self.fill(item) for key, item in value.items()}
        return value

    def watch(self, path: str, *, resource_version: str, count: int) -> list[dict[str, Any]]:
        """The first `count` events after `resource_version`; fewer when none comes for 10 s."""
        joint = "&" if "?" in path else "?"
        url = f"{self.url}{path.replace('{ns}', self.namespace)}{joint}watch=true&resourceVersion={resource_version}"
        answer = self.pool.request(
            "GET",
            url,
            headers={"Authorization": f"Bearer {self.token}"},
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=5, read=10),
        )
        found: list[dict[str, Any]] = []
        buffer = b""
        try:
            while len(found) < count:
                line, newline, rest = buffer.partition(b"\n")
                if newline:
                    buffer = rest
                    found.append(json.loads(line))
                    continue
                chunk = answer.read1()
                if not chunk:
                    break
                buffer += chunk
        except urllib3.exceptions.ReadTimeoutError:
            pass
        finally:
            answer.close()
        return found


def pool_of(endpoint_ca: str = "") -> urllib3.PoolManager:
    context = ssl.create_default_context(cadata=endpoint_ca or None)
    if not endpoint_ca:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return urllib3.PoolManager(ssl_context=context, assert_hostname=None if endpoint_ca else False)


@pytest.fixture(scope="module")
def our_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and token of a server of ours."""
    home: Path = tmp_path_factory.mktemp("ours")
    store = MemoryStore()
    token = keyfiles.ensure_token(home / "token")
    authenticator = auth.Authenticator(token, auth.RunTokens(keyfiles.ensure_key(home / "run-key")))
    server = HttpServer(AppParts(ApiServer(store), authenticator))
    server.start()
    yield server.url, token
    server.stop()
    store.close()


@pytest.fixture
def sites(kubernetes: Endpoint, our_server: tuple[str, str]) -> list[Site]:
    """Ours and the real one, each with a new namespace of the same name."""
    namespace = f"diff-{uuid.uuid4().hex[:8]}"
    url, token = our_server
    found = [
        Site("ours", url, token, namespace, pool_of()),
        Site("kubernetes", kubernetes.server, kubernetes.token, namespace, pool_of(kubernetes.ca)),
    ]
    for site in found:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        assert site.send("POST", "/api/v1/namespaces", body).code == 201
    return found
