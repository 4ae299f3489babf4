"""A complete producer: an order and the event that tells of it commit together, or not at all.

    DISPATCHER_DATABASE_URL=postgresql+psycopg://… DISPATCHER_BROKER_URL=redis://… python examples/producer.py

The database is the producer's own, where `dispatcher migrate` has made the schema `dispatcher` beside its tables. The
broker only hastens: without one, the scheduler finds the event within a quarter of a second.
"""

from __future__ import annotations

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dispatcher import Accepted, Event, emit


class Base(DeclarativeBase):
    """The producer's own tables."""


class Order(Base):
    """What a customer bought. Amounts are in cents."""

    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]


def complete(session: Session, order: Order) -> Accepted:
    """Stores the order and emits its event; whoever calls it commits, or rolls both back."""
    session.add(order)
    payload = {"order": order.id, "amount": order.amount, "currency": "EUR"}
    event = Event(type="payment.completed", payload=payload, object_id=order.id, idempotency_key=f"paid {order.id}")
    return emit(session, event)


if __name__ == "__main__":
    engine = create_engine(os.environ["DISPATCHER_DATABASE_URL"])
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        accepted = complete(session, Order(id=f"order_{os.urandom(4).hex()}", amount=12_50))
    print(accepted, "goes to", accepted.fanout, "endpoints")
