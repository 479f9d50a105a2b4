"""A ring on KubeEdge, over its life: planned, staged, switched, looked at, taken back, and gone."""

from __future__ import annotations

import pytest

from edgeloop.clients.cluster import (
    DAEMON_SETS,
    NODES,
    ClusterUnavailable,
    FieldConflict,
    Manifest,
)
from edgeloop.fleet.targets.kubeedge import PULLS, KubeEdgeTarget
from edgeloop.fleet.targets.kubeedge_manifests import NODE_GROUPS, PREPULL_JOBS, BadOptions, KubeEdgeOptions
from edgeloop.fleet.targets.owned import ForeignObject, delete_own
from edgeloop.fleet.targets.pods import BatchesUnsupported, MissingImage
from edgeloop.fleet.targets.protocol import Observed, Target
from edgeloop.samples.cohorts import NOBODY, place
from tests.unit.fleet.targets.edge import NEW, OLD, SERVING, EdgeCluster, at_rest, kept, moving, release, staging


@pytest.fixture
def cluster() -> EdgeCluster:
    return EdgeCluster()


@pytest.fixture
def target(cluster: EdgeCluster) -> KubeEdgeTarget:
    return KubeEdgeTarget(cluster)


def running(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    """Ring 0 runs OLD."""
    target.switch(at_rest())
    cluster.run()
    cluster.calls.clear()


def image(cluster: EdgeCluster) -> str:
    (found,) = kept(cluster, DAEMON_SETS)
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def jobs(cluster: EdgeCluster) -> list[list[str]]:
    return [job["spec"]["imagePrePullTemplate"]["nodeNames"] for job in kept(cluster, PREPULL_JOBS)]


def test_it_is_a_target(target: KubeEdgeTarget) -> None:
    known: Target = target
    assert known.name == "kubeedge"


def test_a_first_release_is_put_on_the_ring(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    assert target.plan(at_rest()).lines == (
        f"+ DaemonSet edgeloop/edgeloop-wine-rater-ring-0: new, {OLD.images['predictor']}",
    )
    assert kept(cluster, DAEMON_SETS) == []
    assert target.switch(at_rest()).changed == 1
    cluster.run()
    assert target.observe(at_rest()) == Observed(2, 2, 2, 0, 0)
    assert target.switch(at_rest()).changed == 0
    assert target.plan(at_rest()).lines == ()


def test_rings_do_not_touch_one_another(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    target.switch(at_rest(NEW, ring=1))
    assert image(cluster_of(cluster, 0)) == OLD.images["predictor"]


def cluster_of(cluster: EdgeCluster, ring: int) -> EdgeCluster:
    other = next(d for d in kept(cluster, DAEMON_SETS) if d["metadata"]["labels"]["edgeloop/ring"] != str(ring))
    cluster.delete(DAEMON_SETS, other["metadata"]["name"], "edgeloop")
    return cluster


def test_staging_pulls_and_changes_no_pod(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    assert target.stage(staging()).changed == 1
    assert target.switch(staging()).changed == 0
    assert target.observe(staging()) == Observed(2, 0, 0, 0, 0)
    cluster.pull()
    assert target.observe(staging()) == Observed(2, 2, 0, 0, 0)
    assert target.stage(staging()).changed == 0
    assert image(cluster) == OLD.images["predictor"]


def test_without_pulling_beforehand_every_node_that_is_online_is_staged(cluster: EdgeCluster) -> None:
    target = KubeEdgeTarget(cluster, KubeEdgeOptions(prepull=False))
    running(cluster, target)
    cluster.online("edge-1", False)
    assert target.stage(staging()).changed == 0
    assert jobs(cluster) == []
    assert target.observe(staging()) == Observed(2, 1, 0, 0, 1)


def test_a_switch_ends_the_jobs_and_staging_does_not_bring_them_back(
    cluster: EdgeCluster, target: KubeEdgeTarget
) -> None:
    running(cluster, target)
    target.stage(staging())
    cluster.pull()
    assert target.switch(moving()).state == "done"
    assert (jobs(cluster), image(cluster)) == ([], NEW.images["predictor"])
    assert target.stage(moving()).changed == 0
    assert target.observe(moving()) == Observed(2, 0, 0, 0, 0)
    cluster.run()
    assert target.observe(moving()) == Observed(2, 2, 2, 0, 0)


def test_the_plan_shows_fields(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    lines = target.plan(staging()).lines
    assert (
        '~ DaemonSet edgeloop/edgeloop-wine-rater-ring-0: .spec.template.spec.containers[name="predictor"].image:'
        f' "{OLD.images["predictor"]}" -> "{NEW.images["predictor"]}"'
    ) in lines
    assert len(lines) == 6
    assert image(cluster) == OLD.images["predictor"]


def test_a_release_that_crashes_is_seen_and_taken_back(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    target.switch(moving())
    cluster.run(broken=["b" * 64])
    seen = target.observe(moving())
    assert (seen.switched, seen.failed) == (0, 2)
    assert seen.reason == "edge-0: predictor: CrashLoopBackOff: back-off restarting"
    assert target.revert(at_rest()).changed == 1
    cluster.run()
    assert target.observe(at_rest()) == Observed(2, 2, 2, 0, 0)


def test_an_image_that_cannot_be_pulled_fails_before_the_switch(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    for tried in range(PULLS):
        assert target.observe(staging()).failed == 0
        assert target.stage(staging()).changed == 1, tried
        cluster.pull(broken=["b" * 64])
    assert target.stage(staging()).changed == 0
    assert target.observe(staging()) == Observed(2, 0, 0, 2, 0, "edge-0: image not pulled: no reason given")


def test_a_pull_that_is_tried_again_has_not_failed_and_is_not_tried_twice_at_once(
    cluster: EdgeCluster, target: KubeEdgeTarget
) -> None:
    running(cluster, target)
    for _ in range(PULLS - 1):
        target.stage(staging())
        cluster.pull(broken=["b" * 64])
    assert target.stage(staging()).changed == 1
    assert target.stage(staging()).changed == 0
    assert target.observe(staging()) == Observed(2, 0, 0, 0, 0)


def test_nodes_that_are_offline_are_no_failures_and_are_pulled_to_later(
    cluster: EdgeCluster, target: KubeEdgeTarget
) -> None:
    running(cluster, target)
    cluster.online("edge-1", False)
    target.stage(staging())
    assert jobs(cluster) == [["edge-0"]]
    cluster.online("edge-0", False)
    cluster.pull()
    assert target.observe(staging()) == Observed(2, 0, 0, 0, 2)
    for name in ("edge-0", "edge-1"):
        cluster.online(name, True)
    target.stage(staging())
    cluster.pull()
    assert target.observe(staging()) == Observed(2, 2, 0, 0, 0)


def test_a_node_that_is_offline_has_not_switched(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    cluster.online("edge-1", False)
    target.switch(moving())
    cluster.run()
    assert target.observe(moving()) == Observed(2, 1, 1, 0, 1)


def test_a_settled_ring_is_one_call(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    target.observe(at_rest())
    assert [call.verb for call in cluster.calls] == ["get"]


@pytest.mark.parametrize("nodes", [8, 40])
def test_calls_do_not_grow_with_nodes(nodes: int) -> None:
    cluster = EdgeCluster(nodes)
    target = KubeEdgeTarget(cluster)
    running(cluster, target)
    target.stage(staging())
    cluster.pull()
    target.switch(moving())
    cluster.run()
    target.observe(moving())
    assert len(cluster.calls) == 12


@pytest.fixture
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.fleet.targets.kubeedge_manifests.NODES_PER_JOB", 5)


@pytest.mark.usefixtures("small_jobs")
def test_a_large_ring_is_staged_by_several_jobs() -> None:
    cluster = EdgeCluster(2 * 11)
    target = KubeEdgeTarget(cluster, KubeEdgeOptions(node_limit=10))
    target.stage(staging())
    assert sorted(map(len, jobs(cluster))) == [1, 5, 5]
    assert target.plan(staging()).warnings == ("ring 0 has 11 nodes, CloudCore's nodeLimit is 10",)


@pytest.mark.usefixtures("small_jobs")
def test_staging_that_was_cut_off_goes_on() -> None:
    cluster = EdgeCluster(2 * 11)
    target = KubeEdgeTarget(cluster)
    target.stage(staging())
    lost = kept(cluster, PREPULL_JOBS)[1]
    cluster.delete(PREPULL_JOBS, lost["metadata"]["name"])
    assert target.stage(staging()).changed == 1
    assert len({node for part in jobs(cluster) for node in part}) == 11


def test_jobs_of_a_release_that_is_not_on_its_way_go(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    target.stage(staging())
    target.stage(staging(release("c")))
    (job,) = kept(cluster, PREPULL_JOBS)
    assert job["metadata"]["labels"]["edgeloop/release"] == "c" * 40
    target.switch(at_rest())
    assert jobs(cluster) == []


def test_a_conflict_is_reported_and_nothing_changed(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    running(cluster, target)
    (found,) = kept(cluster, DAEMON_SETS)
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "theirs"
    cluster.edit(DAEMON_SETS, found, "kubectl-edit")
    before = kept(cluster, DAEMON_SETS)
    with pytest.raises(FieldConflict):
        target.plan(moving())
    done = target.switch(moving())
    assert done.state == "refused"
    assert "image is managed by 'kubectl-edit': let it go there" in done.reason
    assert kept(cluster, DAEMON_SETS) == before


def foreign(name: str) -> Manifest:
    meta = {"name": name, "namespace": "edgeloop"}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": {"selector": {"matchLabels": {}}}}


def test_objects_of_others_are_left_alone(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    cluster.edit(DAEMON_SETS, foreign("edgeloop-wine-rater-ring-0"))
    cluster.edit(DAEMON_SETS, foreign("theirs"))
    before = kept(cluster, DAEMON_SETS)
    with pytest.raises(ForeignObject, match="is not edgeloop's"):
        target.plan(at_rest())
    assert target.switch(at_rest()).state == "refused"
    assert target.uninstall() == 0
    assert kept(cluster, DAEMON_SETS) == before


def test_another_that_took_the_name_is_not_deleted(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    target.switch(at_rest())
    (listed,) = kept(cluster, DAEMON_SETS)
    cluster.delete(DAEMON_SETS, listed["metadata"]["name"], "edgeloop")
    target.switch(at_rest())
    assert delete_own(cluster, DAEMON_SETS, [listed]) == 0
    assert delete_own(cluster, DAEMON_SETS, kept(cluster, DAEMON_SETS)) == 1


def test_uninstall_leaves_nothing(cluster: EdgeCluster) -> None:
    target = KubeEdgeTarget(cluster, KubeEdgeOptions(groups=True))
    before = cluster.objects()
    for ring in (0, 1):
        target.switch(at_rest(ring=ring))
    target.stage(staging())
    assert len(cluster.objects() - before) == 4
    assert target.uninstall("another") == 0
    assert target.uninstall("wine-rater") == 2
    assert {kind for kind, _, _ in cluster.objects() - before} == {"NodeGroup"}
    assert target.uninstall() == 2
    assert cluster.objects() == before


def test_groups_are_made_and_selected_by(cluster: EdgeCluster) -> None:
    target = KubeEdgeTarget(cluster, KubeEdgeOptions(groups=True))
    assert "+ NodeGroup edgeloop-ring-0: new" in target.plan(at_rest()).lines
    target.switch(at_rest())
    (group,) = kept(cluster, NODE_GROUPS)
    assert group["spec"] == {"matchLabels": {"edgeloop/ring": "0"}}
    assert target.observe(at_rest()) == Observed(0, 0, 0, 0, 0)
    for name in ("edge-0", "edge-1"):
        cluster.node(name, group="edgeloop-ring-0")
    cluster.run()
    assert target.observe(at_rest()) == Observed(2, 2, 2, 0, 0)


def test_batches_are_refused(target: KubeEdgeTarget) -> None:
    part = moving(place("salt", "edge-0"))
    with pytest.raises(BatchesUnsupported, match="a cluster target has no batches"):
        target.plan(part)
    assert target.switch(part).state == "refused"


@pytest.mark.parametrize(
    "image", ["registry.example.com/wine:7", "registry.example.com/wine@sha256:abc", f"a b@sha256:{'a' * 64}"]
)
def test_an_image_by_tag_is_refused(cluster: EdgeCluster, target: KubeEdgeTarget, image: str) -> None:
    with pytest.raises(MissingImage, match="is not named by digest"):
        target.plan(at_rest(release("a", predictor=image)))
    assert target.stage(staging(release("b", predictor=image))).state == "refused"
    assert kept(cluster, DAEMON_SETS) == []


def test_a_release_without_the_image_is_refused(target: KubeEdgeTarget) -> None:
    with pytest.raises(MissingImage, match=r"no image of kind 'predictor': run  edgeloop release push"):
        target.plan(at_rest(release("a", model=SERVING)))


def test_a_cluster_that_is_away_is_asked_again(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    cluster.away = True
    for ask in (target.plan, target.stage, target.switch, target.observe, target.revert):
        with pytest.raises(ClusterUnavailable):
            ask(staging())


def test_rights_that_lack_are_refused() -> None:
    cluster = EdgeCluster(may=lambda call: call.verb != "patch")
    assert "patch of daemonsets is not allowed" in KubeEdgeTarget(cluster).switch(at_rest()).reason


def test_a_ring_without_a_release_is_left_as_it_is(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    assert target.switch(at_rest(None)).changed == 0
    assert "no release is wanted" in target.plan(at_rest(None)).warnings[0]
    assert target.observe(at_rest(None)) == Observed(2, 0, 0, 0, 0)


def test_a_ring_without_nodes_is_warned_of(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    assert target.plan(at_rest(ring=7)).warnings == (
        "ring 7: no node has its labels: node-role.kubernetes.io/edge=,edgeloop/ring=7",
    )


def test_image_volumes_need_a_cluster_that_has_them() -> None:
    options = KubeEdgeOptions(image="savedmodel", server=SERVING, model_volume="image")
    assert KubeEdgeTarget(EdgeCluster(version=(1, 34)), options).switch(at_rest()).state == "refused"
    assert KubeEdgeTarget(EdgeCluster(version=(1, 35)), options).switch(at_rest()).state == "done"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": "savedmodel"}, "add server"),
        ({"image": "savedmodel", "server": SERVING, "arch": "arm64"}, "has no image for arm64"),
        ({"hold": True, "host_port": 8080}, "leave out hold or host_port"),
        ({"image": "savedmodel", "server": SERVING, "reports": "broker"}, "TensorFlow Serving does not report"),
    ],
)
def test_options_that_contradict(options: dict[str, object], words: str) -> None:
    with pytest.raises(BadOptions, match=words):
        KubeEdgeOptions(**options)  # type: ignore[arg-type]


def test_a_server_by_tag_is_refused() -> None:
    with pytest.raises(MissingImage, match="not named by digest"):
        KubeEdgeOptions(image="savedmodel", server="tensorflow/serving:2.6.2")


def test_jobs_at_rest_leave_nodes_alone(cluster: EdgeCluster, target: KubeEdgeTarget) -> None:
    before = kept(cluster, NODES)
    running(cluster, target)
    target.stage(staging())
    target.switch(moving(NOBODY))
    assert kept(cluster, NODES) == before
