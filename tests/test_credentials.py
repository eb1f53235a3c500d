"""Credentials are left out, and nothing else."""

import pytest

from vdm.credentials import without_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:SECRET@host/a", "https://***@host/a"),
        ("https://SECRET@host:80/a@b", "https://***@host:80/a@b"),
        ("HTTPS://us%40er:SEC@RET@host", "HTTPS://***@host"),
        ("sftp://user:SECRET@host/a", "sftp://user:***@host/a"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("https://host/a?token=SECRET", "https://host/a?token=***"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Credential=SECRET%2Fs3&X-Amz-Signature=SECRET#part",
            "https://b.s3.amazonaws.com/k?X-Amz-Credential=***&X-Amz-Signature=***#part",
        ),
        ("https://a.blob.core.windows.net/c?sv=2024&sig=SECRET%3D", "https://a.blob.core.windows.net/c?sv=***&sig=***"),
        ("train 'data.path=https://h/?sig=SECRET&b=SECRET' a=1", "train 'data.path=https://h/?sig=***&b=***' a=1"),
        ("data.path={https://h/x?sig=SECRET:0.5,s3://b/y:0.5}", "data.path={https://h/x?sig=***,s3://b/y:0.5}"),
        ("data.path={https://h1:0.5,https://u:SECRET@h2:0.5}", "data.path={https://h1:0.5,https://***@h2:0.5}"),
        ("+logger.mine.api_key=SECRET seed=0", "+logger.mine.api_key=*** seed=0"),
        ('+logger.mine.password="SEC RET"', "+logger.mine.password=***"),
        ("see https://host/a and mail me@host", "see https://host/a and mail me@host"),
        ("model.one_token=true image_token=0.1 max_tokens=512", "model.one_token=true image_token=0.1 max_tokens=512"),
    ],
)  # fmt: skip
def test_text_loses_its_credentials_alone(text: str, expected: str) -> None:
    assert without_credentials(text) == expected
    assert without_credentials(expected) == expected


def test_nested_values_lose_theirs_also_in_keys_and_under_names_of_secrets() -> None:
    config = {
        "data": {"path": {"https://u:SECRET@h/a": 0.5, "s3://b": 0.5}, "seed": 0},
        "logger": {
            "mine": {"api_key": "SECRET", "hf-token": "SECRET", "access_key": None, "uris": ["http://SECRET@h"]}
        },
        "text_encoder": {"max_tokens": 512, "tokenizer": "t5", "one_token": True, "image_token": "0.1"},
    }
    assert without_credentials(config) == {
        "data": {"path": {"https://***@h/a": 0.5, "s3://b": 0.5}, "seed": 0},
        "logger": {"mine": {"api_key": "***", "hf-token": "***", "access_key": None, "uris": ["http://***@h"]}},
        "text_encoder": {"max_tokens": 512, "tokenizer": "t5", "one_token": True, "image_token": "0.1"},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vdm train 'logger.wandb.api_key=a b' x=1", "vdm train 'logger.wandb.api_key=***' x=1"),
        ("'data.password=ab,cd&ef' y=2", "'data.password=***' y=2"),
        ("data.password=ab,cd y=2", "data.password=*** y=2"),
        ("api_key='abcd'", "api_key=***"),
        ("s3://AKIA:abc/def@bucket/x", "s3://AKIA:***@bucket/x"),
        ("token: xyz", "token: ***"),
        ('{"token": "xyz", "a": 1}', '{"token": ***, "a": 1}'),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("model.one_token=true y=2", "model.one_token=true y=2"),
        ("image_token: 0.05, z", "image_token: 0.05, z"),
        ("vdm train data.path=/x@y http://host:8080/a", "vdm train data.path=/x@y http://host:8080/a"),
    ],
)
def test_credentials_in_quotes_and_in_other_forms_are_hidden_and_settings_are_not(text: str, expected: str) -> None:
    assert without_credentials(text) == expected
    assert without_credentials(expected) == expected


def test_secrets_that_are_no_texts_are_hidden() -> None:
    plain = {"password": 12345, "token": ["abc"], "image_token": 0.05, "use_token": True, "api_key": None}
    hidden = {"password": "***", "token": "***", "image_token": 0.05, "use_token": True, "api_key": None}
    assert without_credentials(plain) == hidden
