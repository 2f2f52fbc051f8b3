"""Connection settings in the usual names; secrets are never shown."""

from __future__ import annotations

import pickle

import pytest

from jupyterflow.model import FlowError
from jupyterflow.transport.kafka import KafkaConfig


def test_settings_are_taken_by_the_usual_names_with_dots_or_underscores() -> None:
    config = KafkaConfig(
        "k:9092", {"security.protocol": "SASL_PLAINTEXT", "sasl.username": "u", "sasl_plain_password": "p"}
    )
    client = config.client()
    assert client["bootstrap_servers"] == "k:9092"
    assert client["security_protocol"] == "SASL_PLAINTEXT"
    assert (client["sasl_plain_username"], client["sasl_plain_password"]) == ("u", "p")


def test_a_certificate_authority_means_tls() -> None:
    import ssl

    client = KafkaConfig("k:9092", {"ssl_cafile": ssl.get_default_verify_paths().openssl_cafile}).client()
    assert client["security_protocol"] == "SSL"
    assert isinstance(client["ssl_context"], ssl.SSLContext)


def test_a_password_is_in_no_repr_and_survives_the_way_to_a_worker() -> None:
    config = KafkaConfig("k:9092", {"sasl_plain_username": "ann", "sasl_plain_password": "hunter2"})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config)
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_misspelt_setting_says_what_was_meant() -> None:
    with pytest.raises(FlowError, match="did you mean 'security_protocol'") as caught:
        KafkaConfig("k:9092", {"security_protokol": "SSL"})
    assert caught.value.code == "JF520"


def test_a_missing_certificate_file_is_one_line() -> None:
    with pytest.raises(FlowError, match="JF520 the TLS files cannot be used"):
        KafkaConfig("k:9092", {"ssl_cafile": "nowhere.pem"}).client()
