"""The cluster's key is private, and only what it signed is believed."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterflow.cluster import keys
from jupyterflow.model import FlowError

KEY = bytes(range(32))


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    with pytest.raises(FlowError, match=r"JF601 there is no cluster key .* - run `jupyter flow up`"):
        keys.load(path=path)
    key = keys.load(create=True, path=path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load(path=path) == keys.load(create=True, path=path) == key
    assert os.listdir(path.parent) == ["key"]


def test_processes_that_make_the_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from jupyterflow.cluster import keys; sys.stdin.read(1);"
        "print(keys.load(create=True, path=pathlib.Path(sys.argv[1])).hex())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert len({process.communicate("x", timeout=60)[0] for process in started}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    keys.load(create=True, path=path)
    path.chmod(mode)
    with pytest.raises(FlowError, match=rf"JF602 .* \(mode {mode:04o}\) - `chmod 600 "):
        keys.load(path=path)


@pytest.mark.parametrize("text", ["", "abc", "00" * 31, "zz" * 32, "\xff" * 64])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(FlowError, match="JF603"):
        keys.load(create=True, path=path)


def test_what_was_sealed_is_read_again_with_the_same_key() -> None:
    body = {"flow": "prices", "version": 3, "text": "žluť \n", "nodes": {"a": [1, None, 2.5]}}
    sealed = keys.seal(body, KEY)
    assert keys.unseal(sealed, KEY) == body
    assert json.loads(sealed)["alg"] == "hmac-sha256"


def test_another_key_or_a_changed_byte_is_refused() -> None:
    sealed = keys.seal({"run": "a"}, KEY)
    for data, key in ((sealed, KEY[::-1]), (sealed.replace(b"run", b"ruN"), KEY)):
        with pytest.raises(FlowError, match="JF606 the signature is wrong"):
            keys.unseal(data, key)


def test_an_unknown_algorithm_is_named() -> None:
    envelope = json.loads(keys.seal({}, KEY)) | {"alg": "none"}
    with pytest.raises(FlowError, match="JF605 signed with 'none'"):
        keys.unseal(json.dumps(envelope).encode(), KEY)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"[]",
        b"\x80\x05.",
        b"{}",
        b'{"alg": "hmac-sha256", "sig": 1, "body": "x"}',
        b"[" * 100000,
        '{"alg": "hmac-sha256", "sig": "é", "body": "{}"}'.encode(),
    ],
)
def test_what_is_no_envelope_is_refused_in_one_line(data: bytes | None) -> None:
    with pytest.raises(FlowError, match="JF604") as caught:
        keys.unseal(data, KEY)
    assert "\n" not in str(caught.value)


def test_a_command_is_obeyed_once_and_not_after_its_expiry() -> None:
    seen: dict[str, float] = {}
    command = keys.stamp({"do": "stop"}, now=100.0, ttl=30)
    assert keys.fresh(command, 110.0, seen)
    assert not keys.fresh(command, 111.0, seen)
    assert not keys.fresh(keys.stamp({}, now=100.0, ttl=5), 106.0, seen)
    assert keys.fresh(keys.stamp({}, now=1000.0), 1000.0, seen)
    assert len(seen) == 1
    assert not keys.fresh({"expires": "tomorrow"}, 0.0)
    assert keys.fresh({"version": 1}, 0.0)


def test_text_that_is_not_unicode_travels_too() -> None:
    key = b"k" * 32
    body = {"text": "a\udc80é"}
    assert keys.unseal(keys.seal(body, key), key) == body
