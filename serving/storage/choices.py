"""What people said of stops and routes (favourites, bought, surely, surely not), and what newcomers answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us

Choice = Literal["favourite", "bought", "yes", "no"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
Chosen = Literal["stop", "route"]
MOST = 500  # that one person may have of a domain

_ANSWERS = "answers"  # stands where a choice stands; it is none
_AGAINST: dict[str, str] = {"yes": "no", "no": "yes"}  # who says the one takes back the other


class TooManyError(ValueError):
    """A person has as many as one may have."""


@dataclass(frozen=True, slots=True)
class Said:
    """`chosen_at`: microseconds UTC."""

    choice: str
    of: str
    target: str
    chosen_at: int


#: What else is written in the transaction of a change. Names: the targets that are new; of what was taken back the choices that the person
#: still has of the target.
Tell = Callable[[AsyncConnection, list[str]], Awaitable[None]]


class Choices:
    """Each call raises DatabaseAwayError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._choices, self._answers = database.tables.choices, database.tables.questionnaires
        self._told = self._both()

    async def of(self, domain: str, user: str) -> list[Said]:
        """Everything that a person said, oldest first."""
        columns = self._choices.c
        query = sa.select(columns.choice, columns.of, columns.target, columns.chosen_at)
        query = query.where(columns.domain == domain, columns.user == user).order_by(columns.chosen_at, columns.choice, columns.target)
        async with self._database.reading() as connection:
            return [Said(*row) for row in (await connection.execute(query)).all()]

    async def told(self, domain: str, user: str) -> tuple[list[Said], str | None]:
        """What `of` and `answers` say, by one query that is made once: a search asks for both, many times a second."""
        rows = await self._database.look_up(self._told, {"in_domain": domain, "of_user": user})
        said = [Said(*row) for row in rows if row[0] != _ANSWERS]
        said.sort(key=lambda one: (one.chosen_at, one.choice, one.target))
        return said, next((row[2] for row in rows if row[0] == _ANSWERS), None)

    def _both(self) -> sa.Executable:
        """Choices, and the questionnaire's answers as a row whose choice is `_ANSWERS` and whose target is their JSON."""
        domain, user = sa.bindparam("in_domain", type_=sa.String), sa.bindparam("of_user", type_=sa.String)
        choices, answers = self._choices.c, self._answers.c
        said = sa.select(choices.choice, choices.of, choices.target, choices.chosen_at)
        answered = sa.select(sa.literal_column(f"'{_ANSWERS}'"), sa.literal_column("''"), answers.answers, sa.literal_column("0"))
        return sa.union_all(
            said.where(choices.domain == domain, choices.user == user), answered.where(answers.domain == domain, answers.user == user)
        )

    async def add(self, domain: str, user: str, choice: Choice, of: Chosen, targets: Sequence[str], tell: Tell | None = None) -> list[str]:
        """The targets that are new. "yes" takes back a "no" of the same target, and the other way round. Raises TooManyError: then none
        was written."""
        columns = self._choices.c
        mine = sa.and_(columns.domain == domain, columns.user == user)
        async with self._database.writing() as connection:
            stamp = now_us()
            once = list(dict.fromkeys(targets))
            if not once:
                return []
            said = {"domain": domain, "user": user, "choice": choice, "of": of, "chosen_at": stamp}
            against = _AGAINST.get(choice)
            if against is not None:
                back = sa.delete(self._choices).where(mine, columns.choice == against, columns.of == of, columns.target.in_(once))
                await connection.execute(back)
            statement = self._database.insert(self._choices).on_conflict_do_nothing().returning(columns.target)
            new = set((await connection.execute(statement, [{**said, "target": target} for target in once])).scalars())
            count = int(await connection.scalar(sa.select(sa.func.count()).select_from(self._choices).where(mine)) or 0)
            if count > MOST:
                raise TooManyError(f"at most {MOST} choices of a person; these would make {count}")
            added = [target for target in once if target in new]
            if tell is not None and added:
                await tell(connection, added)
        return added

    async def remove(self, domain: str, user: str, choice: Choice, of: Chosen, target: str, tell: Tell | None = None) -> bool:
        """False where there was none."""
        columns = self._choices.c
        which = (columns.domain == domain, columns.user == user, columns.of == of, columns.target == target)
        async with self._database.writing() as connection:
            removed = (await connection.execute(sa.delete(self._choices).where(*which, columns.choice == choice))).rowcount == 1
            if tell is not None and removed:
                left = sa.select(columns.choice).where(*which).order_by(columns.chosen_at, columns.choice)
                await tell(connection, list((await connection.execute(left)).scalars()))
        return removed

    # ------------------------------------------------------------ the questionnaire

    async def put_answers(self, domain: str, user: str, answers: str) -> None:
        """`answers`: JSON. What was answered before is forgotten."""
        said = {"answers": answers, "answered_at": now_us()}
        async with self._database.writing() as connection:
            statement = self._database.insert(self._answers).values(domain=domain, user=user, **said)
            await connection.execute(statement.on_conflict_do_update(index_elements=["domain", "user"], set_=said))

    async def answers(self, domain: str, user: str) -> str | None:
        """JSON; None where the person answered nothing."""
        columns = self._answers.c
        query = sa.select(columns.answers).where(columns.domain == domain, columns.user == user)
        async with self._database.reading() as connection:
            return (await connection.execute(query)).scalar_one_or_none()
