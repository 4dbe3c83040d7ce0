"""The `[entities]` tables: how long and how many entities are known, for each that features go by."""

from __future__ import annotations

from typing import Any

from streams.bound import Bound
from streams.pipeline import Events, Feature
from streams.stages import Entity, entity_of
from streams.toml_table import Table, mistake_line, shown

MOST_ENTITIES = 1_000_000_000

By = str | tuple[str, ...]


def read_bounds(
    values: dict[str, Any], events: Events, features: tuple[Feature, ...], mistakes: list[str]
) -> tuple[Bound, ...]:
    """Give the declared bounds in the file's order; each is of an entity that features go by."""
    used = {entity_of(events, feature.by): feature.by for feature in features if feature.by is not None}
    is_all_known = not any(mistake.startswith(("[features]", "[events")) for mistake in mistakes)
    owners: dict[Entity, str] = {}
    bounds = []
    for name, value in values.items():
        if not isinstance(value, dict):
            where, form = f"[entities] {name}", 'a table such as { ttl = "90d", most = 1000000 }'
            mistakes.append(mistake_line(where, f"{shown(value)} is not right", form))
            continue
        table = Table(f"entities.{name}", value, mistakes)
        by = _by(table, name, used, events) if is_all_known else None
        bound = Bound(by or name, table.duration("ttl", 0) or None, table.integer("most", 0, 1, MOST_ENTITIES) or None)
        table.known.append("by")
        table.finish()
        if not {"ttl", "most"} & table.values.keys():
            mistakes.append(f"[entities.{name}]: bounds nothing; allowed: ttl, most")
        if by is None:
            continue
        owner = owners.setdefault(entity_of(events, by), name)
        if owner == name:
            bounds.append(bound)
        else:
            mistakes.append(f"[entities.{name}]: is the entity of [entities.{owner}] too; allowed: one table for each")
    return tuple(bounds)


def _by(table: Table, name: str, used: dict[Entity, By], events: Events) -> By | None:
    """Give what names the entity, as features do; the table's name does unless `by` says more."""
    declared = table.values.get("by", name)
    names = tuple(declared) if isinstance(declared, list) else (declared,)
    options = [" and ".join(by) if isinstance(by, tuple) else by for by in used.values()]
    known = {field.name for field in events.fields} | {".".join(events.key or ())}
    if names and all(isinstance(one, str) and one in known for one in names):
        in_order = tuple(field.name for field in events.fields if field.name in names)
        by: By = names[0] if len(names) == 1 else in_order
        if entity_of(events, by) in used and len(set(names)) == len(names):
            return by
    told = " and ".join(map(str, names))
    where = f"[{table.name}] by" if "by" in table.values else f"[{table.name}]"
    wrong = f"no feature goes by {shown(told)}"
    table.mistakes.append(
        mistake_line(where, wrong, ", ".join(options) or "an entity that a feature goes by", told, options)
    )
    return None
