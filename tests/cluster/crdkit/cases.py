"""What the API server takes of the two resources, what it makes of it, and what it refuses with which words.

Specs of fleets are given without the model where that is berth-tiny. A field is named as the API server names it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Spec = dict[str, Any]

TINY: Spec = {"model": {"builtin": "berth-tiny"}}
PVC: Spec = {"model": {"pvc": {"claimName": "models"}}}
HUGGING_FACE: Spec = {"model": {"huggingFace": {"repo": "Qwen/Qwen3-0.6B", "revision": "main"}}}

DURATION = "must be a duration such as 90s, 10m or 1h30m: more than 0, at most 8760h"
OBJECT_NAME = "must be an RFC 1123 name: a-z, 0-9, - and ., with a letter or a digit at both ends of each part"
LABEL_VALUE = "must be a label's value: letters, digits, -, _ and ., with a letter or a digit at both ends, or empty"
LABEL = "must be an RFC 1123 label: a-z, 0-9 and -, with a letter or a digit at both ends"
MAP_KEY = (
    "a key is 1 to 63 letters, digits, -, _ and ., with a letter or a digit at both ends; and before it, if at all, "
    "a domain and a slash"
)
SOURCE = "exactly one of builtin, pvc and huggingFace must be given"
MODEL_FIXED = "model cannot be changed: sessions belong to it. Make another fleet"
FLEET_FIXED = "fleet cannot be changed: a session belongs to it for life"
HIBERNATE = "hibernateAfter must be shorter than idleTimeout, or the session would close before it could hibernate"
BUFFER = "bufferSlots must be less than max * slots, or no session could ever be bound with the buffer kept"
EITHER = "replicas and autoscaling must not both be given"
OWN_KEYS = "keys under berth.dev/ are the operator's"


class Refusal(NamedTuple):
    """A spec, the field that is wrong with it, and what is said of the field."""

    spec: Spec
    field: str
    message: str
    name: str = "refused"


class Default(NamedTuple):
    """A spec as written, and as kept."""

    spec: Spec | None
    kept: Spec


def template(**members: Any) -> Spec:
    """Return a fleet's spec whose pods have these members."""
    return TINY | {"template": members}


def _hub(**members: Any) -> Spec:
    return {"model": {"huggingFace": HUGGING_FACE["model"]["huggingFace"] | members}}


def _scaled(**members: Any) -> Spec:
    return TINY | {"autoscaling": {"min": 1, "max": 2} | members}


EVERY_POD_FIELD: Spec = {
    "labels": {"team": "a", "example.org/stage": ""},
    "annotations": {"example.org/note": "any text, of any kind: {}"},
    "image": "registry.example:5000/berth/worker@sha256:" + "0" * 64,
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "pull"}, {"name": "pull.second"}],
    "resources": {
        "requests": {"cpu": "500m", "memory": "1.5Gi"},
        "limits": {"memory": 2147483648, "nvidia.com/gpu": 1},
    },
    "env": [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "_EMPTY", "value": ""}],
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "a", "value": "b"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpus", "operator": "Gt", "values": ["3"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]},
                ]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}}
            ],
        },
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "podAffinityTerm": {
                        "labelSelector": {"matchLabels": {"app": "gateway"}},
                        "topologyKey": "zone",
                        "namespaces": ["berth"],
                    },
                }
            ]
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
                    "namespaceSelector": {},
                    "topologyKey": "kubernetes.io/hostname",
                    "matchLabelKeys": ["berth.dev/revision"],
                }
            ]
        },
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"berth.dev/fleet": "a"}},
            "minDomains": 2,
            "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Ignore",
            "matchLabelKeys": ["berth.dev/revision"],
        }
    ],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "schedulerName": "default-scheduler",
}

