"""Variants that were refused before: a release is asked for every few seconds, and converting costs minutes.

The same model, profile and inputs give the same answer; any other of them is judged anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgeloop.clients.objects import ObjectStore
from edgeloop.release.optimise.examples import Examples
from edgeloop.release.optimise.measure import OutOfTolerance
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import canonical, digest, hexdigest
from edgeloop.samples.service import Service

#: A change of how variants are judged changes it too.
_RECIPE = 1


def refusal_key(service: Service, layers: Mapping[str, str], profile: Profile, inputs: Examples) -> str:
    """Object key of the record that a variant was refused, by all that this follows from."""
    known = [digest(payload) for payload in (*inputs.calibration, *inputs.judging)]
    told = [dict(layers), profile.model_dump(mode="json"), service.node_config().model_dump(mode="json")]
    return f"conversions/{service.name}/refused-{hexdigest(digest(canonical([_RECIPE, *told, known])))}.json"


def check_refused(store: ObjectStore, key: str) -> None:
    """Raise OutOfTolerance in the words of the first time."""
    if store.size(key) is not None:
        raise OutOfTolerance(str(json.loads(store.get(key))["refused"]))


def refuse(store: ObjectStore, key: str, why: OutOfTolerance) -> None:
    """Remember it."""
    store.create(key, canonical({"refused": str(why)}))
