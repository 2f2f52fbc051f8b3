"""The cluster's key, and what is signed with it.

The key file holds 64 hexadecimal digits (32 random bytes), mode 0600. A signed body travels as the JSON object
`{"alg": "hmac-sha256", "sig": HEX, "body": TEXT}`: `sig` is HMAC-SHA256 (RFC 2104) under the 32 bytes over the UTF-8
of `body`, which is itself JSON. Any language can follow that; an algorithm that is not named here is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from jupyterflow.model import FlowError

ALGORITHM = "hmac-sha256"
_BYTES = 32


def load(create: bool = False, path: Path | None = None) -> bytes:
    """The 32 bytes of the cluster's key, from *path* or else the configured key file; made there with `create`.

    Raises FlowError: JF601 there is none, JF602 others may read it, JF603 it holds no key.
    """
    if path is None:
        from jupyterflow.broker import paths

        path = Path(paths.key_file())
    try:
        return _read(path)
    except FileNotFoundError:
        if not create:
            raise FlowError(
                "JF601",
                f"there is no cluster key at {path} - run `jupyter flow up` or `jupyter flow key`, "
                "or copy the file from the machine where the cluster was started",
            ) from None
    _create(path)
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096).strip()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FlowError("JF602", f"the cluster key {path} cannot be read: {error.strerror} - check its owner") from None
    if os.name == "posix" and mode & 0o077:
        raise FlowError(
            "JF602",
            f"the cluster key {path} is open to others (mode {mode & 0o777:04o}) - `chmod 600 {path}`, "
            "and make a new one if somebody may have read it",
        )
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise FlowError(
            "JF603",
            f"{path} holds no cluster key (64 hexadecimal digits) - copy it again, or delete it for a new one",
        )
    return key


def _create(path: Path) -> None:
    """Make a key file unless there is one; whoever comes second takes the first one's key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)  # fails where the name is taken: a reader never sees half a key
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links: still exclusive, not atomic
            try:
                with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file_:
                    file_.write(aside.read_bytes())
            except FileExistsError:
                pass
    finally:
        aside.unlink()


def seal(body: dict[str, Any], key: bytes) -> bytes:
    """*body* (JSON values) as a signed envelope."""
    try:
        return _envelope(json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True), key)
    except UnicodeEncodeError:  # a lone surrogate, as in the name of a file: it travels as an escape
        return _envelope(json.dumps(body, separators=(",", ":"), sort_keys=True), key)


def _envelope(text: str, key: bytes) -> bytes:
    return json.dumps({"alg": ALGORITHM, "sig": _sign(text, key), "body": text}, ensure_ascii=False).encode()


def unseal(data: bytes | None, key: bytes) -> dict[str, Any]:
    """The body of a signed envelope.

    Raises FlowError: JF604 it is no envelope, JF605 the algorithm is not known here, JF606 the signature is wrong.
    """
    try:
        envelope = json.loads(data or b"")
        algorithm, signature, text = envelope["alg"], envelope["sig"], envelope["body"]
        if not (isinstance(signature, str) and isinstance(text, str)):
            raise TypeError
        given = signature.encode("ascii")
        encoded = text.encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FlowError(
            "JF604", "this is no signed message: expected JSON with alg, sig and body - it is ignored"
        ) from None
    if algorithm != ALGORITHM:
        raise FlowError(
            "JF605",
            f"signed with {str(algorithm)[:40]!r}, only '{ALGORITHM}' is known here - update JupyterFlow",
        )
    if not hmac.compare_digest(given, hmac.new(key, encoded, hashlib.sha256).hexdigest().encode()):
        raise FlowError(
            "JF606", "the signature is wrong: not from a holder of this cluster's key - compare the key files"
        )
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise FlowError("JF604", "this is no signed message: its body is no JSON object - it is ignored")
    return body


def _sign(text: str, key: bytes) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def stamp(body: dict[str, Any], now: float, ttl: float = 60.0) -> dict[str, Any]:
    """*body* with a new `id` and with `expires`, *ttl* seconds after *now* (seconds since the epoch)."""
    return {**body, "id": secrets.token_hex(16), "expires": now + ttl}


def fresh(body: dict[str, Any], now: float, seen: MutableMapping[str, float] | None = None) -> bool:
    """Whether a command is to be obeyed: not past its `expires`, and its `id` not in *seen* before.

    *seen* (id -> expiry) is kept by the caller and pruned here. A body without `expires` or `id` is not checked
    for what it lacks.
    """
    expires = body.get("expires")
    if expires is not None and (
        isinstance(expires, bool) or not isinstance(expires, int | float) or not now <= expires
    ):
        return False
    if seen is None or "id" not in body:
        return True
    for old in [name for name, expiry in seen.items() if expiry < now]:
        del seen[old]
    if str(body["id"]) in seen:
        return False
    seen[str(body["id"])] = float("inf") if expires is None else float(expires)
    return True
