"""Access tokens: signed claims about who calls, good for minutes, checked without asking anybody (RFC 7519, RFC 9068, RFC 8725)."""

from __future__ import annotations

import re
import secrets
import time
from functools import cached_property
from typing import Any, Literal, get_args

import jwt

from configs.deployment import Access
from serving.access.identity import OF_ROLE, Caller, Role
from serving.access.secrets import Secrets

LEEWAY_S = 5  # the clocks of two replicas may differ by so much
LONGEST = 2_048  # characters of a token; ours have about 450
_TYPE = "at+jwt"
_FORM = re.compile(r"[A-Za-z0-9_-]{1,512}\.[A-Za-z0-9_-]{1,1400}\.[A-Za-z0-9_-]{0,700}")
_HANDLE = re.compile(r"[0-9a-f]{32}")
_CLAIMS = ("iss", "aud", "exp", "nbf", "iat", "sub", "sid", "role", "jti")

Why = Literal["malformed", "algorithm", "unknown-key", "signature", "expired", "not-yet-valid", "issuer", "audience", "claims"]


class TokenError(Exception):
    """A token that says nothing. `why` is for metrics and tests; whoever sent it learns only whether it expired."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Why = why


class Tokens:
    """HS256 with keys of a closed ring: the header's kid chooses one of ours and never brings or names one of its own."""

    def __init__(self, secrets: Secrets, access: Access) -> None:
        self._secrets, self._access = secrets, access

    @cached_property
    def _ring(self) -> dict[str, bytes]:
        return {key.kid: key.key for key in self._secrets.signing}

    def issue(self, account: str, session: str, role: Role, now: float | None = None) -> tuple[str, int]:
        """A token and the seconds it is good for. `account`, `session`: 32 hexadecimal digits each; `now`: seconds UTC."""
        began = int(time.time() if now is None else now)
        lifetime = int(self._access.access_minutes * 60)
        claims = {
            "iss": self._access.issuer,
            "aud": self._access.audience,
            "iat": began,
            "nbf": began,
            "exp": began + lifetime,
            "sub": account,
            "sid": session,
            "role": role,
            "jti": secrets.token_hex(16),
        }
        first = self._secrets.signing[0]
        return jwt.encode(claims, first.key, "HS256", {"kid": first.kid, "typ": _TYPE}), lifetime

    def read(self, token: str) -> Caller:
        """Who calls. Raises TokenError."""
        if len(token) > LONGEST or _FORM.fullmatch(token) is None:
            raise TokenError("malformed")
        claims = self._verified(token, self._key(token))
        account, session, role = claims["sub"], claims["sid"], claims["role"]
        moments = all(type(claims[name]) is int for name in ("exp", "nbf", "iat"))
        handles = all(isinstance(text, str) and _HANDLE.fullmatch(text) is not None for text in (account, session, claims["jti"]))
        if not moments or not handles or role not in get_args(Role) or not isinstance(claims["aud"], str):
            raise TokenError("claims")
        return Caller("account", account, session, role, OF_ROLE[role])

    def _key(self, token: str) -> bytes:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise TokenError("malformed") from None
        if header.get("alg") != "HS256":
            raise TokenError("algorithm")
        kid = header.get("kid")
        if not isinstance(kid, str) or kid not in self._ring:
            raise TokenError("unknown-key")
        if header.get("typ") != _TYPE or set(header) != {"alg", "kid", "typ"}:
            raise TokenError("claims")  # another kind of token (RFC 8725, 3.11), or an extension that we do not know
        return self._ring[kid]

    def _verified(self, token: str, key: bytes) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                audience=self._access.audience,
                issuer=self._access.issuer,
                leeway=LEEWAY_S,
                options={"require": list(_CLAIMS)},
            )
        except jwt.InvalidSignatureError:
            raise TokenError("signature") from None
        except jwt.ExpiredSignatureError:
            raise TokenError("expired") from None
        except jwt.ImmatureSignatureError:
            raise TokenError("not-yet-valid") from None
        except jwt.InvalidIssuerError:
            raise TokenError("issuer") from None
        except jwt.InvalidAudienceError:
            raise TokenError("audience") from None
        except (jwt.MissingRequiredClaimError, jwt.InvalidIssuedAtError):
            raise TokenError("claims") from None
        except jwt.DecodeError:
            raise TokenError("malformed") from None
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError):
            raise TokenError("claims") from None
        return claims
