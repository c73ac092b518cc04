import importlib
from types import SimpleNamespace

import jsonpatch

def _load(name, **stubs):
    try:
        return importlib.import_module(f"kitlib.cluster.apiserver.{name}")
    except ImportError:
        return SimpleNamespace(**stubs)

def _merge(doc, patch):
    if not isinstance(patch, dict):
        return patch
    out = dict(doc) if isinstance(doc, dict) else {}
    for k, v in patch.items():
        if v is None:
            out.pop(k, None)
        else:
            out[k] = _merge(out.get(k), v)
    return out

apply = _load("apply", track_update=lambda *a: None)
patch = _load("patch", json_merge_patch=_merge, strategic_merge_patch=lambda k, d, p: _merge(d, p), json_patch=lambda d, p: jsonpatch.apply_patch(d, p))
validation = _load("validation", validate_create=lambda k, o: [], validate_update=lambda k, n, o: [])

def _table(kind, objects, include, now, meta):
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
      "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}],
      "rows": [{"cells": [o["metadata"]["name"]], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"]}} for o in objects]}

def _nopb(body):
    raise ValueError("protobuf is not there yet")

protobuf = _load("protobuf", decode=_nopb)
table = _load("table", table=_table)
openapi = _load("openapi", v3_index=lambda: {"paths": {}}, v3_document=lambda gv: None, v2_document=lambda: b"")
streams = _load("streams")
