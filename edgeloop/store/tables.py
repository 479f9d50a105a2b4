"""The tables that every room reads: what was judged, promoted, released and rolled out.

A room with state of its own keeps its tables beside its code, see :meth:`~edgeloop.store.database.Database.create`.
``create`` adds tables and never a column: what is new is a new table.
"""

from __future__ import annotations

import sqlalchemy as sa

meta = sa.MetaData()

ledger = sa.Table(
    "ledger",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("key", sa.String(80), nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.String(32)),
    sa.Column("former", sa.String(32)),
    sa.Column("dataset", sa.String(80)),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("service", "event", "key"),
)
releases = sa.Table(
    "releases",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("service", "digest"),
)
rollouts = sa.Table(
    "rollouts",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("former", sa.String(80)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("wave_since", sa.DateTime(timezone=True), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)
gate_decisions = sa.Table(
    "gate_decisions",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False),
    sa.Column("key", sa.String(80), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("service", "key"),
)
gate_uses = sa.Table(
    "gate_sample_uses",
    meta,
    sa.Column("decision", sa.Integer, sa.ForeignKey("gate_decisions.id"), primary_key=True),
    sa.Column("sample_id", sa.String(80), primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
)
