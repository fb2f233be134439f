"""Who asks S3, and where: files, profiles, roles and processes count as they do in every S3 tool; keys are renewed."""

from __future__ import annotations

import json
import os
import random
import sys
import textwrap
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from support.commands import cli
from support.servers import S3_KEY, S3_SECRET, Fault, FaultServer, Moto, Rclone, Request, at_once, status
from support.snapshots import assert_same_tree

from dumont_gpu.errors import DumontError, UnsupportedError
from dumont_gpu.storage import open_sink, open_source
from dumont_gpu.storage.addresses import Address
from dumont_gpu.storage.object_store import ObjectSigner

pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
pytest.importorskip("botocore", reason="botocore, the extra s3, is not installed")

AT_ONCE = at_once()
LOCATION = "s3://bucket/x.dumont"


class Home:
    """A home directory with the files of ~/.aws, which the environment does not name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / ".aws").mkdir(parents=True)

    def config(self, text: str) -> None:
        (self.path / ".aws/config").write_text(textwrap.dedent(text))

    def credentials(self, text: str) -> None:
        (self.path / ".aws/credentials").write_text(textwrap.dedent(text))

    def program(self, text: str) -> str:
        """A script for `credential_process`."""
        script = self.path / "process.py"
        script.write_text(textwrap.dedent(text))
        return f"{sys.executable} {script}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AWS_CONFIG_FILE")
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    return Home(tmp_path / "home")


def signed() -> Address:
    return ObjectSigner(LOCATION).address()


def signature(address: Address, name: str) -> str:
    return parse_qs(address.query)[f"X-Amz-{name}"][0]


def key(address: Address) -> str:
    return signature(address, "Credential").split("/")[0]


def region(address: Address) -> str:
    return signature(address, "Credential").split("/")[2]


# --- files and profiles -----------------------------------------------------------------------------------------------

TWO_PROFILES = """
    [default]
    aws_access_key_id = DEFAULTKEY
    aws_secret_access_key = one

    [work]
    aws_access_key_id = WORKKEY
    aws_secret_access_key = two
    aws_session_token = worktoken
"""


def test_a_snapshot_goes_there_and_back_with_nothing_but_files(
    rclone: Rclone, home: Home, source: Path, target: Path
) -> None:
    """rclone checks signatures."""
    home.credentials(f"[default]\naws_access_key_id = {S3_KEY}\naws_secret_access_key = {S3_SECRET}\n")
    home.config(f"[default]\nregion = eu-west-3\nendpoint_url = http://127.0.0.1:{rclone.port}\n")
    (source / "weights").write_bytes(random.Random(5).randbytes(100_000))
    ran = cli("pack", source, "-o", "s3://bucket/from-files.dumont")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (rclone.bucket / "from-files.dumont").stat().st_size > 100_000
    home.credentials(f"[default]\naws_access_key_id = {S3_KEY}\naws_secret_access_key = wrong\n")
    ran = cli("info", "s3://bucket/from-files.dumont")
    assert ran.returncode == 1
    assert "SignatureDoesNotMatch" in ran.stderr and "check the access key and the secret key" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_restoring_takes_keys_and_endpoint_from_files_too(moto: Moto, home: Home, source: Path, target: Path) -> None:
    home.credentials("[default]\naws_access_key_id = K\naws_secret_access_key = S\n")
    home.config(f"[default]\nendpoint_url = http://127.0.0.1:{moto.port}\n")
    (source / "a").write_text("a")
    for command in (("pack", source, "-o", "s3://bucket/both.dumont"), ("restore", "s3://bucket/both.dumont", target)):
        ran = cli(*command)
        assert (ran.returncode, ran.stderr) == (0, "")
    assert_same_tree(source, target)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "DEFAULTKEY"),
        ({"AWS_PROFILE": "work"}, "WORKKEY"),
        ({"AWS_DEFAULT_PROFILE": "work"}, "WORKKEY"),
        ({"AWS_ACCESS_KEY_ID": "ENVKEY", "AWS_SECRET_ACCESS_KEY": "s"}, "ENVKEY"),
        ({"AWS_ACCESS_KEY_ID": "ENVKEY", "AWS_SECRET_ACCESS_KEY": "s", "AWS_PROFILE": "work"}, "ENVKEY"),
    ],
)
def test_keys_come_from_the_environment_or_the_profile(
    variables: dict[str, str], expected: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.credentials(TWO_PROFILES)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    address = signed()
    assert key(address) == expected
    assert ("X-Amz-Security-Token" in parse_qs(address.query)) == (expected == "WORKKEY")


def test_a_token_of_the_environment_is_not_mixed_with_a_profile(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.credentials(TWO_PROFILES)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "left over")
    assert "X-Amz-Security-Token" not in parse_qs(signed().query)


CONFIG = """
    [default]
    region = eu-north-1
    endpoint_url = http://config.example:9000

    [profile work]
    region = ap-south-1
    services = mine
    endpoint_url = http://profile.example

    [services mine]
    s3 =
        endpoint_url = http://service.example:9001
    sts =
        endpoint_url = http://sts.example
