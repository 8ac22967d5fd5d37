"""Tokens: who calls, and what a run's token may touch. Certificates and the kubeconfig that carry them."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import audit, auth, authorization, keyfiles, kubeconfig, tls, verb
from michelangelo.apiserver.authorization import Attributes
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.storage.memory import MemoryStore

if TYPE_CHECKING:
    from tests.apiserver.conftest import MovableClock

TOKEN = "a-token-of-enough-length"
SCOPE = auth.RunScope("team", "run-1", "uid-1")
RUN = auth.Identity("run:team/run-1", SCOPE)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_token_is_made_once_and_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "home" / "token"
    token = keyfiles.ensure_token(path)
    assert len(token) >= 43
    assert keyfiles.ensure_token(path) == token
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["token"]


def test_token_file_that_others_can_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    assert keyfiles.ensure_token(path) == TOKEN
    assert mode(path) == 0o600


def test_damaged_token_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("")
    with pytest.raises(errors.SettingsError, match="damaged"):
        keyfiles.ensure_token(path)


def test_token_in_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.SettingsError, match="cannot read or make"):
        keyfiles.ensure_token(tmp_path / "file" / "token")


def test_owner_is_known_by_the_token() -> None:
    authenticator = auth.Authenticator(TOKEN, auth.RunTokens(b"key"))
    assert authenticator.identify(f"Bearer {TOKEN}").user == "owner"
    assert authenticator.identify(f"bearer  {TOKEN} ").user == "owner"
    assert authenticator.identify("") == auth.ANONYMOUS


@pytest.mark.parametrize(
    "header",
    [f"Bearer {TOKEN}x", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer ma-run.e30.x", "Bearer é"],
)
def test_wrong_tokens_are_refused(header: str) -> None:
    with pytest.raises(errors.UnauthorizedError):
        auth.Authenticator(TOKEN, auth.RunTokens(b"key")).identify(header)


def test_short_owner_token_is_refused() -> None:
    with pytest.raises(errors.SettingsError, match="fewer than 16"):
        auth.Authenticator("short", auth.RunTokens(b"key"))


def test_run_token_names_its_run_until_it_expires() -> None:
    now = 1000.0
    tokens = auth.RunTokens(b"key", now=lambda: now)
    token = tokens.issue(SCOPE, lifetime_seconds=60)
    authenticator = auth.Authenticator(TOKEN, tokens)
    assert authenticator.identify(f"Bearer {token}") == RUN
    now = 1060.0
    with pytest.raises(errors.UnauthorizedError, match="expired"):
        authenticator.identify(f"Bearer {token}")


def test_run_token_of_another_key_or_another_run_is_forged() -> None:
    tokens = auth.RunTokens(b"key")
    token = tokens.issue(SCOPE, lifetime_seconds=60)
    assert auth.RunTokens(b"other").read(token) is None
    other = tokens.issue(auth.RunScope("team", "run-2", "uid-2"), lifetime_seconds=60)
    mixed = other.rpartition(".")[0] + "." + token.rpartition(".")[2]
    assert tokens.read(mixed) is None


def attributes(action: str, kind: str, name: str = "", **more: Any) -> Attributes:
    return Attributes(action, registry.get(kind), more.pop("namespace", "team"), name, **more)


def started(**changes: Any) -> dict[str, Any]:
    """A run that run-1 has started, with `changes`."""
    metadata = {
        "name": "run-9",
        "labels": {"michelangelo/parent-run": "run-1"},
        "ownerReferences": [{"kind": "PipelineRun", "name": "run-1", "uid": "uid-1"}],
    }
    spec = {"pipeline": {"name": "train"}}
    return {"metadata": {**metadata, **changes.pop("metadata", {})}, "spec": {**spec, **changes}}


def entry(name: str, run: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"michelangelo/pipeline-run": run}}}


OWN = "michelangelo/pipeline-run=run-1"
CLAIM = f"cache-{40 * '0'}"


@pytest.mark.parametrize(
    "wanted",
    [
        attributes("create", "PipelineRun"),
        attributes("patch", "PipelineRun", "run-9"),
        attributes("watch", "PipelineRun", label_selector="michelangelo/parent-run=run-1"),
        attributes("get", "PipelineRun", "run-1"),
        attributes("patch", "PipelineRun", "run-1", subresource="status"),
        attributes("watch", "PipelineRun", field_selector="metadata.name=run-1"),
        attributes("create", "TaskRun"),
        attributes("update", "TaskRun", "run-1-0123456789ab-1"),
        attributes("list", "TaskRun", label_selector=OWN),
        attributes("watch", "Signal", label_selector=f"{OWN},michelangelo/signal=go"),
        attributes("get", "Revision", "pipeline-a-0123456789ab"),
        attributes("create", "CachedOutput"),
        attributes("delete", "CachedOutput", "co-1"),
        attributes("create", "Event"),
        attributes("watch", "Lease", label_selector="michelangelo/cache-claim"),
        attributes("get", "Lease", "pipelinerun-run-2"),
        attributes("update", "Lease", CLAIM),
        attributes("delete", "Lease", CLAIM),
        attributes("update", "Lease", "pipelinerun-run-1"),
        attributes("delete", "Lease", "pipelinerun-run-1"),
    ],
    ids=str,
)
def test_run_may_do_what_it_needs(wanted: Attributes) -> None:
    authorization.authorize(RUN, wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        attributes("get", "PipelineRun", "run-1", namespace="other"),
        attributes("list", "PipelineRun"),
        attributes("patch", "PipelineRun", "run-1"),
        attributes("delete", "PipelineRun", "run-1"),
        attributes("patch", "PipelineRun", "run-2", subresource="status"),
        attributes("create", "PipelineRun", namespace="other"),
        attributes("list", "PipelineRun", label_selector="michelangelo/parent-run=run-2"),
        attributes("list", "TaskRun"),
        attributes("list", "TaskRun", label_selector=f"{OWN}0"),
        attributes("list", "TaskRun", label_selector=f"a!={OWN.partition('=')[2]}"),
        attributes("list", "TaskRun", label_selector="michelangelo/pipeline-run in (run-1,run-2)"),
        attributes("list", "TaskRun", label_selector=OWN, namespace=""),
        attributes("deletecollection", "TaskRun", label_selector=OWN),
        attributes("delete", "TaskRun", "run-1-0123456789ab-1"),
        attributes("create", "Signal"),
        attributes("update", "Pipeline", "flow"),
        attributes("create", "Revision"),
        attributes("list", "Event"),
        attributes("update", "Lease", "controllers"),
        attributes("get", "Lease", "controllers"),
        attributes("list", "Lease"),
        attributes("update", "Lease", "pipelinerun-run-2"),
        attributes("delete", "Lease", f"{CLAIM}0"),
        attributes("get", "Namespace", "team", namespace=""),
        attributes("delete", "Project", "team"),
    ],
    ids=str,
)
def test_run_may_do_nothing_else(wanted: Attributes) -> None:
    with pytest.raises(errors.ForbiddenError, match=r'User "run:team/run-1" cannot'):
        authorization.authorize(RUN, wanted)
    authorization.authorize(auth.Identity("owner"), wanted)


def test_later_run_reads_the_journal_of_an_earlier_one_and_leaves_it_as_it_is() -> None:
    tokens = auth.RunTokens(b"key")
    scope = tokens.read(tokens.issue(auth.RunScope("team", "run-1", "uid-1", read_only=True), lifetime_seconds=60))
    assert scope is not None
    reader = auth.Identity("run:team/run-1", scope)
    authorization.authorize(reader, attributes("list", "TaskRun", label_selector=OWN))
    for wanted in (
        attributes("create", "TaskRun"),
        attributes("update", "TaskRun", "run-1-0123456789ab-1"),
        attributes("patch", "PipelineRun", "run-1", subresource="status"),
        attributes("update", "Lease", "pipelinerun-run-1"),
        attributes("create", "CachedOutput"),
    ):
        with pytest.raises(errors.ForbiddenError):
            authorization.authorize(reader, wanted)


@pytest.mark.parametrize(
    ("kind", "obj", "allowed"),
    [
        ("TaskRun", entry("run-1-0123456789ab-1", "run-1"), True),
        ("TaskRun", entry("run-1-0123456789ab-1", "run-2"), False),
        ("TaskRun", entry("run-2-0123456789ab-1", "run-1"), False),
        ("TaskRun", entry("run-1-b-0123456789ab-1", "run-1"), False),
        ("TaskRun", {"metadata": 7}, False),
        ("PipelineRun", {"metadata": {"name": "run-1", "uid": "uid-1"}}, True),
        ("PipelineRun", {"metadata": {"name": "run-1", "uid": "uid-of-a-later-run"}}, False),
        ("PipelineRun", {"metadata": {"name": "run-2", "uid": "uid-1"}}, False),
        ("PipelineRun", started(), True),
        ("PipelineRun", started(kill=True), True),
        ("PipelineRun", started(resume={"pipelineRun": {"name": "run-2"}}), False),
        ("PipelineRun", started(pipelineSpec={"manifest": {}}), False),
        ("PipelineRun", started(metadata={"labels": {"michelangelo/parent-run": "run-2"}}), False),
        ("PipelineRun", started(metadata={"ownerReferences": []}), False),
        ("PipelineRun", started(metadata={"ownerReferences": [{"uid": "uid-2"}]}), False),
        ("Lease", {"metadata": {"name": "pipelinerun-run-1"}}, True),
        ("Lease", {"metadata": {"name": "pipelinerun-run-2"}}, False),
        ("Event", {"involvedObject": {"name": "run-1"}}, True),
        ("Event", {"involvedObject": {"name": "run-2"}}, False),
        ("Event", {"involvedObject": None}, False),
    ],
)
def test_objects_of_other_runs_are_out_of_reach(kind: str, obj: dict[str, Any], allowed: bool) -> None:
    wanted = attributes("update", kind)
    if allowed:
        authorization.check_object(RUN, wanted, obj)
    else:
        with pytest.raises(errors.ForbiddenError):
            authorization.check_object(RUN, wanted, obj)


def test_certificate_is_made_once_and_kept(tmp_path: Path) -> None:
    made = tls.ensure(tmp_path / "tls")
    content = made.certificate.read_bytes()
    assert tls.ensure(tmp_path / "tls").certificate.read_bytes() == content
    for path in (tmp_path / "tls").iterdir():
        assert mode(path) == 0o600
    assert mode(tmp_path / "tls") == 0o700
    names = x509.load_pem_x509_certificate(content).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]
    assert {str(one) for one in names.value.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}


def test_certificate_passes_strict_verification(tmp_path: Path) -> None:
    made = tls.ensure(tmp_path / "tls")
    context = ssl.create_default_context(cafile=made.authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.cipher()


def test_certificate_is_renewed_under_the_same_authority(tmp_path: Path, clock: MovableClock) -> None:
    made = tls.ensure(tmp_path, clock=clock)
    certificate, authority = made.certificate.read_bytes(), made.authority.read_bytes()
    clock.advance(timedelta(days=380).total_seconds())
    tls.ensure(tmp_path, clock=clock)
    assert made.certificate.read_bytes() != certificate
    assert made.authority.read_bytes() == authority


@pytest.mark.parametrize("file", ["server.crt", "server.key", "ca.crt", "ca.key"])
def test_damaged_certificate_is_made_anew(tmp_path: Path, file: str) -> None:
    tls.ensure(tmp_path)
    (tmp_path / file).write_bytes(b"rubbish")
    made = tls.ensure(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    x509.load_pem_x509_certificate(made.certificate.read_bytes()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(made.authority.read_bytes())
    )


def test_certificate_for_further_hosts_is_made_anew(tmp_path: Path) -> None:
    made = tls.ensure(tmp_path)
    before = made.certificate.read_bytes()
    tls.ensure(tmp_path, hosts=(*tls.HOSTS, "ml.example"))
    assert made.certificate.read_bytes() != before


def test_certificate_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.SettingsError, match="certificate"):
        tls.ensure(tmp_path / "file" / "tls")


def test_kubeconfig_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("old")
    config = kubeconfig.document(server="https://127.0.0.1:1", token=TOKEN, authority=b"PEM", namespace="team")
    kubeconfig.write(path, config)
    assert mode(path) == 0o600
    assert json.loads(path.read_text()) == config
    assert config["users"][0]["user"] == {"token": TOKEN}
    assert [one.name for one in tmp_path.iterdir()] == ["kubeconfig"]


def test_audit_tells_who_did_what_from_where_to_where(tmp_path: Path, clock: MovableClock) -> None:
    log = audit.AuditFile(tmp_path / "audit.jsonl")
    api = ApiServer(MemoryStore(), clock=clock, audit_log=log)
    project = registry.get("Project")
    made = verb.run(api.create(project, "team", {"metadata": {"name": "team"}}))
    with pytest.raises(errors.AlreadyExistsError):
        verb.run(api.create(project, "team", {"metadata": {"name": "team"}}))
    verb.run(api.update(project, "team", "team", {**made, "spec": {"tier": 2}}))
    verb.run(api.delete(project, "team", "team"))
    log.close()
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(one["verb"], one["resource"], one["from"], one["to"]) for one in entries] == [
        ("create", "namespaces", "", "1"),
        ("create", "projects.michelangelo.api", "", "2"),
        ("update", "projects.michelangelo.api", "2", "3"),
        ("delete", "projects.michelangelo.api", "3", "4"),
    ]
    assert entries[1]["user"] == "in-process"
    assert entries[1]["uid"] == made["metadata"]["uid"]
    assert mode(tmp_path / "audit.jsonl") == 0o600


def test_audit_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="audit log"):
        audit.AuditFile(tmp_path / "nowhere" / "audit.jsonl")


@pytest.mark.skipif(not os.path.exists("/usr/bin/openssl"), reason="openssl is not installed")
def test_openssl_accepts_the_chain(tmp_path: Path) -> None:
    made = tls.ensure(tmp_path)
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(made.authority), str(made.certificate)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).returncode == 0
