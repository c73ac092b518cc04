"""Tables: what `kubectl get` prints is made here, by the server.

Stands for kube-apiserver's `pkg/printers` and its default table converter. A kind's columns and how their
cells are filled are in `columns.py`; a kind without an entry there gets NAME and CREATED AT, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cache

from kitlib.cluster.apiserver import models
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.printers import columns, custom
from kitlib.cluster.apiserver.printers.cells import Cells
from kitlib.cluster.apiserver.printers.durations import Moment
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.objects import Object, is_finished, phase

_META = "V1ObjectMeta"


def table(kind: Kind, objects: Iterable[Object], include_object: str, now: datetime, list_meta: Object) -> Object:
    """Return the Table for objects of one kind.

    Args:
        kind: Their kind.
        objects: The objects; not changed, but shared with the table.
        include_object: `Metadata`, `Object` or `None`: what each row carries beside its cells.
        now: Time against which ages are counted.
        list_meta: Metadata of the list, such as its resourceVersion.

    Returns:
        A `meta.k8s.io/v1` Table.
    """
    moment = Moment(now)
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta}
    if isinstance(kind, CustomKind):
        rows = [_row(custom.cells(kind.columns, obj, moment), obj, include_object) for obj in objects]
        return {**head, "columnDefinitions": custom.definitions(kind.columns), "rows": rows}
    printer = columns.PRINTERS.get(kind.kind, columns.DEFAULT)
    rows = [_row(printer.row(obj, moment), obj, include_object) for obj in objects]
    return {**head, "columnDefinitions": definitions(kind), "rows": rows}


def _row(cells: Cells, obj: Object, include_object: str) -> Object:
    row: Object = {"cells": cells}
    if include_object == "Object":
        row["object"] = obj
    elif include_object != "None":
        meta = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        row["object"] = meta
    if (obj.get("kind"), obj.get("apiVersion")) == ("Pod", "v1") and is_finished(obj):
        reason = phase(obj)
        row["conditions"] = [{"type": "Completed", "status": "True", "reason": reason, "message": _COMPLETED[reason]}]
    return row


_COMPLETED = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


@cache
def definitions(kind: Kind) -> list[Object]:
    """Return a kind's column definitions; those of priority 1 show with `-o wide`."""
    printer = columns.PRINTERS.get(kind.kind, columns.DEFAULT)
    texts = {**_described(kind.model), **_described(f"{kind.model}Spec"), **_described(f"{kind.model}Status")}
    return [_definition(column, texts) for column in printer.columns]


def _described(model: str) -> dict[str, str]:
    return models.descriptions(model)[1]


def _definition(column: columns.Column, texts: dict[str, str]) -> Object:
    metadata = {"Name": "name", "Age": "creationTimestamp", "Created At": "creationTimestamp"}.get(column.name)
    text = _described(_META).get(metadata, "") if metadata else texts.get(column.field, column.description)
    return {
        "name": column.name,
        "type": column.type,
        "format": "name" if column.name == "Name" else "",
        "description": text,
        "priority": column.priority,
    }
