"""Orders on their way: an order is stored and announced in one transaction, and sent once to whom the domain's YAML names.

The announcement holds the order's id alone; what is sent is read when it is sent, so that the order of somebody who was erased
meanwhile is sent no more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import partial
from urllib.parse import unquote

import httpx

from configs.domain import Domain, Itinerary, Language
from serving.events.consumers import NotDoneError, RefusedError
from serving.itinerary.current import Current
from serving.itinerary.showing import ends_at, local, money
from serving.itinerary.telling import counted
from serving.live import NotReadyError
from serving.mail import address
from serving.storage.database import Database
from serving.storage.orders import Order, Orders
from serving.storage.outbox import Envelope

PLACED = "order.placed"
_TIMEOUT_S = 10.0

_SAID: dict[str, dict[Language, str]] = {
    "subject": {"en": "Order {order}: {stops} for {party}", "ru": "Заказ {order}: {stops}, человек: {party}"},
    "order": {"en": "Order {order}", "ru": "Заказ {order}"},
    "people": {"en": "People: {party}", "ru": "Человек: {party}"},
    "answer": {"en": "Answer to: {contact}", "ru": "Ответить: {contact}"},
    "gone": {"en": "{name}: not in the timetable any more", "ru": "{name}: в расписании больше нет"},
    "unpriced": {"en": "price unknown", "ru": "цена неизвестна"},
    "together": {"en": "Together for one: {one}, for {party}: {all}", "ru": "Всего на одного: {one}, на {party}: {all}"},
    "together_from": {
        "en": "Together, as far as prices are known, for one: {one}, for {party}: {all}",
        "ru": "Всего, насколько известны цены, на одного: {one}, на {party}: {all}",
    },
}

log = logging.getLogger("factotum.orders")


class Ordering:
    """`mail`: sends a mail under an event's id (serving/mail.py). `current`: the timetable of a domain as it is now."""

    def __init__(
        self,
        database: Database,
        domains: Mapping[str, Domain],
        current: Callable[[str], Current],
        mail: Callable[[EmailMessage, str], Awaitable[None]],
    ) -> None:
        self.orders = Orders(database)
        self._domains, self._current, self._mail = domains, current, mail

    async def place(self, order: Order, language: Language = "en") -> tuple[Order, bool]:
        """The order as it stands, and whether it is new: one that comes again changes nothing and is sent no second time. Where nobody is
        named to send it to it is only stored. `language`: of the mail. Raises DatabaseAwayError."""
        words = self._domains[order.domain].itinerary
        told = words is not None and words.orders_to is not None
        return await self.orders.place(order, partial(announced, language=language) if told else None)

    async def send(self, envelope: Envelope) -> None:
        """The effect of the consumer `orders`. Raises NotDoneError, RefusedError, and whatever leaves it open whether it was sent."""
        domain, name = str(envelope.payload["domain"]), str(envelope.payload["order"])
        order = await self.orders.find(name)
        if order is None:
            raise RefusedError("the order is gone: who placed it had everything erased")
        words = self._domains[domain].itinerary if domain in self._domains else None
        if words is None or words.orders_to is None:
            raise RefusedError(f"{domain}: nobody is named in itinerary.orders_to to send orders to")
        try:
            current = self._current(domain)
        except NotReadyError as error:
            raise NotDoneError(str(error)) from None
        if words.orders_to.startswith("mailto:"):
            language: Language = "ru" if envelope.payload.get("language") == "ru" else "en"
            to = unquote(words.orders_to.removeprefix("mailto:"))
            await self._mail(letter(order, words, current, to, language), envelope.event_id)
        else:
            await _post(words.orders_to, order)
        log.info("an order was sent", extra={"fields": {"domain": domain, "event": envelope.event_id}})


def announced(order: Order, language: Language = "en") -> Envelope:
    """The same order has the same event: it can be told once. `language`: in which it is written to the desk."""
    return Envelope(PLACED, order.domain, {"domain": order.domain, "order": order.order, "language": language}, f"order-{order.order}")


def letter(order: Order, words: Itinerary, current: Current, to: str, language: Language) -> EmailMessage:
    """An order as somebody at a desk reads it. Raises RefusedError for an address that cannot stand in a mail."""
    timetable = current.timetable

    def said(word: str, **values: object) -> str:
        return _SAID[word][language].format(**values)

    lines = [said("order", order=order.order), said("people", party=order.party), said("answer", contact=order.contact), ""]
    whole, priced = 0, True
    for name in order.stops:
        row = timetable.rows.get(name)
        if row is None:
            lines.append(said("gone", name=name))
            continue
        stop = timetable.stops[row]
        begins, ends = local(timetable, stop.starts_at), local(timetable, ends_at(stop))
        whole, priced = whole + (stop.price or 0), priced and stop.price is not None
        price = said("unpriced") if stop.price is None else money(stop.price, words)
        lines.append(f"{stop.id}: {begins:%Y-%m-%d %H:%M}-{ends:%H:%M}, {timetable.halls[stop.hall]}: {stop.title} ({price})")
    cost = {"one": money(whole, words), "party": order.party, "all": money(whole * order.party, words)}
    lines += ["", said("together" if priced else "together_from", **cost)]
    if order.note:
        lines += ["", order.note]
    message = EmailMessage()
    message["Subject"] = said("subject", order=order.order, stops=counted(len(order.stops), words, "stop", language), party=order.party)
    address(message, to, order.created)
    message.set_content("\n".join(lines) + "\n")
    return message


async def _post(url: str, order: Order) -> None:
    """`Idempotency-Key` lets the other side know one that came twice."""
    body = {
        "order_id": order.order,
        "stops": order.stops,
        "party": order.party,
        "contact": order.contact,
        "note": order.note,
        "created": datetime.fromtimestamp(order.created / 1e6, UTC).isoformat(),
    }
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            answer = await client.post(url, json=body, headers={"Idempotency-Key": order.order})
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NotDoneError(f"who takes orders does not answer: {type(error).__name__}") from None
    except httpx.HTTPError as error:
        raise OSError(f"who takes orders fell silent while it took one: {type(error).__name__}") from None
    if answer.status_code in (408, 425, 429, 503):
        raise NotDoneError(f"who takes orders asks to come again ({answer.status_code})")
    if answer.status_code >= 500:
        raise OSError(f"who takes orders failed while it took one ({answer.status_code})")
    if answer.status_code >= 300:
        raise RefusedError(f"who takes orders refuses this one ({answer.status_code})")