FLEETS_TAKEN: dict[str, Spec] = {
    "the smallest": TINY,
    "a volume": PVC,
    "a folder of a volume": {"model": {"pvc": {"claimName": "models", "path": "/a/.b/..c/d.e"}}},
    "the hub": HUGGING_FACE,
    "the hub with a token": _hub(tokenSecretRef={"name": "hub", "key": "HF_TOKEN.1"}),
    "a repository without owner": _hub(repo="gpt2", revision="refs/pr/1"),
    "every engine setting": TINY
    | {
        "engine": {
            "dtype": "bfloat16",
            "pageSize": 32,
            "maxTotalTokens": 32,
            "chunkedPrefillSize": 1,
            "maxRunning": 1,
            "contextLength": 1,
            "attention": "flashinfer",
            "mixedChunk": True,
            "threads": 1024,
        }
    },
    "a page of the usual size": TINY | {"engine": {"maxTotalTokens": 16}},
    "no workers": TINY | {"replicas": 0},
    "the most workers": TINY | {"replicas": 5000},
    "one to two": _scaled(),
    "as many as there are": _scaled(min=2, max=2),
    "none to one": _scaled(min=0, max=1),
    "all slots but one free": _scaled(bufferSlots=15),
    "more first": TINY | {"rollout": {"maxSurge": 1}},
    "fewer first": TINY | {"rollout": {"maxUnavailable": 1}},
    "a long duration": TINY | {"drainDeadline": "8760h"},
    "a short duration": TINY | {"drainDeadline": "1ms"},
    "a compound duration": TINY | {"drainDeadline": "1h2m3.5s4ms"},
    "every field of pods": TINY | {"template": EVERY_POD_FIELD},
}

SESSIONS_TAKEN: dict[str, Spec] = {
    "the smallest": {},
    "every field": {
        "fleet": "a-1",
        "idleTimeout": "1h",
        "hibernateAfter": "59m",
        "maxTokens": 1,
        "suspend": True,
        "onWorkerFailure": "Abort",
        "deletionPolicy": "Retain",
    },
    "hibernates and never closes": {"hibernateAfter": "1h"},
    "closes and never hibernates by the clock": {"idleTimeout": "1s"},
}