"""


@pytest.mark.parametrize(
    ("variables", "place", "expected"),
    [
        ({}, "config.example:9000", "eu-north-1"),
        ({"AWS_PROFILE": "work"}, "service.example:9001", "ap-south-1"),
        ({"AWS_REGION": "us-west-2"}, "config.example:9000", "us-west-2"),
        ({"AWS_DEFAULT_REGION": "us-west-1"}, "config.example:9000", "us-west-1"),
        ({"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-west-1"}, "config.example:9000", "us-west-2"),
        ({"AWS_ENDPOINT_URL": "http://env.example"}, "env.example", "eu-north-1"),
        ({"AWS_ENDPOINT_URL_S3": "http://s3.example", "AWS_ENDPOINT_URL": "http://env.example"}, "s3.example", "eu-north-1"),
        ({"AWS_PROFILE": "work", "AWS_ENDPOINT_URL": "http://env.example"}, "env.example", "ap-south-1"),
        ({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, "s3.eu-north-1.amazonaws.com", "eu-north-1"),
        ({"AWS_SKIP_SIGNATURE": "true"}, "config.example:9000", ""),
    ],
)  # fmt: skip
def test_region_and_endpoint_come_from_the_environment_or_the_configuration(
    variables: dict[str, str], place: str, expected: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.credentials(TWO_PROFILES)
    home.config(CONFIG)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    signer = ObjectSigner(LOCATION)
    for address in (signer.address(), signer.address("PUT", "partNumber=1&uploadId=2")):
        assert address.authority == place
        assert address.path == "/bucket/x.dumont"
    address = signer.address()
    assert (region(address) if address.query else "") == expected


def test_the_files_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text(textwrap.dedent(TWO_PROFILES))
    (tmp_path / "conf").write_text("[default]\nregion = sa-east-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "conf"))
    assert (key(signed()), region(signed())) == ("DEFAULTKEY", "sa-east-1")


# --- roles and processes ----------------------------------------------------------------------------------------------


def test_a_process_hands_out_keys(home: Home) -> None:
    answer = {"Version": 1, "AccessKeyId": "PROCESSKEY", "SecretAccessKey": "s", "SessionToken": "t"}
    home.config(f"[default]\ncredential_process = {home.program(f'print({json.dumps(json.dumps(answer))})')}\n")
    assert key(signed()) == "PROCESSKEY"
    assert signature(signed(), "Security-Token") == "t"


def test_keys_that_expire_are_renewed_between_requests(home: Home) -> None:
    """The first keys are good for one minute, so the next request must ask for new keys, which are good for an hour."""
    home.config(
        "[default]\ncredential_process = "
        + home.program("""
            import datetime, json, pathlib, sys
            log = pathlib.Path(__file__).with_name("calls")
            calls = len(log.read_text()) if log.exists() else 0
            log.write_text("x" * (calls + 1))
            until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=60 if calls else 1)
            print(json.dumps({"Version": 1, "AccessKeyId": f"KEY{calls}", "SecretAccessKey": "s", "SessionToken": "t",
                              "Expiration": until.isoformat()}))
        """)
        + "\n"
    )
    signer = ObjectSigner(LOCATION)
    assert [key(signer.address()) for _ in range(5)] == ["KEY1"] * 5
    assert key(signer.address("PUT", "partNumber=1&uploadId=2")) == "KEY1"
    assert len((home.path / "calls").read_text()) == 2


def test_keys_are_renewed_in_the_middle_of_a_read(
    home: Home, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes new keys into the file: a sign-on tool, a cron job."""
    monkeypatch.setattr("dumont_gpu.storage.reads.RANGE_SIZE", 50_000)
    fault_server.data = random.Random(7).randbytes(500_000)
    home.config(f"[default]\nendpoint_url = http://{fault_server.authority}\n")
    home.credentials("[default]\naws_access_key_id = OLD\naws_secret_access_key = s\n")
    source = open_source(LOCATION, AT_ONCE)
    home.credentials("[default]\naws_access_key_id = BRANDNEW\naws_secret_access_key = s\n")
    source.read_into(100_000, memoryview(bytearray(400_000)))
    source.close()
    used = [request.path.split("X-Amz-Credential=")[1].split("%2F")[0] for request in fault_server.requests]
    assert used == ["OLD"] + ["BRANDNEW"] * (len(used) - 1)
    assert len(used) > 2


