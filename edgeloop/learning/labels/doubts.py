"""How unsure a model is of samples that nobody has labelled: the champion where there is one, else a quick fit.

The champion is what the labels are to mend, so its doubts are the ones that count. Without one, a classifier's doubts
are a logistic regression's on what is labelled. A number has neither margin nor entropy: there the doubt is how far
the answers of the service's own pipeline spread when it is fitted on several draws of the labelled samples, or how far
the sample is from all labelled ones, whichever puts it higher. A pipeline alone is sure of itself in directions in
which it has seen nothing vary.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.models import OnnxModel, UnloadableModel, read_head
from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.learning.labels.picks import nearest_distances
from edgeloop.learning.labels.vectors import Vectors
from edgeloop.learning.tabular import fit_pipeline
from edgeloop.samples.labelling import Doubt
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Pipelines whose answers are compared, and the most labelled samples that each is fitted on.
MEMBERS = 8
MOST_FITTED = 2000


def doubts_of(probabilities: NDArray[np.float64], kind: Doubt) -> NDArray[np.float64]:
    """Doubt in [0, 1] of probabilities [n, labels]: one less the margin of the two best, or the entropy over log K."""
    if kind == "margin":
        best = np.sort(probabilities, axis=1)
        return np.asarray(1 - (best[:, -1] - best[:, -2]), dtype=np.float64)
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return np.asarray(-(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1]), dtype=np.float64)


def champion_probabilities(
    store: ObjectStore, service: Service, layers: Mapping[str, str] | None, vectors: Vectors, names: Sequence[str]
) -> NDArray[np.float64] | None:
    """What the champion (blob digests by role) says of classifier samples: float64 [names, labels].

    None without a champion, where one of its blobs is gone or does not load, or where the vectors are not its own.
    """
    if layers is None or not names:
        return None
    points = np.stack([vectors.raw[n] for n in names])
    try:
        if service.image is None:
            model = OnnxModel(store.get(blob_key(layers["model"])), service.feature_names, service.labels)
            return row_probabilities(model, points)
        if vectors.backbone != layers["backbone"]:
            return None
        return read_head(store.get(blob_key(layers["head"]))).probabilities(points)
    except (KeyError, ObjectMissing, UnloadableModel):
        return None


def row_probabilities(model: OnnxModel, points: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a classifier of rows says of float32 [rows, features]: float64 [rows, labels]."""
    answers = [model.predict(encode_features(row.tolist())).probabilities for row in points]
    return np.asarray(answers, dtype=np.float64)


def fresh_probabilities(
    known: NDArray[np.float32], labels: Sequence[str], open_vectors: NDArray[np.float32], seed: int
) -> NDArray[np.float64] | None:
    """Probabilities float64 [n, different labels] by a logistic regression on what is known.

    None where ``labels`` (one per row of ``known``) has fewer than two different ones.
    """
    if len(set(labels)) < 2 or not len(open_vectors):
        return None
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=10.0, max_iter=300, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # which is doubted most does not hang on the last digits
        model.fit(known, list(labels))
    return np.asarray(model.predict_proba(open_vectors), dtype=np.float64)


def number_doubts(
    service: Service, known: NDArray[np.float32], values: Sequence[str], open_vectors: NDArray[np.float32], seed: int
) -> NDArray[np.float64] | None:
    """Doubts of a regressor, float64 [n] in (0, 1]: the larger of the ranks by spread and by distance to the known.

    None where nothing is known or nothing is open. Raises as :func:`ensemble_spread`.
    """
    spread = ensemble_spread(service, known, values, open_vectors, seed)
    if spread is None:
        return None
    from scipy.stats import rankdata

    far = nearest_distances(open_vectors, known)
    ranks = [rankdata(measure, method="min") / len(measure) for measure in (spread, far)]
    return np.asarray(np.maximum(*ranks), dtype=np.float64)


def ensemble_spread(
    service: Service, known: NDArray[np.float32], values: Sequence[str], open_vectors: NDArray[np.float32], seed: int
) -> NDArray[np.float64] | None:
    """Standard deviation of the answers of a regressor's pipeline over bootstrap draws of what is known, float64 [n].

    Query by bagging (Abe and Mamitsuka 1998). None where nothing is known or nothing is open.

    Raises:
        UnknownPipeline: the pipeline that training would use cannot be made.
    """
    if not len(known) or not len(open_vectors):
        return None
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(seed)
    answers: list[NDArray[np.float64]] = []
    for member in range(MEMBERS):
        drawn = rng.integers(len(known), size=min(len(known), MOST_FITTED))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted: Any = fit_pipeline(service, known[drawn], [values[i] for i in drawn], seed + member)
        answers.append(np.asarray(fitted.predict(open_vectors), dtype=np.float64).reshape(-1))
    return np.asarray(np.std(answers, axis=0), dtype=np.float64)