FLEETS_REFUSED: dict[str, Refusal] = {
    "a name with a dot": Refusal(TINY, "metadata.name", LABEL, "a.b"),
    "a name too long": Refusal(TINY, "metadata.name", "Too long: may not be more than 45 bytes", "a" * 46),
    "no model": Refusal({"slots": 1}, "spec.model", "Required value"),
    "no source": Refusal({"model": {}}, "spec.model", SOURCE),
    "two sources": Refusal({"model": TINY["model"] | PVC["model"]}, "spec.model", SOURCE),
    "three sources": Refusal({"model": TINY["model"] | PVC["model"] | HUGGING_FACE["model"]}, "spec.model", SOURCE),
    "a built-in model's name": Refusal(
        {"model": {"builtin": "Berth"}}, "spec.model.builtin", "must be a built-in model's name, such as berth-tiny"
    ),
    "an empty name": Refusal(
        {"model": {"builtin": ""}}, "spec.model.builtin", "must be a built-in model's name, such as berth-tiny"
    ),
    "no claim": Refusal({"model": {"pvc": {"path": "/"}}}, "spec.model.pvc.claimName", "Required value"),
    "a claim's name": Refusal({"model": {"pvc": {"claimName": "a_b"}}}, "spec.model.pvc.claimName", OBJECT_NAME),
    "a relative path": Refusal(
        {"model": {"pvc": {"claimName": "a", "path": "b"}}},
        "spec.model.pvc.path",
        "must be an absolute path without . and ..",
    ),
    "a path that climbs": Refusal(
        {"model": {"pvc": {"claimName": "a", "path": "/b/../c"}}},
        "spec.model.pvc.path",
        "must be an absolute path without . and ..",
    ),
    "a repository's name": Refusal(
        _hub(repo="a/b/c"), "spec.model.huggingFace.repo", "must be a repository such as Qwen/Qwen3-8B"
    ),
    "no revision": Refusal(
        {"model": {"huggingFace": {"repo": "a"}}}, "spec.model.huggingFace.revision", "Required value"
    ),
    "a revision that climbs": Refusal(
        _hub(revision="../x"), "spec.model.huggingFace.revision", "must be a commit, a tag or a branch"
    ),
    "a secret's name": Refusal(
        _hub(tokenSecretRef={"name": "A"}), "spec.model.huggingFace.tokenSecretRef.name", OBJECT_NAME
    ),
    "a secret's key": Refusal(
        _hub(tokenSecretRef={"name": "a", "key": "b/c"}),
        "spec.model.huggingFace.tokenSecretRef.key",
        "must be letters, digits, -, _ and .",
    ),
    "an unknown dtype": Refusal(
        TINY | {"engine": {"dtype": "float16"}},
        "spec.engine.dtype",
        'Unsupported value: "float16": supported values: "auto", "float32", "bfloat16"',
    ),
    "a page of nothing": Refusal(
        TINY | {"engine": {"pageSize": 0}}, "spec.engine.pageSize", "should be greater than or equal to 1"
    ),
    "a pool without a page": Refusal(
        TINY | {"engine": {"pageSize": 32, "maxTotalTokens": 31}},
        "spec.engine.maxTotalTokens",
        "maxTotalTokens must hold a page at least (pageSize, 16 unless given)",
    ),
    "a pool without a usual page": Refusal(
        TINY | {"engine": {"maxTotalTokens": 15}},
        "spec.engine.maxTotalTokens",
        "maxTotalTokens must hold a page at least (pageSize, 16 unless given)",
    ),
    "no slots": Refusal(TINY | {"slots": 0}, "spec.slots", "should be greater than or equal to 1"),
    "fewer than none": Refusal(_scaled(min=-1), "spec.autoscaling.min", "should be greater than or equal to 0"),
    "too many": Refusal(TINY | {"replicas": 5001}, "spec.replicas", "should be less than or equal to 5000"),
    "a number and a range": Refusal(_scaled() | {"replicas": 1}, "spec", EITHER),
    "more than the most": Refusal(_scaled(min=3), "spec.autoscaling.min", "min must not be more than max"),
    "no most": Refusal(TINY | {"autoscaling": {"min": 1}}, "spec.autoscaling.max", "Required value"),
    "a buffer of all slots": Refusal(_scaled(bufferSlots=16), "spec.autoscaling.bufferSlots", BUFFER),
    "a buffer of more than a small worker's slots": Refusal(
        _scaled(bufferSlots=2) | {"slots": 1}, "spec.autoscaling.bufferSlots", BUFFER
    ),
    "a time to wait that is none": Refusal(
        _scaled(scaleDownStabilization="soon"), "spec.autoscaling.scaleDownStabilization", DURATION
    ),
    "neither more nor fewer": Refusal(
        TINY | {"rollout": {}}, "spec.rollout", "maxSurge and maxUnavailable must not both be 0"
    ),
    "no time at all": Refusal(TINY | {"drainDeadline": "0s"}, "spec.drainDeadline", DURATION),
    "an empty time": Refusal(TINY | {"drainDeadline": ""}, "spec.drainDeadline", DURATION),
    "a time without unit": Refusal(TINY | {"drainDeadline": "120"}, "spec.drainDeadline", DURATION),
    "a time of before": Refusal(TINY | {"drainDeadline": "-2m"}, "spec.drainDeadline", DURATION),
    "a time in words": Refusal(TINY | {"drainDeadline": "2 minutes"}, "spec.drainDeadline", DURATION),
    "more than a year": Refusal(TINY | {"drainDeadline": "8760h1ms"}, "spec.drainDeadline", DURATION),
    "the most that the form allows": Refusal(
        TINY | {"drainDeadline": "9999h999999m99999999s"}, "spec.drainDeadline", DURATION
    ),
    "an empty label": Refusal(template(labels={"": "a"}), "spec.template.labels", MAP_KEY),
    "a label of ours": Refusal(template(labels={"berth.dev/fleet": "a"}), "spec.template.labels", OWN_KEYS),
    "a label that says who we are": Refusal(
        template(labels={"app.kubernetes.io/name": "a"}),
        "spec.template.labels",
        "app.kubernetes.io/managed-by and app.kubernetes.io/name are set by the operator",
    ),
    "a label's value": Refusal(template(labels={"a": "b c"}), "spec.template.labels.a", LABEL_VALUE),
    "an empty annotation": Refusal(template(annotations={"a b": "a"}), "spec.template.annotations", MAP_KEY),
    "an annotation of ours": Refusal(template(annotations={"berth.dev/a": "b"}), "spec.template.annotations", OWN_KEYS),
    "a worker that nothing confines": Refusal(
        template(annotations={"container.apparmor.security.beta.kubernetes.io/worker": "unconfined"}),
        "spec.template.annotations",
        "a container's confinement is the operator's to decide",
    ),
    "an image with blanks": Refusal(
        template(image="a b"), "spec.template.image", "must be an image's reference, without blanks"
    ),
    "an empty image": Refusal(
        template(image=""), "spec.template.image", "must be an image's reference, without blanks"
    ),
    "a pull secret's name": Refusal(
        template(imagePullSecrets=[{"name": "a/b"}]), "spec.template.imagePullSecrets[0].name", OBJECT_NAME
    ),
    "a request of nothing": Refusal(
        template(resources={"requests": {"": 1}}), "spec.template.resources.requests", MAP_KEY
    ),
    "a limit of nothing": Refusal(template(resources={"limits": {"": 1}}), "spec.template.resources.limits", MAP_KEY),
    "an amount": Refusal(
        template(resources={"limits": {"cpu": "many"}}), "spec.template.resources.limits.cpu", "should match"
    ),
    "a variable of ours": Refusal(
        template(env=[{"name": "POD_UID", "value": "a"}]),
        "spec.template.env[0].name",
        "HF_TOKEN, POD_IP, POD_UID are set by the operator",
    ),
    "a variable's name": Refusal(
        template(env=[{"name": "1A"}]),
        "spec.template.env[0].name",
        "must be letters, digits and _, with no digit first",
    ),
    "a variable twice": Refusal(
        template(env=[{"name": "A", "value": "b"}, {"name": "A", "value": "c"}]),
        "spec.template.env[1]",
        'Duplicate value: {"name":"A"}',
    ),
    "a node label without name": Refusal(template(nodeSelector={"": "a"}), "spec.template.nodeSelector", MAP_KEY),
    "a node label's value": Refusal(template(nodeSelector={"a": "/"}), "spec.template.nodeSelector.a", LABEL_VALUE),
    "a toleration of everything, unsaid": Refusal(
        template(tolerations=[{"effect": "NoSchedule"}]),
        "spec.template.tolerations[0].operator",
        "a toleration without key tolerates every taint: say so with operator Exists",
    ),
    "a toleration with a needless value": Refusal(
        template(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        "spec.template.tolerations[0].value",
        "operator Exists takes no value",
    ),
    "a toleration for a time, of what does not evict": Refusal(
        template(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]),
        "spec.template.tolerations[0].tolerationSeconds",
        "tolerationSeconds goes with effect NoExecute only",
    ),
    "a priority class's name": Refusal(template(priorityClassName="A"), "spec.template.priorityClassName", OBJECT_NAME),
    "a runtime class's name": Refusal(template(runtimeClassName="A"), "spec.template.runtimeClassName", OBJECT_NAME),
    "a scheduler's name": Refusal(template(schedulerName="A"), "spec.template.schedulerName", OBJECT_NAME),
}