REPEATING = """
    import json, pathlib
    log = pathlib.Path(__file__).with_name("calls")
    calls = len(log.read_text()) if log.exists() else 0
    log.write_text("x" * (calls + 1))
    print(json.dumps({"Version": 1, "AccessKeyId": f"KEY{calls}", "SecretAccessKey": "s", "SessionToken": "t"}))
"""
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


def test_keys_that_a_server_calls_expired_are_asked_for_again(
    home: Home, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys without an expiry date: all connections see the refusal, one connection asks for new keys, once."""
    monkeypatch.setattr("dumont_gpu.storage.reads.RANGE_SIZE", 50_000)
    fault_server.data = random.Random(7).randbytes(500_000)
    process = home.program(REPEATING)
    home.config(f"[default]\nendpoint_url = http://{fault_server.authority}\ncredential_process = {process}\n")
    source = open_source(LOCATION, AT_ONCE)
    fault_server.script = lambda request: status(400, EXPIRED) if "KEY0" in request.path else None
    out = bytearray(400_000)
    source.read_into(100_000, memoryview(out))
    source.close()
    assert out == fault_server.data[100_000:]
    assert len((home.path / "calls").read_text()) == 2


def test_keys_that_stay_expired_end_the_transfer(home: Home, fault_server: FaultServer) -> None:
    fault_server.script = lambda request: status(400, EXPIRED)
    home.credentials(TWO_PROFILES)
    home.config(f"[default]\nendpoint_url = http://{fault_server.authority}\n")
    code, said = said_by(home)
    assert code == 1
    assert "(ExpiredToken: The provided token has expired): the signed address or its credentials have expired" in said


def test_a_publish_asks_for_new_keys_too(home: Home, fault_server: FaultServer) -> None:
    home.config(
        f"[default]\nendpoint_url = http://{fault_server.authority}\ncredential_process = {home.program(REPEATING)}\n"
    )

    def script(request: Request) -> Fault:
        if "KEY0" in request.path:
            return status(400, EXPIRED)
        return status(403, b"<Error><Code>AccessDenied</Code><Message>new keys</Message></Error>")

    fault_server.script = script
    with pytest.raises(DumontError, match="AccessDenied: new keys"):
        open_sink(LOCATION, AT_ONCE)


def test_a_file_that_is_half_written_does_not_end_a_transfer(home: Home) -> None:
    home.credentials(TWO_PROFILES)
    signer = ObjectSigner(LOCATION)
    assert key(signer.address()) == "DEFAULTKEY"
    home.credentials("[default]\naws_access_key_id = HALF\n")
    assert key(signer.address()) == "DEFAULTKEY"
    home.credentials("[default]\naws_access_key_id = WHOLE\naws_secret_access_key = s\n")
    assert key(signer.address()) == "WHOLE"


def test_a_web_identity_takes_on_a_role(moto: Moto, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.path / "token").write_text("a token of some issuer")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/somebody")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home.path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto.port}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    address = signed()
    assert key(address).startswith("ASIA")
    assert signature(address, "Security-Token")


def test_a_profile_takes_on_a_role(moto: Moto, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.credentials(TWO_PROFILES)
    home.config(f"""
        [profile role]
        role_arn = arn:aws:iam::123456789012:role/somebody
        source_profile = work
        region = us-east-1
        endpoint_url = http://127.0.0.1:{moto.port}
    """)
    monkeypatch.setenv("AWS_PROFILE", "role")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{moto.port}")
    address = signed()
    assert key(address).startswith("ASIA")
    assert address.port == moto.port


# --- error messages ---------------------------------------------------------------------------------------------------


def said_by(home: Home) -> tuple[int, str]:
    ran = cli("info", LOCATION)
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith(f"dumont-gpu: {LOCATION}: ")
    return ran.returncode, ran.stderr


def test_no_credentials_is_said_with_the_places_looked_at(home: Home) -> None:
    code, said = said_by(home)
    assert code == 1
    for place in (
        "no credentials for S3",
        "AWS_ACCESS_KEY_ID",
        f"{home.path}/.aws/credentials",
        "/.aws/config",
        "no AWS_PROFILE",
    ):
        assert place in said


@pytest.mark.parametrize(
    ("config", "credentials", "variables", "code", "words"),
    [
        ("", TWO_PROFILES, {"AWS_PROFILE": "nobody"}, 2, "profile (nobody) could not be found"),
        ("", "[default]\naws_access_key_id = K\n", {}, 1, "Partial credentials"),
        ("no section", "", {}, 2, "Unable to parse config file"),
        ("[default]\ncredential_process = /nonexistent/x\n", "", {}, 1, "/nonexistent/x"),
        ("[default]\ncredential_process = false\n", "", {}, 1, "no credentials for S3: Error when retrieving"),
        ("[default]\ncredential_process = echo no JSON\n", "", {}, 1, "no credentials for S3"),
        ("[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = gone\n", "", {}, 2, "gone"),
        ("[default]\nsso_session = gone\nsso_account_id = 1\nsso_role_name = x\n", "", {}, 2, "gone"),
        ("[default]\nendpoint_url = localhost:9000\n", TWO_PROFILES, {}, 2, "endpoint_url=localhost:9000 is no endpoint"),
        ("", TWO_PROFILES, {"AWS_ENDPOINT_URL": "localhost:9000"}, 2, "AWS_ENDPOINT_URL=localhost:9000 is no endpoint"),
        ("", TWO_PROFILES, {"AWS_ENDPOINT_URL": "minio"}, 2, "needs http:// or https://"),
        ("", TWO_PROFILES, {"AWS_ENDPOINT_URL_S3": "ftp://h"}, 2, "AWS_ENDPOINT_URL_S3=ftp://h is no endpoint"),
        ("", TWO_PROFILES, {"AWS_ENDPOINT_URL": "http://h:99999"}, 2, "is no endpoint"),
        ("", TWO_PROFILES, {"AWS_ENDPOINT_URL": "http://"}, 2, "is no endpoint"),
        ("", TWO_PROFILES, {"AWS_ENDPOINT_URL": "http://me:secret@host"}, 2, "no password"),
        ("", TWO_PROFILES, {"AWS_CA_BUNDLE": "/nonexistent/ca", "AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, 2, "AWS_CA_BUNDLE=/nonexistent/ca"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_reason(
    config: str,
    credentials: str,
    variables: dict[str, str],
    code: int,
    words: str,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home.config(config)
    home.credentials(credentials)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, said = said_by(home)
    assert words in said
    assert found == code
    assert "secret@" not in said


def test_a_role_that_is_refused_says_why(
    home: Home, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not for you</Message></Error></ErrorResponse>"
    fault_server.script = lambda request: status(403, body)
    home.credentials(TWO_PROFILES)
    home.config("[profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = work\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_PROFILE", "role")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://{fault_server.authority}")
    code, said = said_by(home)
    assert code == 1
    assert "no credentials for S3" in said and "not for you" in said


def test_without_botocore_the_environment_is_enough_and_profiles_are_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    home.credentials(TWO_PROFILES)
    with pytest.raises(UnsupportedError, match=r"\.aws/credentials: to read it needs a package: pip install"):
        signed()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert key(signed()) == "ENVKEY"
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(UnsupportedError, match="AWS_PROFILE=work: to read profiles needs a package"):
        signed()


def test_botocore_is_not_loaded_where_the_environment_says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    for name in [name for name in sys.modules if name.split(".")[0] == "botocore"]:
        monkeypatch.delitem(sys.modules, name)
    assert key(signed()) == "ENVKEY"
    assert "botocore" not in sys.modules


def test_the_others_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    with pytest.raises(DumontError, match="no credentials: set AZURE_STORAGE_ACCOUNT_NAME"):
        ObjectSigner("az://container/x").address()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/account.json")
    with pytest.raises(DumontError, match="cannot be signed: Unable to open service account file from /nonexistent"):
        ObjectSigner("gs://bucket/x").address()
