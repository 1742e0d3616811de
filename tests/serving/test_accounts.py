"""Accounts on both databases: every way in, and every way that must stay shut."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa

from configs.deployment import Deployment
from serving.access.secrets import Secrets
from serving.access.tokens import Tokens
from serving.accounts import AccountError, Accounts, Entry, normalised_email
from serving.metrics import Metrics
from serving.ownership import Ownership
from serving.storage.database import Database, DatabaseAwayError, now_us
from tests.serving.test_telegram import BOT, widget

PASSWORD = "correct horse battery"
QUICK = Deployment.model_validate({"access": {"argon2_kib": 8_192, "argon2_passes": 1}, "caching": {"key_s": 0.05}})


class Replica:
    """Accounts of one process, as another one sees the same database."""

    def __init__(self, database: Database, keys: Secrets, deployment: Deployment = QUICK) -> None:
        self.metrics = Metrics()
        self.tokens = Tokens(keys, deployment.access)
        self.ownership = Ownership(database, keys, deployment, self.metrics)
        self.accounts = Accounts(database, keys, deployment, self.metrics, self.ownership, self.tokens)


@pytest.fixture
def keys(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path, telegram=BOT)


@pytest.fixture
async def replica(database: Database, keys: Secrets) -> AsyncIterator[Replica]:
    database._wait_s = 10.0  # a busy machine is not a database that is away
    made = Replica(database, keys)
    yield made
    await made.accounts.close()


@pytest.fixture
async def other(database: Database, keys: Secrets) -> AsyncIterator[Replica]:
    made = Replica(database, keys)
    yield made
    await made.accounts.close()


async def refused(kind: str, call: object) -> str:
    with pytest.raises(AccountError) as error:
        await call  # type: ignore[misc]
    assert error.value.kind == kind
    return str(error.value)


async def told(database: Database, what: str) -> list[dict[str, object]]:
    outbox = database.tables.outbox.c
    async with database.reading() as connection:
        rows = (await connection.execute(sa.select(outbox.payload).where(outbox.type == what).order_by(outbox.occurred_at))).scalars()
        return [orjson.loads(payload) for payload in rows]


async def ann(replica: Replica, email: str = "ann@example.org") -> Entry:
    return await replica.accounts.register(email, PASSWORD, "a test")


# ------------------------------------------------------------ coming in


async def test_a_registration_is_a_session_and_comes_twice_without_harm(replica: Replica, database: Database) -> None:
    first, second = await ann(replica, " Ann@Example.ORG "), await ann(replica)
    assert first.account == second.account
    assert first.session != second.session
    assert replica.tokens.read(first.access).name == first.account
    assert len(await told(database, "account.registered")) == 1
    await refused("taken", replica.accounts.register("ann@example.org", "another password", ""))


async def test_two_registrations_at_once_make_one_account(replica: Replica, other: Replica) -> None:
    entries = await asyncio.gather(*(ann(one) for one in (replica, other) * 3))
    assert len({entry.account for entry in entries}) == 1


async def test_only_the_password_opens(replica: Replica) -> None:
    await ann(replica)
    assert (await replica.accounts.login("ANN@example.org", PASSWORD, "")).role == "user"
    wrong = await refused("credentials", replica.accounts.login("ann@example.org", PASSWORD + "x", ""))
    nobody = await refused("credentials", replica.accounts.login("bob@example.org", PASSWORD, ""))
    garbage = await refused("credentials", replica.accounts.login("'; drop table", PASSWORD, ""))
    assert wrong == nobody == garbage


async def test_an_unknown_address_costs_a_hash_too(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bool] = []
    whole = replica.accounts.passwords._verify

    def counted(password: str, kept: str | None) -> bool:
        verified.append(kept is None)
        return whole(password, kept)

    monkeypatch.setattr(replica.accounts.passwords, "_verify", counted)
    await refused("credentials", replica.accounts.login("nobody@example.org", PASSWORD, ""))
    await refused("credentials", replica.accounts.login("no address", PASSWORD, ""))
    assert verified == [True, True]


async def test_a_password_is_typed_the_same_on_any_keyboard(replica: Replica) -> None:
    composed, decomposed = "pässwörter sind lang", "pa\u0308sswo\u0308rter sind lang"
    await replica.accounts.register("ann@example.org", composed, "")
    assert await replica.accounts.login("ann@example.org", decomposed, "")


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 201, "1234567890", "Password123", "ann@example.org", "aaaaaaaaaaaa", "line\nbreak in it", "passw0rd123"]
)
async def test_a_password_that_may_not_be_chosen(replica: Replica, password: str) -> None:
    said = await refused("password-rules", replica.accounts.register("ann@example.org", password, ""))
    assert not password or password not in said


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "@example.org",
        "ann@",
        "ann@example",
        "ann@@example.org",
        "a b@example.org",
        "ann@exa mple.org",
        "ann@-x.org",
        "a\n@example.org",
        "ann@example.org\r\nBcc: x@y.org",
        "ann@1.2.3.4",
        ".ann@example.org",
        "a" * 65 + "@example.org",
        "ann@" + "x" * 64 + ".org",
        "ann@example..org",
    ],
)
def test_no_address(email: str) -> None:
    with pytest.raises(AccountError) as error:
        normalised_email(email)
    assert error.value.kind == "email"


def test_an_address_is_kept_in_one_form() -> None:
    assert normalised_email(" Ann.B+x@EXAMPLE.org ") == "ann.b+x@example.org"
    assert normalised_email("ann@bücher.example") == "ann@xn--bcher-kva.example"


async def test_other_parameters_hash_anew_at_the_next_login(replica: Replica, database: Database, keys: Secrets) -> None:
    await ann(replica)
    stronger = Replica(database, keys, Deployment.model_validate({"access": {"argon2_kib": 9_216, "argon2_passes": 1}}))
    before = (await replica.accounts.find_email("ann@example.org")).password
    await stronger.accounts.login("ann@example.org", PASSWORD, "")
    after = (await replica.accounts.find_email("ann@example.org")).password
    assert before is not None
    assert after is not None
    assert "m=8192" in before
    assert "m=9216" in after
    assert await replica.accounts.login("ann@example.org", PASSWORD, "")
    await stronger.accounts.close()


async def test_registration_may_be_closed(database: Database, keys: Secrets) -> None:
    closed = Replica(database, keys, Deployment.model_validate({"access": {"registration": False}}))
    await refused("registration-closed", ann(closed))
    await refused("registration-closed", closed.accounts.telegram_login(closed.accounts.telegram_proof(widget(), None), ""))
    await closed.accounts.close()


# ------------------------------------------------------------ staying in


async def test_a_refresh_gives_the_next_pair(replica: Replica) -> None:
    entry = await ann(replica)
    after = await replica.accounts.refresh(entry.refresh)
    assert after.session == entry.session
    assert after.refresh != entry.refresh
    assert (await replica.accounts.refresh(after.refresh)).session == entry.session


async def test_a_second_use_ends_the_session_for_both(replica: Replica, other: Replica, database: Database) -> None:
    entry = await ann(replica)
    good = await replica.accounts.refresh(entry.refresh)
    await refused("refresh", other.accounts.refresh(entry.refresh))
    assert other.ownership.revoked(entry.session)
    await refused("refresh", replica.accounts.refresh(good.refresh))
    assert await told(database, "session.reuse_detected") == [{"account": entry.account, "session": entry.session}]
    assert await replica.accounts.sessions(entry.account) == []


async def test_of_many_at_once_exactly_one_wins(replica: Replica, other: Replica, database: Database) -> None:
    entry = await ann(replica)
    outcomes = await asyncio.gather(*(one.accounts.refresh(entry.refresh) for one in (replica, other) * 4), return_exceptions=True)
    won = [outcome for outcome in outcomes if isinstance(outcome, Entry)]
    assert len(won) == 1
    assert all(isinstance(outcome, AccountError) for outcome in outcomes if outcome is not won[0])
    await refused("refresh", replica.accounts.refresh(won[0].refresh))  # nobody can tell which of them was the thief
    assert len(await told(database, "session.reuse_detected")) == 1


async def test_the_same_call_again_is_answered_again(replica: Replica, other: Replica) -> None:
    entry = await ann(replica)
    first = await replica.accounts.refresh(entry.refresh, "attempt-1")
    again = await other.accounts.refresh(entry.refresh, "attempt-1")
    assert again.refresh == first.refresh
    assert (await replica.accounts.refresh(first.refresh, "attempt-2")).session == entry.session
    await refused("refresh", replica.accounts.refresh(entry.refresh, "attempt-1"))  # its successor was used: this is no repetition


async def test_another_attempt_with_a_used_token_is_a_theft(replica: Replica) -> None:
    entry = await ann(replica)
    await replica.accounts.refresh(entry.refresh, "attempt-1")
    await refused("refresh", replica.accounts.refresh(entry.refresh, "attempt-9"))
    assert replica.ownership.revoked(entry.session)


@pytest.mark.parametrize("token", ["", "x", "' OR 1=1 --", "\ud800", "é" * 200])
async def test_a_refresh_token_that_never_was(replica: Replica, token: str) -> None:
    await refused("refresh", replica.accounts.refresh(token))


async def test_a_session_ends_with_its_time(replica: Replica, database: Database) -> None:
    entry = await ann(replica)
    async with database.writing() as connection:
        await connection.execute(sa.update(database.tables.sessions).values(expires=now_us() - 1))
    await refused("refresh", replica.accounts.refresh(entry.refresh))


async def test_logging_out_ends_one_session(replica: Replica, other: Replica) -> None:
    entry, stays = await ann(replica), await ann(replica)
    await replica.accounts.logout(entry.refresh)
    await replica.accounts.logout(entry.refresh)
    await replica.accounts.logout("never was")
    await refused("refresh", replica.accounts.refresh(entry.refresh))
    assert (await replica.accounts.refresh(stays.refresh)).session == stays.session
    await other.ownership.look()
    assert other.ownership.revoked(entry.session)
    assert not other.ownership.revoked(stays.session)


async def test_sessions_are_listed_and_nobody_ends_anothers(replica: Replica) -> None:
    mine, bobs = await ann(replica), await replica.accounts.register("bob@example.org", PASSWORD, "Firefox\x00 on\r\n a phone " + "x" * 300)
    (listed,) = await replica.accounts.sessions(bobs.account)
    assert listed.device.startswith("Firefox on a phone x")
    assert len(listed.device) == 100
    await refused("unknown-session", replica.accounts.revoke(mine.account, bobs.session))
    await refused("unknown-session", replica.accounts.revoke(mine.account, "0" * 32))
    assert await replica.accounts.revoke(bobs.account) == 1
    assert await replica.accounts.sessions(bobs.account) == []


# ------------------------------------------------------------ passwords


async def test_a_new_password_ends_the_other_sessions(replica: Replica, database: Database) -> None:
    here, there = await ann(replica), await ann(replica)
    await refused("credentials", replica.accounts.change_password(here.account, here.session, "wrong password", "another password"))
    await refused("password-rules", replica.accounts.change_password(here.account, here.session, PASSWORD, "short"))
    await replica.accounts.change_password(here.account, here.session, PASSWORD, "another password")
    await replica.accounts.change_password(here.account, here.session, PASSWORD, "another password")  # the same call again
    assert replica.ownership.revoked(there.session)
    assert not replica.ownership.revoked(here.session)
    await refused("credentials", replica.accounts.login("ann@example.org", PASSWORD, ""))
    assert await replica.accounts.login("ann@example.org", "another password", "")
    assert await told(database, "account.password_changed") == [{"account": here.account, "how": "change"}]


async def test_a_mail_gives_a_new_password_once(replica: Replica, database: Database) -> None:
    entry = await ann(replica)
    await replica.accounts.link_telegram(entry.account, replica.accounts.telegram_proof(widget(), None))
    await replica.accounts.forgot("Ann@example.org")
    await replica.accounts.forgot("ann@example.org")  # again at once: no second mail
    (mail,) = await told(database, "mail.requested")
    assert mail["to"] == "ann@example.org"
    token = mail["values"]["token"]  # type: ignore[index]
    async with database.reading() as connection:
        kept = (await connection.execute(sa.select(database.tables.one_time.c.hash))).scalars().all()
    assert token not in kept
    await refused("password-rules", replica.accounts.reset(token, "short"))
    await replica.accounts.reset(token, "another password")
    await replica.accounts.reset(token, "another password")  # the same call again
    await refused("reset", replica.accounts.reset(token, "a third password"))
    await refused("reset", replica.accounts.reset("guessed", "a third password"))
    assert replica.ownership.revoked(entry.session)
    assert (await replica.accounts.find(entry.account)).telegram_id is None  # whoever linked it before has no way in any more
    assert await replica.accounts.login("ann@example.org", "another password", "")


async def test_nobody_learns_who_has_an_account(replica: Replica, database: Database) -> None:
    await ann(replica)
    for email in ("nobody@example.org", "no address", ""):
        await replica.accounts.forgot(email)
    assert await told(database, "mail.requested") == []


async def test_a_mail_grows_old(replica: Replica, database: Database) -> None:
    await ann(replica)
    await replica.accounts.forgot("ann@example.org")
    (mail,) = await told(database, "mail.requested")
    async with database.writing() as connection:
        await connection.execute(sa.update(database.tables.one_time).values(expires=now_us() - 1))
    await refused("reset", replica.accounts.reset(mail["values"]["token"], "another password"))  # type: ignore[index]


# ------------------------------------------------------------ Telegram


async def test_telegram_makes_an_account_and_finds_it_again(replica: Replica) -> None:
    first = await replica.accounts.telegram_login(replica.accounts.telegram_proof(widget(), None), "")
    second = await replica.accounts.telegram_login(replica.accounts.telegram_proof(widget(first_name="Bob"), None), "")
    assert first.account == second.account
    assert (await replica.accounts.find(first.account)).email is None
    await refused("credentials", replica.accounts.change_password(first.account, first.session, "", "another password"))


async def test_a_payload_is_used_once_but_the_same_call_is_answered_again(replica: Replica, other: Replica) -> None:
    proof = replica.accounts.telegram_proof(widget(), None)
    first = await replica.accounts.telegram_login(proof, "", "attempt-1")
    again = await other.accounts.telegram_login(proof, "", "attempt-1")
    assert first.account == again.account
    await refused("telegram", other.accounts.telegram_login(proof, "", "attempt-2"))
    await refused("telegram", other.accounts.telegram_login(proof, ""))
    await refused("telegram", other.accounts.link_telegram(first.account, proof))


async def test_two_first_logins_by_telegram_at_once_make_one_account(replica: Replica, other: Replica) -> None:
    proofs = [replica.accounts.telegram_proof(widget(first_name=f"Ann {n}"), None) for n in range(6)]
    calls = [one.accounts.telegram_login(proof, "") for one, proof in zip((replica, other) * 3, proofs, strict=True)]
    assert len({entry.account for entry in await asyncio.gather(*calls)}) == 1


async def test_a_forged_payload_is_refused(replica: Replica, database: Database, tmp_path: Path) -> None:
    for fields in (widget(bot="987654321:" + "A" * 35), widget(auth_date=int(time.time()) - 400), {}):
        with pytest.raises(AccountError) as error:
            replica.accounts.telegram_proof(fields, None)
        assert error.value.kind == "telegram"
    without = Replica(database, Secrets(tmp_path))
    with pytest.raises(AccountError) as error:
        without.accounts.telegram_proof(widget(), None)
    assert error.value.kind == "telegram-off"
    await without.accounts.close()


async def test_a_telegram_id_belongs_to_one_account(replica: Replica) -> None:
    mine, bobs = await ann(replica), await ann(replica, "bob@example.org")
    await replica.accounts.link_telegram(mine.account, replica.accounts.telegram_proof(widget(), None))
    await refused("taken", replica.accounts.link_telegram(bobs.account, replica.accounts.telegram_proof(widget(first_name="B"), None)))
    assert (
        await replica.accounts.telegram_login(replica.accounts.telegram_proof(widget(first_name="C"), None), "")
    ).account == mine.account


# ------------------------------------------------------------ roles, links, what others see


async def test_a_disabled_account_is_out_everywhere(replica: Replica, other: Replica) -> None:
    entry = await ann(replica)
    await replica.accounts.set_disabled(entry.account, True)
    await other.ownership.look()
    for one in (replica, other):
        assert one.ownership.disabled(entry.account)
        assert one.ownership.revoked(entry.session)
        await refused("disabled", one.accounts.login("ann@example.org", PASSWORD, ""))
    await refused("refresh", replica.accounts.refresh(entry.refresh))
    await replica.accounts.set_disabled(entry.account, False)
    await other.ownership.look()
    assert not other.ownership.disabled(entry.account)
    assert await other.accounts.login("ann@example.org", PASSWORD, "")


async def test_another_role_needs_another_login(replica: Replica) -> None:
    entry = await ann(replica)
    await replica.accounts.set_role(entry.account, "admin")
    assert replica.ownership.revoked(entry.session)
    assert (await replica.accounts.login("ann@example.org", PASSWORD, "")).role == "admin"
    await refused("unknown-account", replica.accounts.set_role("0" * 32, "admin"))


async def test_links_are_seen_by_other_replicas(replica: Replica, other: Replica) -> None:
    mine, bobs = await ann(replica), await ann(replica, "bob@example.org")
    assert await replica.accounts.link("anime", mine.account) == f"a-{mine.account}"
    assert await replica.accounts.link("anime", mine.account) == f"a-{mine.account}"
    assert await replica.accounts.link("shop", bobs.account, "17") == "17"
    await refused("taken", replica.accounts.link("shop", mine.account, "17"))
    await refused("taken", replica.accounts.link("shop", bobs.account, "18"))
    await refused("unknown-account", replica.accounts.link("shop", "0" * 32))
    await other.ownership.look()
    assert other.ownership.owner("shop", "17") == bobs.account
    assert other.ownership.user_of("shop", bobs.account) == "17"
    assert other.ownership.owner("anime", "17") is None
    assert await replica.accounts.unlink("shop", bobs.account)
    assert not await replica.accounts.unlink("shop", bobs.account)
    await asyncio.sleep(0.15)  # `other` asks for erasures at most every half poll
    await other.ownership.look()
    for one in (replica, other):
        assert one.ownership.owner("shop", "17") is None
        assert one.ownership.user_of("shop", bobs.account) is None
    await replica.accounts.link("shop", mine.account, "17")
    await other.ownership.look()
    for one in (replica, other):
        assert one.ownership.owner("shop", "17") == mine.account


async def test_the_last_known_state_holds_while_the_database_is_away(
    replica: Replica, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await ann(replica)
    await replica.accounts.link("anime", entry.account)
    await replica.accounts.logout(entry.refresh)
    key, raw = await replica.accounts.keys.create("robot", ["recommend"])
    caller = await replica.accounts.caller_of_key(raw)
    assert caller is not None
    assert caller.scopes == {"recommend"}

    def away() -> object:
        raise DatabaseAwayError("a test")

    monkeypatch.setattr(database, "guard", away)
    with pytest.raises(DatabaseAwayError):
        await replica.ownership.look()
    assert replica.ownership.revoked(entry.session)
    assert replica.ownership.owner("anime", f"a-{entry.account}") == entry.account
    await asyncio.sleep(0.1)  # longer than a key is believed without asking
    assert await replica.accounts.caller_of_key(raw) == caller
    with pytest.raises(DatabaseAwayError):
        await replica.accounts.caller_of_key(f"fct_{key.key}_{secrets.token_urlsafe(32)}")
    with pytest.raises(DatabaseAwayError):
        await replica.accounts.login("ann@example.org", PASSWORD, "")


# ------------------------------------------------------------ keys


async def test_a_key_opens_until_it_is_revoked_anywhere(replica: Replica, other: Replica, database: Database) -> None:
    key, raw = await replica.accounts.keys.create("robot", ["users:read", "recommend"], days=1)
    caller = await other.accounts.caller_of_key(raw)
    assert caller is not None
    assert (caller.kind, caller.name, caller.scopes) == ("key", key.key, frozenset({"users:read", "recommend"}))
    async with database.reading() as connection:
        row = (await connection.execute(sa.select(database.tables.api_keys))).one()
    assert raw not in str(row)
    assert raw.rpartition("_")[2] not in str(row)
    assert await replica.accounts.keys.revoke(key.key)
    assert not await replica.accounts.keys.revoke("nobody")
    await other.ownership.look()
    assert await replica.accounts.caller_of_key(raw) is None
    assert await other.accounts.caller_of_key(raw) is None
    assert [listed.revoked_at is not None for listed in await other.accounts.keys.all()] == [True]


async def test_a_key_ends_with_its_time_and_no_other_text_is_one(replica: Replica) -> None:
    key, raw = await replica.accounts.keys.create("robot", [], days=1e-7)
    await asyncio.sleep(0.02)
    assert await replica.accounts.caller_of_key(raw) is None
    for text in ("", "fct_", f"fct_{key.key}_", raw[:-1], raw + "A", raw.replace("fct", "FCT"), "é" * 64, f"fct_{key.key}_{'A' * 43}"):
        assert await replica.accounts.caller_of_key(text) is None
    with pytest.raises(ValueError, match="unknown scope 'root'"):
        await replica.accounts.keys.create("robot", ["root"])


async def test_the_last_use_of_a_key_is_noted(replica: Replica) -> None:
    _, raw = await replica.accounts.keys.create("robot", [])
    for _ in range(3):
        await replica.accounts.caller_of_key(raw)
    await asyncio.gather(*replica.accounts.keys._noting)
    (listed,) = await replica.accounts.keys.all()
    assert listed.last_used is not None
    assert abs(listed.last_used - now_us()) < 60e6


async def test_nothing_secret_is_logged(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "factotum")
    entry = await ann(replica)
    again = await replica.accounts.refresh(entry.refresh)
    await refused("refresh", replica.accounts.refresh(entry.refresh))
    await refused("credentials", replica.accounts.login("ann@example.org", "a wrong password", ""))
    _, raw = await replica.accounts.keys.create("robot", [])
    await replica.accounts.forgot("ann@example.org")
    logged = caplog.text
    for secret in (PASSWORD, "a wrong password", entry.refresh, again.refresh, entry.access, raw, "ann@example.org", entry.account):
        assert secret not in logged