SESSIONS_REFUSED: dict[str, Refusal] = {
    "a fleet's name": Refusal({"fleet": "A"}, "spec.fleet", LABEL),
    "a fleet's name too long": Refusal({"fleet": "a" * 46}, "spec.fleet", "Too long: may not be more than 45 bytes"),
    "a time-out that is none": Refusal({"idleTimeout": "1d"}, "spec.idleTimeout", DURATION),
    "a rest that is none": Refusal({"hibernateAfter": "0m"}, "spec.hibernateAfter", DURATION),
    "a rest after the end": Refusal({"idleTimeout": "10m", "hibernateAfter": "11m"}, "spec.hibernateAfter", HIBERNATE),
    "a rest at the end": Refusal({"idleTimeout": "1h", "hibernateAfter": "60m"}, "spec.hibernateAfter", HIBERNATE),
    "no tokens": Refusal({"maxTokens": 0}, "spec.maxTokens", "should be greater than or equal to 1"),
    "an unknown failure policy": Refusal(
        {"onWorkerFailure": "continue"},
        "spec.onWorkerFailure",
        'Unsupported value: "continue": supported values: "Continue", "Abort"',
    ),
    "an unknown deletion policy": Refusal(
        {"deletionPolicy": "Orphan"},
        "spec.deletionPolicy",
        'Unsupported value: "Orphan": supported values: "Close", "Retain"',
    ),
}

