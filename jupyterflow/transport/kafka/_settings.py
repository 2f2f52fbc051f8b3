"""Connection settings, and Kafka's errors in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyterflow.model import FlowError, FlowTimeout, did_you_mean

_PLAIN = {
    "client_id",
    "connections_max_idle_ms",
    "metadata_max_age_ms",
    "request_timeout_ms",
    "retry_backoff_ms",
    "sasl_kerberos_domain_name",
    "sasl_kerberos_service_name",
    "sasl_mechanism",
    "sasl_oauth_token_provider",
    "sasl_plain_password",
    "sasl_plain_username",
    "security_protocol",
    "ssl_context",
}
_TLS = {
    "ssl_cadata": "cadata",
    "ssl_cafile": "cafile",
    "ssl_capath": "capath",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
    "ssl_password": "password",
}
# The names of librdkafka and of the Java client, as people have them in their files.
_ALIASES = {
    "sasl_mechanisms": "sasl_mechanism",
    "sasl_password": "sasl_plain_password",
    "sasl_username": "sasl_plain_username",
    "ssl_ca_location": "ssl_cafile",
    "ssl_certificate_location": "ssl_certfile",
    "ssl_key_location": "ssl_keyfile",
    "ssl_key_password": "ssl_password",
}


@dataclass(frozen=True)
class KafkaConfig:
    """Where Kafka is and how to log in.

    `bootstrap`: `host:port`, several separated by commas. `options`: the usual names
    (`security_protocol`, `sasl_mechanism`, `sasl_plain_username`, `sasl_plain_password`, `ssl_cafile`,
    `ssl_certfile`, `ssl_keyfile`, ...), with dots or underscores. Raises FlowError JF520 for an unknown one.
    """

    bootstrap: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.bootstrap or not isinstance(self.bootstrap, str):
            raise FlowError("JF520", "no Kafka address - give host:port, as in jf.connect('localhost:9092')")
        known = {**dict.fromkeys(_PLAIN), **dict.fromkeys(_TLS), **_ALIASES}
        options: dict[str, Any] = {}
        for name, value in self.options.items():
            plain = name.replace(".", "_").replace("-", "_")
            if plain not in known:
                raise FlowError("JF520", f"unknown Kafka setting '{name}'{did_you_mean(plain, known)}")
            options[_ALIASES.get(plain, plain)] = value
        object.__setattr__(self, "options", options)

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.options))
        return f"KafkaConfig({self.bootstrap!r}, options=[{names}])"

    def client(self) -> dict[str, Any]:
        """The keyword arguments of every aiokafka client."""
        kwargs = {name: value for name, value in self.options.items() if name in _PLAIN}
        kwargs["bootstrap_servers"] = self.bootstrap
        protocol = str(kwargs.get("security_protocol", "PLAINTEXT")).upper()
        tls = {_TLS[name]: value for name, value in self.options.items() if name in _TLS}
        if tls and "security_protocol" not in kwargs:
            protocol = "SASL_SSL" if "sasl_plain_username" in kwargs else "SSL"
        elif "sasl_plain_username" in kwargs and "security_protocol" not in kwargs:
            protocol = "SASL_PLAINTEXT"
        kwargs["security_protocol"] = protocol
        if protocol.endswith("SSL") and "ssl_context" not in kwargs:
            from aiokafka.helpers import create_ssl_context

            try:
                kwargs["ssl_context"] = create_ssl_context(**tls)
            except (OSError, ValueError) as error:
                raise FlowError("JF520", f"the TLS files cannot be used: {error}") from None
        return kwargs


def flow_error(error: BaseException, doing: str, config: KafkaConfig) -> FlowError:
    """*error* as one line that says what was being done and the likely fix; a FlowError stays as it is."""
    if isinstance(error, FlowError):
        return error
    from aiokafka import errors

    at = f"Kafka at {config.bootstrap}"
    if isinstance(error, errors.KafkaConnectionError):
        return FlowError(
            "JF521",
            f"{doing}: {at} does not answer or refuses the login - "
            "is it running, is the address right, are security_protocol and the password?",
        )
    if isinstance(error, TimeoutError | errors.KafkaTimeoutError | errors.RequestTimedOutError):
        return FlowTimeout("JF522", f"{doing}: {at} did not answer in time - is it running and reachable?")
    name = type(error).__name__.removesuffix("Error")
    text = str(error).strip() or str(getattr(error, "description", "") or "")
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return FlowError("JF523", f"{doing}: the topic does not exist on {at} - create it first")
    if "Authorization" in name or "Authentication" in name:
        return FlowError("JF524", f"{doing}: {at} does not allow it ({name}) - check the user's rights")
    if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordTooLargeError):
        return FlowError("JF525", f"{doing}: a message is larger than the topic's max.message.bytes ({name})")
    text = " ".join(text.split())[:300]
    return FlowError("JF526", f"{doing}: {name}{': ' + text if text and text != name else ''}")
