"""Access tokens: what is issued is read back, and whatever is not exactly that is refused, and for which reason."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.deployment import Access
from serving.access.identity import OF_ROLE
from serving.access.secrets import Secrets, SigningKey
from serving.access.tokens import LEEWAY_S, LONGEST, TokenError, Tokens

OLD, NEW = SigningKey("old", secrets.token_bytes(32)), SigningKey("new", secrets.token_bytes(32))
ACCOUNT, SESSION = "a" * 32, "b" * 32


def tokens(*keys: SigningKey, access: Access | None = None) -> Tokens:
    return Tokens(Secrets(Path("nowhere"), keys or (NEW,), bytes(32)), access or Access())


def signed(key: bytes = NEW.key, header: dict[str, Any] | None = None, without: str = "", alg: str = "HS256", **claims: Any) -> str:
    """A token as ours would be, but for what is said."""
    now = int(time.time())
    whole: dict[str, Any] = {
        "iss": "factotum",
        "aud": "factotum",
        "iat": now,
        "nbf": now,
        "exp": now + 900,
        "sub": ACCOUNT,
        "sid": SESSION,
        "role": "user",
        "jti": "c" * 32,
    } | claims
    whole.pop(without, None)
    return jwt.encode(whole, key, alg, {"kid": "new", "typ": "at+jwt"} | (header or {}))


def why(token: str, reader: Tokens | None = None) -> str:
    with pytest.raises(TokenError) as refused:
        (reader or tokens()).read(token)
    return refused.value.why


def test_what_is_issued_is_read_back() -> None:
    token, lifetime = tokens().issue(ACCOUNT, SESSION, "analyst")
    caller = tokens().read(token)
    assert lifetime == 900
    assert (caller.kind, caller.name, caller.session, caller.role) == ("account", ACCOUNT, SESSION, "analyst")
    assert caller.scopes == OF_ROLE["analyst"]
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "HS256", "kid": "new", "typ": "at+jwt"}


def test_the_token_made_by_hand_is_good() -> None:
    assert tokens().read(signed()).name == ACCOUNT  # so that each refusal below is for the one thing that differs


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: signed(secrets.token_bytes(32)), "signature"),
        (lambda: signed(header={"kid": "other"}), "unknown-key"),
        (lambda: signed(header={"kid": "../../etc/passwd"}), "unknown-key"),
        (lambda: signed(header={"typ": "JWT"}), "claims"),
        (lambda: signed(header={"crit": ["x"], "x": 1}), "malformed"),
        (lambda: signed(header={"jku": "https://example.org/keys"}), "claims"),
        (lambda: signed(alg="HS512", key=NEW.key * 2), "algorithm"),
        (lambda: signed(iss="other"), "issuer"),
        (lambda: signed(aud="other"), "audience"),
        (lambda: signed(aud=["factotum", "other"]), "claims"),
        (lambda: signed(exp=int(time.time()) - LEEWAY_S - 2), "expired"),
        (lambda: signed(nbf=int(time.time()) + LEEWAY_S + 30), "not-yet-valid"),
        (lambda: signed(iat=int(time.time()) + LEEWAY_S + 30), "not-yet-valid"),
        (lambda: signed(role="root"), "claims"),
        (lambda: signed(role=["admin"]), "claims"),
        (lambda: signed(sub="someone"), "claims"),
        (lambda: signed(sid="' OR 1=1"), "claims"),
        (lambda: signed(exp=float(time.time() + 900)), "claims"),
        (lambda: signed(exp=True), "expired"),
        (lambda: signed(pad="x" * LONGEST), "malformed"),
        (lambda: "", "malformed"),
        (lambda: "a.b", "malformed"),
        (lambda: "a.b.c", "malformed"),
        (lambda: signed() + ".x", "malformed"),
        (lambda: signed() + "=", "malformed"),
        (lambda: signed().replace(".", "..", 1), "malformed"),
        (lambda: "\u0430" + signed()[1:], "malformed"),
    ],
)
def test_a_bad_token_is_refused(token: Any, reason: str) -> None:
    assert why(token()) == reason


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "nbf", "iat", "sub", "sid", "role", "jti"])
def test_every_claim_must_be_there(claim: str) -> None:
    assert why(signed(without=claim)) in ("claims", "issuer", "audience")


def test_the_leeway_is_a_few_seconds() -> None:
    assert tokens().read(signed(exp=int(time.time()) - 1)).name == ACCOUNT
    assert tokens().read(signed(nbf=int(time.time()) + 2)).name == ACCOUNT


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
def test_no_algorithm_is_no_algorithm(alg: str) -> None:
    _, payload, signature = signed().split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": "new", "typ": "at+jwt"}).encode()).rstrip(b"=").decode()
    assert why(f"{header}.{payload}.") == "algorithm"
    assert why(f"{header}.{payload}.{signature}") == "algorithm"


def test_an_asymmetric_algorithm_is_refused_with_any_key() -> None:
    private = rsa.generate_private_key(65_537, 2_048)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    now = int(time.time())
    claims = {"iss": "factotum", "aud": "factotum", "iat": now, "nbf": now, "exp": now + 900, "sub": ACCOUNT, "sid": SESSION}
    token = jwt.encode(claims | {"role": "admin", "jti": "c" * 32}, pem, "RS256", {"kid": "new", "typ": "at+jwt"})
    assert why(token) == "algorithm"
    # and a ring that, wrongly, held a public key would still only take HS256, signed with these very bytes
    assert why(token, tokens(SigningKey("new", public))) == "algorithm"


def test_a_changed_token_is_refused() -> None:
    header, payload, signature = signed().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"role": "admin"}).encode()).rstrip(b"=").decode()
    assert why(f"{header}.{forged}.{signature}") == "signature"


def test_keys_change_without_logging_anybody_out() -> None:
    before, _ = tokens(OLD).issue(ACCOUNT, SESSION, "user")
    both = tokens(NEW, OLD)
    assert both.read(before).name == ACCOUNT
    after, _ = both.issue(ACCOUNT, SESSION, "user")
    assert jwt.get_unverified_header(after)["kid"] == "new"
    assert why(after, tokens(OLD)) == "unknown-key"
    assert why(before, tokens(NEW)) == "unknown-key"  # the old key is taken away when its tokens are over


def test_another_deployment_takes_no_token_of_ours() -> None:
    token, _ = tokens().issue(ACCOUNT, SESSION, "user")
    assert why(token, tokens(access=Access(issuer="elsewhere"))) == "issuer"
    assert why(token, tokens(access=Access(audience="elsewhere"))) == "audience"


@settings(max_examples=300)
@given(st.text(max_size=400) | st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,80}\.[A-Za-z0-9_-]{0,60}", fullmatch=True))
def test_no_text_is_taken_for_a_token_or_breaks_the_reader(text: str) -> None:
    with pytest.raises(TokenError):
        tokens().read(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda x: st.lists(x) | st.dictionaries(st.text(max_size=5), x),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64"]), JSON),
    st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "sid", "role", "jti"]),
    JSON,
)
def test_no_header_and_no_claim_of_another_type_breaks_the_reader(header: dict[str, Any], claim: str, value: Any) -> None:
    def part(document: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    with pytest.raises(TokenError):
        tokens().read(f"{part(header)}.{part({claim: value})}.{'A' * 43}")
    try:
        payload = json.loads(base64.urlsafe_b64decode(signed().split(".")[1] + "=="))
        made = f"{part({'alg': 'HS256', 'kid': 'new', 'typ': 'at+jwt'})}.{part(payload | {claim: value})}"
        mac = base64.urlsafe_b64encode(hmac.digest(NEW.key, made.encode(), "sha256")).rstrip(b"=").decode()
        caller = tokens().read(f"{made}.{mac}")
    except TokenError:
        return
    # what was signed by us and still read says who somebody is in our own terms, whatever the claim
    assert len(caller.name) == 32
    assert caller.role in ("user", "analyst", "admin")