FLEET_CHANGES_REFUSED: dict[str, tuple[Spec, Refusal]] = {
    "another model": (TINY, Refusal({"model": {"builtin": "other"}}, "spec.model", MODEL_FIXED)),
    "another source": (TINY, Refusal({"model": {"builtin": None} | PVC["model"]}, "spec.model", MODEL_FIXED)),
    "a path that was not there": (PVC, Refusal({"model": {"pvc": {"path": "/a"}}}, "spec.model", MODEL_FIXED)),
    "a secret that was not there": (
        HUGGING_FACE,
        Refusal({"model": {"huggingFace": {"tokenSecretRef": {"name": "a"}}}}, "spec.model", MODEL_FIXED),
    ),
    "a secret that was there": (
        _hub(tokenSecretRef={"name": "a"}),
        Refusal({"model": {"huggingFace": {"tokenSecretRef": None}}}, "spec.model", MODEL_FIXED),
    ),
    "a number beside a range": (_scaled(), Refusal({"replicas": 2}, "spec", EITHER)),
}
"""A spec that is there, and a merge patch of it."""

SESSION_CHANGES_REFUSED: dict[str, tuple[Spec, Refusal]] = {
    "another fleet": ({"fleet": "a"}, Refusal({"fleet": "b"}, "spec.fleet", FLEET_FIXED)),
    "another fleet than the default": ({}, Refusal({"fleet": "b"}, "spec.fleet", FLEET_FIXED)),
    "the fleet left out": ({"fleet": "a"}, Refusal({"fleet": None}, "spec.fleet", FLEET_FIXED)),
}

FLEET_CHANGES_TAKEN: dict[str, tuple[Spec, Spec]] = {
    "all but the model": (
        TINY,
        {
            "slots": 4,
            "replicas": 3,
            "engine": {"threads": 2},
            "rollout": {"maxSurge": 2},
            "drainDeadline": "1m",
            "template": EVERY_POD_FIELD,
        },
    ),
    "from a number to a range": (TINY | {"replicas": 2}, {"replicas": None, "autoscaling": {"min": 1, "max": 3}}),
    "from a range to a number": (_scaled(), {"replicas": 2, "autoscaling": None}),
    "the default said aloud": (PVC, {"model": {"pvc": {"path": "/"}}}),
}

SESSION_CHANGES_TAKEN: dict[str, tuple[Spec, Spec]] = {
    "all but the fleet": ({"fleet": "a"}, {**SESSIONS_TAKEN["every field"], "fleet": "a"}),
    "the default said aloud": ({}, {"fleet": "default"}),
    "limits taken back": (
        {"idleTimeout": "1h", "hibernateAfter": "1m", "maxTokens": 5},
        {"idleTimeout": None, "hibernateAfter": None, "maxTokens": None},
    ),
}

FLEET_DEFAULTS: dict[str, Default] = {
    "a fleet": Default(TINY, TINY | {"slots": 8, "drainDeadline": "2m"}),
    "a volume": Default(
        PVC, {"model": {"pvc": {"claimName": "models", "path": "/"}}, "slots": 8, "drainDeadline": "2m"}
    ),
    "a token": Default(
        _hub(tokenSecretRef={"name": "a"}),
        _hub(tokenSecretRef={"name": "a", "key": "token"}) | {"slots": 8, "drainDeadline": "2m"},
    ),
    "autoscaling": Default(
        _scaled(),
        _scaled(bufferSlots=0, scaleDownStabilization="5m") | {"slots": 8, "drainDeadline": "2m"},
    ),
    "a rollout": Default(
        TINY | {"rollout": {"maxSurge": 1}},
        TINY | {"rollout": {"maxSurge": 1, "maxUnavailable": 0}, "slots": 8, "drainDeadline": "2m"},
    ),
    "the other rollout": Default(
        TINY | {"rollout": {"maxUnavailable": 1}},
        TINY | {"rollout": {"maxSurge": 0, "maxUnavailable": 1}, "slots": 8, "drainDeadline": "2m"},
    ),
    "a variable": Default(
        template(env=[{"name": "A"}]),
        template(env=[{"name": "A", "value": ""}]) | {"slots": 8, "drainDeadline": "2m"},
    ),
}

_SESSION_KEPT = {"fleet": "default", "suspend": False, "onWorkerFailure": "Continue", "deletionPolicy": "Close"}

SESSION_DEFAULTS: dict[str, Default] = {
    "no spec": Default(None, _SESSION_KEPT),
    "an empty spec": Default({}, _SESSION_KEPT),
    "a null": Default({"fleet": None}, _SESSION_KEPT),
    "what is said stays": Default({"suspend": True, "fleet": "a"}, _SESSION_KEPT | {"suspend": True, "fleet": "a"}),
}
