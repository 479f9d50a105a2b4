"""How each kind of fault strikes a fleet, and how it is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.e2e.edge_faults.damage import (
    flip_on_the_way,
    rot,
    truncate,
    truncate_on_the_way,
)
from tests.e2e.edge_faults.fleet import Fleet
from tests.e2e.edge_faults.proxies import Cut, Damage
from tests.e2e.edge_faults.releases import flipped
from tests.e2e.edge_faults.schedule import Fault, Kind, Step

Way = Callable[[Fleet, Fault], object]


def do(fleet: Fleet, step: Step) -> None:
    """Begin or end a fault, and write down what was done."""
    ways = _BEGIN if step.phase == "begin" else _END
    done = ways[step.fault.kind](fleet, step.fault)
    fault = step.fault
    fleet.journal.write(f"{step.phase} {fault.kind}", number=fault.number, variant=fault.variant, how=done)


def _kill(fleet: Fleet, _fault: Fault) -> str:
    at_work = fleet.sensors[0].catch_at_work()
    fleet.node.kill()
    return "at work" if at_work else "idle"


def _tear(fleet: Fleet, fault: Fault) -> str:
    return f"{_kill(fleet, fault)}, {fleet.tearer.tear(fault.variant)}"


def _start(fleet: Fleet, _fault: Fault) -> None:
    fleet.node.start()


def _stop_broker(fleet: Fleet, _fault: Fault) -> None:
    fleet.broker.stop()


def _kill_broker(fleet: Fleet, _fault: Fault) -> None:
    fleet.broker.kill()


def _start_broker(fleet: Fleet, fault: Fault) -> None:
    fleet.broker.start()
    if fault.kind is Kind.BROKER_KILL:  # it had taken messages that it no longer knows
        for device in fleet.sensors:
            device.send_again(fleet.broker.remembers)


def _cut_link(fleet: Fleet, _fault: Fault) -> str:
    return f"{fleet.link.cut()} ends"


def _slow(fleet: Fleet, fault: Fault) -> None:
    fleet.link.delay, fleet.link.rate = 0.02 + (fault.variant % 7) * 0.03, 20_000.0
    fleet.link_to_store.delay, fleet.link_to_store.rate = 0.2, 20_000.0


def _fast(fleet: Fleet, _fault: Fault) -> None:
    fleet.link.delay, fleet.link.rate = 0.0, None
    fleet.link_to_store.delay, fleet.link_to_store.rate = 0.0, None


def _stop_store(fleet: Fleet, fault: Fault) -> str:
    if fault.variant % 2:
        fleet.link_to_store.down = True
        return "the link is down"
    fleet.cloud.server.kill_gateway()
    return "the gateway is killed"


def _start_store(fleet: Fleet, fault: Fault) -> None:
    if fault.variant % 2:
        fleet.link_to_store.down = False
    else:
        fleet.cloud.server.start_gateway()


def _refuse(fleet: Fleet, fault: Fault) -> None:
    fleet.link_to_store.refuse = (503, 503, 500)[fault.variant % 3]


def _accept(fleet: Fleet, _fault: Fault) -> None:
    fleet.link_to_store.refuse = None


def _cut_store(fleet: Fleet, fault: Fault) -> str:
    cuts: tuple[Cut, ...] = ("request", "before-answer", "answer")
    fleet.link_to_store.cut = cut = cuts[fault.variant % 3]
    return cut


def _mend_store(fleet: Fleet, _fault: Fault) -> None:
    fleet.link_to_store.cut = None


def _truncate(fleet: Fleet, fault: Fault) -> str:
    return _spoil(fleet, fault.variant, truncate_on_the_way, lambda model, _factor: truncate(model))


def _flip(fleet: Fleet, fault: Fault) -> str:
    if fault.variant % 4 == 3:
        fleet.publisher.swapped()
        return "another model and self-check under the names"
    return _spoil(fleet, fault.variant, flip_on_the_way, flipped)


def _spoil(fleet: Fleet, variant: int, on_the_way: Damage, in_the_store: Callable[[bytes, float], bytes]) -> str:
    if variant % 4 == 0:
        fleet.publisher.damaged(in_the_store.__name__, in_the_store)
        return "in the store"
    if variant % 4 == 1:
        fleet.link_to_store.damage = on_the_way
        fleet.publisher.good()
        return "on the way"
    return f"on the node's disk: {rot(fleet.node.state, lambda path, data: on_the_way('/blobs/' + path, data))}"


def _attack(fleet: Fleet, fault: Fault) -> None:
    fleet.publisher.attack(fault.variant)


def _heal(fleet: Fleet, _fault: Fault) -> None:
    fleet.link_to_store.damage = None
    fleet.publisher.heal()


def _fill(fleet: Fleet, fault: Fault) -> str:
    fleet.node.disk.fill(fault.variant % 3)
    fleet.node.limit()
    return f"{fault.variant % 3} pages left"


def _free(fleet: Fleet, _fault: Fault) -> None:
    fleet.node.disk.free()
    fleet.node.limit()


_BEGIN: Mapping[Kind, Way] = {
    Kind.NODE_KILL: _kill,
    Kind.TORN_WRITE: _tear,
    Kind.BROKER_STOP: _stop_broker,
    Kind.BROKER_KILL: _kill_broker,
    Kind.LINK_CUT: _cut_link,
    Kind.SLOW_LINK: _slow,
    Kind.STORE_STOP: _stop_store,
    Kind.STORE_503: _refuse,
    Kind.STORE_CUT: _cut_store,
    Kind.BLOB_TRUNCATED: _truncate,
    Kind.BLOB_FLIPPED: _flip,
    Kind.WRONG_SIGNATURE: _attack,
    Kind.DISK_FULL: _fill,
}
_END: Mapping[Kind, Way] = {
    Kind.NODE_KILL: _start,
    Kind.TORN_WRITE: _start,
    Kind.BROKER_STOP: _start_broker,
    Kind.BROKER_KILL: _start_broker,
    Kind.LINK_CUT: _fast,
    Kind.SLOW_LINK: _fast,
    Kind.STORE_STOP: _start_store,
    Kind.STORE_503: _accept,
    Kind.STORE_CUT: _mend_store,
    Kind.BLOB_TRUNCATED: _heal,
    Kind.BLOB_FLIPPED: _heal,
    Kind.WRONG_SIGNATURE: _heal,
    Kind.DISK_FULL: _free,
}
