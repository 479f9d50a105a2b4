"""Sites with KServe for tests: memory, and a stand-in for KServe's controller."""

from __future__ import annotations

import copy
from typing import Any

from edgeloop.clients.cluster import DEPLOYMENTS, Manifest
from edgeloop.clients.cluster_memory import MemoryCluster
from edgeloop.fleet.targets.kserve_manifests import INFERENCE_SERVICES
from tests.unit.fleet.targets.edge import kept

CONTROLLER = "kserve/kserve-controller:v0.20.1"
LOADED = {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"}}


class Site(MemoryCluster):
    """One cluster with KServe."""

    def __init__(self, name: str, controller: str | None = CONTROLLER, **more: Any) -> None:
        super().__init__(name, (DEPLOYMENTS, INFERENCE_SERVICES), ("edgeloop", "kserve"), **more)
        if controller:
            pod = {"containers": [{"name": "proxy", "image": "p:v9.9"}, {"name": "manager", "image": controller}]}
            self._deploy("kserve-controller-manager", "kserve", {"template": {"spec": pod}})

    def _deploy(self, name: str, namespace: str, spec: Manifest) -> Manifest:
        meta = {"name": name, "namespace": namespace}
        return self.edit(
            DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}, "kserve"
        )

    def deploy(self) -> None:
        """The controller makes Deployments of all InferenceServices; their pods are still to come."""
        for service in kept(self, INFERENCE_SERVICES):
            predictor = service["spec"]["predictor"]
            template = {"metadata": {"labels": copy.deepcopy(predictor["labels"])}, "spec": {"containers": []}}
            name = f"{service['metadata']['name']}-predictor"
            self._deploy(name, "edgeloop", {"replicas": predictor["minReplicas"], "template": template})

    def pods(self, *, updated: int = 1, available: int = 1, total: int = 1, stuck: bool = False) -> None:
        """The Deployments' controller has looked."""
        for deployment in self._predictors():
            progress = {"type": "Progressing", "status": str(not stuck), "reason": "ProgressDeadlineExceeded"}
            status = {
                "observedGeneration": deployment["metadata"]["generation"],
                "updatedReplicas": updated,
                "availableReplicas": available,
                "replicas": total,
                "conditions": [progress | {"message": "no pod\ncame up"}],
            }
            self.put_status(DEPLOYMENTS, deployment["metadata"]["name"], "edgeloop", status)

    def look(self, model: Manifest | None = None, **conditions: bool) -> None:
        """KServe's controller has looked at the Deployments; ``model`` is what it says of the model."""
        holds = {"PredictorReady": True, "IngressReady": True, "Ready": True} | conditions
        told = [{"type": kind, "status": str(is_so)} for kind, is_so in holds.items()]
        for deployment in self._predictors():
            seen = (deployment.get("status") or {}).get("observedGeneration", 0)
            status = {"observedGeneration": seen, "conditions": told, "modelStatus": model or LOADED}
            name = deployment["metadata"]["name"].removesuffix("-predictor")
            self.put_status(INFERENCE_SERVICES, name, "edgeloop", status)

    def run(self) -> None:
        """All goes well."""
        self.deploy()
        self.pods()
        self.look()

    def _predictors(self) -> list[Manifest]:
        return [d for d in kept(self, DEPLOYMENTS) if d["metadata"]["namespace"] == "edgeloop"]
