"""Rings of sites with KServe: planned, switched, looked at, taken back, and gone; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from edgeloop.clients.cluster import Cluster, ClusterUnavailable, FieldConflict, Manifest, UnknownContext
from edgeloop.errors import BadInput
from edgeloop.fleet.targets.kserve import BadSites, KServeTarget
from edgeloop.fleet.targets.kserve_manifests import INFERENCE_SERVICES, BadKServeOptions, KServeOptions
from edgeloop.fleet.targets.kserve_versions import IgnoredField, UnsupportedKServe
from edgeloop.fleet.targets.pods import BatchesUnsupported, MissingImage
from edgeloop.fleet.targets.protocol import Observed, Target
from edgeloop.samples.cohorts import place
from tests.unit.fleet.targets.edge import NEW, OLD, at_rest, kept, moving, release, staging
from tests.unit.fleet.targets.sites import Site

BLOCKED = {
    "transitionStatus": "BlockedByFailedLoad",
    "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such\nmodel"},
}


class Sites:
    """Two sites in ring 0, one in ring 1."""

    def __init__(self, **options: Any) -> None:
        self.all = {name: Site(name) for name in ("north", "south", "west")}
        rings = {0: ["north", "south"], 1: ["west"]}
        self.target = KServeTarget(self.connect, rings, KServeOptions(**options))

    def connect(self, context: str) -> Cluster:
        if context not in self.all:
            raise UnknownContext(f"the kubeconfig has no context {context!r}")
        return self.all[context]

    def __getitem__(self, name: str) -> Site:
        return self.all[name]

    def run(self) -> None:
        for site in self.all.values():
            site.run()

    def image(self, name: str) -> str:
        (found,) = kept(self.all[name], INFERENCE_SERVICES)
        return str(found["spec"]["predictor"]["containers"][0]["image"])


@pytest.fixture
def sites() -> Sites:
    found = Sites()
    found.target.switch(at_rest())
    found.run()
    return found


def test_it_is_a_target(sites: Sites) -> None:
    known: Target = sites.target
    assert known.name == "kserve"


def test_a_release_goes_to_the_sites_of_the_ring(sites: Sites) -> None:
    assert sites.target.observe(at_rest()) == Observed(2, 2, 2, 0, 0)
    assert sites.target.switch(at_rest()).changed == 0
    assert kept(sites["west"], INFERENCE_SERVICES) == []
    assert sites.target.switch(moving()).changed == 2
    assert sites.target.observe(moving()).switched == 0
    sites.run()
    assert sites.target.observe(moving()) == Observed(2, 2, 2, 0, 0)
    assert sites.image("south") == NEW.images["predictor"]


def test_the_plan_names_sites_and_fields_and_changes_nothing(sites: Sites) -> None:
    lines = sites.target.plan(moving()).lines
    field = f'.spec.predictor.containers[name="kserve-container"].image: "{OLD.images["predictor"]}"'
    for site in ("north", "south"):
        assert [line for line in lines if line.startswith(f"{site}: ~ InferenceService") and field in line]
    assert sites.image("north") == OLD.images["predictor"]
    assert sites.target.plan(at_rest()).lines == ()
    assert sites.target.plan(at_rest(ring=1)).lines == (
        f"west: + InferenceService edgeloop/edgeloop-wine-rater: new, {OLD.images['predictor']}",
    )


def test_staging_leaves_sites_as_they_are(sites: Sites) -> None:
    before = kept(sites["north"], INFERENCE_SERVICES)
    assert sites.target.stage(staging()).state == "done"
    assert sites.target.switch(staging()).changed == 0
    assert kept(sites["north"], INFERENCE_SERVICES) == before
    assert sites.target.observe(staging()).switched == 0


def test_two_reads_tell_a_sites_state(sites: Sites) -> None:
    for site in sites.all.values():
        site.calls.clear()
    sites.target.observe(at_rest())
    assert [(c.verb, c.resource) for c in sites["north"].calls] == [
        ("get", "inferenceservices"),
        ("get", "deployments"),
    ]


def test_a_service_that_stays_ready_beside_a_pod_that_does_not_start_is_not_switched(sites: Sites) -> None:
    sites.target.switch(moving())
    for name in ("north", "south"):
        sites[name].deploy()
        sites[name].pods(updated=1, available=1, total=2)
        sites[name].look()
    assert sites.target.observe(moving()) == Observed(
        2, 2, 0, 0, 0, "north: 1 of 1 pods are of the release, 1 available, 2 in all"
    )


def test_what_was_said_before_the_change_does_not_count(sites: Sites) -> None:
    sites.target.switch(moving())
    assert "not made the release's Deployment" in sites.target.observe(moving()).reason
    sites["north"].deploy()
    assert sites.target.observe(moving()).switched == 0
    sites["north"].pods()
    seen = sites.target.observe(moving())
    assert (seen.switched, seen.reason) == (0, "north: KServe has not looked at its Deployment since it changed")
    sites["north"].look()
    assert sites.target.observe(moving()).switched == 1


@pytest.mark.parametrize(
    ("model", "conditions", "words"),
    [
        (None, {"PredictorReady": False}, "not PredictorReady"),
        (None, {"Ready": False}, "not Ready"),
        (None, {"LatestDeploymentReady": False}, "not LatestDeploymentReady"),
        ({"transitionStatus": "InProgress", "states": {"targetModelState": "Loading"}}, {}, "model is Loading"),
        ({"transitionStatus": "UpToDate", "states": {"activeModelState": "Standby"}}, {}, "model is not loaded"),
    ],
)
def test_what_is_still_lacking(sites: Sites, model: Manifest | None, conditions: dict[str, bool], words: str) -> None:
    sites["north"].look(model, **conditions)
    assert sites.target.observe(at_rest()) == Observed(2, 2, 1, 0, 0, f"north: {words}")


def test_a_model_that_does_not_load_fails(sites: Sites) -> None:
    sites.target.switch(moving())
    sites["north"].run()
    sites["north"].look(BLOCKED)
    seen = sites.target.observe(moving())
    assert (seen.failed, seen.reason) == (1, "north: BlockedByFailedLoad: ModelLoadFailed: no such model")


def test_a_fault_of_the_release_before_is_not_the_ones_that_comes(sites: Sites) -> None:
    sites["north"].look(BLOCKED)
    sites.target.switch(moving())
    sites["north"].deploy()
    assert sites.target.observe(moving()).failed == 0
    sites["north"].pods(updated=1, available=0, total=2)
    sites["north"].look(BLOCKED)
    assert sites.target.observe(moving()).failed == 0


def test_pods_that_do_not_come_up_fail_and_are_taken_back(sites: Sites) -> None:
    sites.target.switch(moving())
    for name in ("north", "south"):
        sites[name].deploy()
        sites[name].pods(updated=1, available=1, total=2, stuck=True)
        sites[name].look()
    seen = sites.target.observe(moving())
    assert (seen.failed, seen.reason) == (2, "north: ProgressDeadlineExceeded: no pod came up")
    assert sites.target.revert(at_rest()).changed == 2
    sites.run()
    assert sites.target.observe(at_rest()) == Observed(2, 2, 2, 0, 0)


def test_a_site_that_is_away_is_passed_over_and_owed(sites: Sites) -> None:
    sites["south"].away = True
    assert sites.target.switch(moving()).state == "done"
    sites["north"].run()
    assert sites.target.observe(moving()) == Observed(2, 1, 1, 0, 1)
    assert "south is away" in sites.target.plan(moving()).warnings[0]
    with pytest.raises(ClusterUnavailable):
        sites.target.uninstall()
    sites["south"].away = False
    assert sites.target.switch(moving()).changed == 2


def test_with_all_sites_away_it_is_tried_later(sites: Sites) -> None:
    for name in ("north", "south"):
        sites[name].away = True
    assert sites.target.switch(moving()).state == "later"
    assert sites.target.observe(moving()) == Observed(2, 0, 0, 0, 2)


def test_after_a_refusal_no_further_site_is_changed(sites: Sites) -> None:
    (found,) = kept(sites["north"], INFERENCE_SERVICES)
    found["spec"]["predictor"]["containers"][0]["image"] = "theirs"
    sites["north"].edit(INFERENCE_SERVICES, found, "kubectl-edit")
    with pytest.raises(FieldConflict):
        sites.target.plan(moving())
    done = sites.target.switch(moving())
    assert (done.state, done.changed) == ("refused", 0)
    assert "managed by 'kubectl-edit'" in done.reason
    assert sites.image("south") == OLD.images["predictor"]


def test_uninstall_leaves_nothing_of_ours_and_all_of_others(sites: Sites) -> None:
    sites.target.switch(at_rest(ring=1))
    theirs = {"name": "theirs", "namespace": "edgeloop"}
    manifest = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": theirs, "spec": {}}
    sites["west"].edit(INFERENCE_SERVICES, manifest)
    assert sites.target.uninstall("another") == 0
    assert sites.target.uninstall("wine-rater") == 3
    left = [m["metadata"]["name"] for site in sites.all.values() for m in kept(site, INFERENCE_SERVICES)]
    assert left == ["theirs"]


def test_an_unknown_context(sites: Sites) -> None:
    target = KServeTarget(sites.connect, {0: ["nowhere"]})
    with pytest.raises(UnknownContext):
        target.plan(at_rest())


def test_a_context_in_two_rings_and_a_ring_without_one(sites: Sites) -> None:
    with pytest.raises(BadSites, match="north is named twice"):
        KServeTarget(sites.connect, {0: ["north"], 1: ["north"]})
    with pytest.raises(BadSites, match="ring 7 of wine-rater has no site"):
        sites.target.plan(at_rest(ring=7))


def test_batches_are_refused(sites: Sites) -> None:
    with pytest.raises(BatchesUnsupported):
        sites.target.plan(moving(place("salt", "edge-0")))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"extra": {"canaryTrafficPercent": 10}}, "spec.predictor.canaryTrafficPercent"),
        ({"extra": {"containerConcurrency": 1}}, "spec.predictor.containerConcurrency"),
        ({"extra": {"minReplicas": 0}}, "spec.predictor.minReplicas: 0"),
    ],
)
def test_fields_that_would_be_ignored_are_refused(options: dict[str, Any], field: str) -> None:
    sites = Sites(**options)
    with pytest.raises(IgnoredField, match=f"KServe 0.20 ignores {field} in Standard mode: leave it out"):
        sites.target.plan(at_rest())
    assert sites.target.switch(at_rest()).state == "refused"
    assert kept(sites["north"], INFERENCE_SERVICES) == []


def test_image_volumes_need_a_kubernetes_that_has_them() -> None:
    sites = Sites(image="savedmodel", scheme="oci+native")
    sites.all["south"] = Site("south", version=(1, 34))
    with pytest.raises(IgnoredField, match=r"cluster south: .* Kubernetes 1\.34 has not by default: use scheme oci"):
        sites.target.plan(at_rest())


@pytest.mark.parametrize(
    ("controller", "words"),
    [
        (None, "has no Deployment kserve/kserve-controller-manager: install KServe"),
        ("kserve/kserve-controller:latest", "does not tell its version: set version"),
        (f"kserve/kserve-controller@sha256:{'a' * 64}", "does not tell its version"),
        ("kserve/kserve-controller:v0.15.2", "has KServe 0.15, known are 0.16 to 0.21"),
        ("kserve/kserve-controller:v1.0.0", "has KServe 1.0, known are"),
    ],
)
def test_versions_that_are_not_known(controller: str | None, words: str) -> None:
    sites = Sites()
    sites.all["north"] = Site("north", controller)
    with pytest.raises(UnsupportedKServe, match=words):
        sites.target.plan(at_rest())


@pytest.mark.parametrize(
    "controller",
    [
        "localhost:5000/kserve/kserve-controller:v0.16.0",
        "kserve/kserve-controller:v0.21.0-rc1",
        f"kserve/kserve-controller:0.20@sha256:{'a' * 64}",
    ],
)
def test_versions_that_are(controller: str) -> None:
    sites = Sites()
    sites.all["north"] = Site("north", controller)
    assert sites.target.switch(at_rest()).state == "done"


def test_a_version_that_was_told_is_taken() -> None:
    sites = Sites(version=(0, 19))
    sites.all["north"] = Site("north", None)
    assert sites.target.switch(at_rest()).changed == 2


@pytest.mark.parametrize("kind", ["model", "savedmodel"])
def test_files_are_named_by_digest(kind: str) -> None:
    sites = Sites(image=kind, model_format="onnx")
    sites.target.switch(at_rest())
    (found,) = kept(sites["north"], INFERENCE_SERVICES)
    assert found["spec"]["predictor"]["model"]["storageUri"] == f"oci://{OLD.images[kind]}"
    with pytest.raises(MissingImage):
        sites.target.plan(at_rest(release("a", **{kind: "registry.example.com/wine:7"})))


def test_a_predictor_reports_under_the_name_of_its_site() -> None:
    sites = Sites(reports="edgeloop-broker")
    assert sites.target.switch(at_rest()).state == "done"
    for name in ("north", "south"):
        (found,) = kept(sites[name], INFERENCE_SERVICES)
        told = {one["name"]: one for one in found["spec"]["predictor"]["containers"][0]["env"]}
        assert (told["EDGELOOP_NODE"]["value"], told["EDGELOOP_RING"]["value"]) == (name, "0")
        assert told["EDGELOOP_BROKER"]["valueFrom"]["secretKeyRef"] == {"name": "edgeloop-broker", "key": "url"}


@pytest.mark.parametrize(
    "options",
    [
        {"image": "model"},
        {"image": "savedmodel", "arch": "arm64"},
        {"replicas": 0},
        {"reports": "broker", "replicas": 2},
        {"reports": "broker", "image": "savedmodel"},
        {"reports": "broker", "extra": {"maxReplicas": 3}},
    ],
    ids=str,
)
def test_options_that_contradict(options: dict[str, Any]) -> None:
    with pytest.raises(BadKServeOptions) as caught:
        KServeOptions(**options)
    assert isinstance(caught.value, BadInput)
